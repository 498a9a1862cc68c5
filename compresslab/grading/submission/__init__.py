"""Read submissions without running them: the files of an inbox, a notebook's cells, the answers in them."""
