"""Experiments: the long runs behind the tables of the labs, their results and how they are repeated."""
