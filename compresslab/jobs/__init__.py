"""Running many independent tasks: local processes, or an existing Dask cluster, behind one executor."""
