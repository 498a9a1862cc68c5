"""The command line as a program: ``python -m compresslab``."""

from compresslab.cli import author, student, teacher
from compresslab.cli.app import app

__all__ = ["app", "author", "student", "teacher"]

if __name__ == "__main__":
    app(prog_name="compresslab")
