"""Grading: one notebook or a class, isolated, from the submitted file to the teacher's table."""
