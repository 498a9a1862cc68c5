"""The sandbox in which students' code runs.

From the outside to the inside: ``worker_client`` is the grader's side of a worker and ``messages`` their
protocol; ``bubblewrap`` is the sandbox around a worker, ``package_copy`` what it may import; ``worker`` runs
each exercise in a child with its own ``namespaces``, without ``privileges``, under ``limits`` and a filter of
``syscalls`` (``kernel`` has the calls for that). ``self_test`` tries all of it on this machine.
"""
