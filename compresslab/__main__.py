"""The command line: what students ask for is in learning, what teachers ask for in teaching.

Each command calls one plain function and prints what it returned. Bad input is one sentence and exit code 2.
"""

from compresslab import learning, teaching
from compresslab.terminal import app

__all__ = ["app", "learning", "teaching"]

if __name__ == "__main__":
    app()
