"""What an edition says about itself: the kit's version, the lab, and a digest of each cell as shipped.

It stands in the notebook's metadata: ``{"compresslab": {"version": …, "lab": …, "cells": {id: digest}}}``.
From the digests ``compresslab update`` knows which cells a student has changed.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from collections.abc import Mapping
from typing import Any

from nbformat import NotebookNode

from compresslab import __version__

__all__ = ["KEY", "digest", "edition_metadata", "shipped_cells", "version_of"]

KEY = "compresslab"
UNMARKED = "0.1.0"  # the one version whose editions say nothing about themselves
_UNMARKED_CELLS = "editions_of_0_1_0.json"


def edition_metadata(lab_name: str) -> dict[str, Any]:
    """Return what both editions of a lab say about themselves; the students' adds ``cells``."""
    return {KEY: {"version": __version__, "lab": lab_name}}


def digest(source: str) -> str:
    r"""Return a digest of a cell's text, the same whatever the line ends are and whatever blanks end a line.

    >>> digest("x = 1\r\n") == digest("x = 1") != digest("x = 2")
    True
    """
    text = "\n".join(line.rstrip() for line in source.splitlines()).strip()
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def version_of(notebook: Mapping[str, Any]) -> str:
    """Return the version of the kit that made a notebook."""
    return str(_about(notebook).get("version", UNMARKED))


def shipped_cells(notebook: Mapping[str, Any], lab_name: str) -> dict[str, str]:
    """Return the digest of each cell of the edition that a student's notebook was copied from, by id."""
    cells = _about(notebook).get("cells")
    if cells is None:
        text = importlib.resources.files(__package__).joinpath(_UNMARKED_CELLS).read_text(encoding="utf-8")
        cells = json.loads(text).get(lab_name, {})
    return dict(cells)


def _about(notebook: Mapping[str, Any]) -> Mapping[str, Any]:
    about = notebook.get("metadata", {}).get(KEY, {})
    return about if isinstance(about, dict | NotebookNode) else {}
