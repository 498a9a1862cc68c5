"""The sandbox: where students' code runs, what it can reach there, and how the grader talks to it."""
