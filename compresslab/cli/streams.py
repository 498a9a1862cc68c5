"""Output that every terminal, pipe and file can take: what its encoding lacks is replaced, never an error.

A Windows pipe is in cp1252, a bare container in ASCII, and neither has ✓. There the marks of the tables
become plain signs that still differ, accents fall off, and all else becomes ``?``.
"""

from __future__ import annotations

import codecs
import contextlib
import sys
import unicodedata

__all__ = ["take_any_text"]

PLAIN = dict(zip("✓✗–—−×·", "+x---x.", strict=True)) | {"…": "...", "→": "->", "≤": "<=", "≥": ">="}
HANDLER = "compresslab.plain"


def take_any_text() -> None:
    """Let standard output and standard error replace what their encoding lacks.

    UTF-8 lacks only the bytes of a file name that is not UTF-8 itself.
    """
    codecs.register_error(HANDLER, _replaced)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # a stream of another program's
            stream.reconfigure(errors=HANDLER)  # type: ignore[union-attr]


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(sign: str) -> str:
    r"""Return ASCII for a sign.

    >>> "".join(map(_plain, "✓ é ☃"))
    '+ e ?'
    """
    bare = unicodedata.normalize("NFKD", sign).encode("ascii", errors="ignore").decode()
    return PLAIN.get(sign) or bare or "?"
