"""The command line, in three groups of commands: for students, authors and teachers."""
