"""The published answer of an exercise: what ``reveal`` shows and hands out."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap

from compresslab.checks.exercise import Exercise

__all__ = ["published_module", "published_source"]


def published_source(exercise: Exercise) -> str:
    """Return the text of the exercise's first right answer, under the exercise's name.

    It needs torch, numpy and Python's own modules alone, and so runs wherever it is sent. Where the source
    is not available, the text says so in a comment.
    """
    answer = exercise.right[0]
    if exercise.choices:
        return f"def {exercise.name}():\n    return {answer()!r}\n"
    try:
        text = textwrap.dedent(inspect.getsource(answer))
    except (OSError, TypeError):
        return "# (its source is not available)\n"
    return re.sub(rf"\b{answer.__name__}\b", exercise.name, text)


def published_module(exercise: Exercise) -> str:
    """Return the published answer's text below the imports that it needs, so that it runs by itself."""
    if exercise.choices:
        return published_source(exercise)
    module = ast.parse(inspect.getsource(sys.modules[exercise.judge.__module__]))
    imports = [
        ast.unparse(node)
        for node in module.body
        if isinstance(node, ast.Import | ast.ImportFrom) and "compresslab" not in ast.unparse(node)
    ]
    return "\n".join([*imports, published_source(exercise)])
