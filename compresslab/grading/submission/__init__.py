"""A submission: the files of an inbox, a notebook's cells, and the answers in them. Nothing of it is run."""
