"""``compresslab build``: from a lab's source to two notebooks, the instructor's and the student's.

    solutions/NN/NN.py     the source            → solutions/NN/NN.ipynb    with outputs
                                                 → solutions/NN/metrics.json  the numbers in its prose
                                                 → labs/NN/NN.ipynb           the student's edition

Everything is made in memory and written at the end, so a build that fails changes no file.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from compresslab.authoring.editions import student_edition
from compresslab.authoring.instructor_notebook import code_cells, instructor_notebook
from compresslab.authoring.placeholders import fill_prose
from compresslab.authoring.readme import refresh_readme
from compresslab.checks.exercise import Lab
from compresslab.errors import BadSource
from compresslab.jobs.openmp import passive
from compresslab.notebook.metrics import collect_metrics, write_metrics
from compresslab.storage.atomic import write_text

__all__ = ["build", "execute", "fill", "paths", "reuse_outputs"]

SECONDS_PER_CELL = 300
WIDGET = "application/vnd.jupyter.widget-view+json"


def paths(lab: Lab, root: Path) -> dict[str, Path]:
    """Return the paths of a lab's files below the repository's root: source, solution, metrics, student."""
    folder = root / "solutions" / lab.name
    return {
        "source": folder / f"{lab.name}.py",
        "solution": folder / f"{lab.name}.ipynb",
        "metrics": folder / "metrics.json",
        "student": root / "labs" / lab.name / f"{lab.name}.ipynb",
    }


def build(lab: Lab, root: Path, *, run: bool = True, say: Callable[[str], None] = print) -> None:
    """Build both editions of a lab, its metrics.json, and the generated blocks of the README.

    Args:
        lab: which.
        root: the repository's folder.
        run: execute the notebook; otherwise keep the stored outputs, if no code has changed.
        say: called with each step.

    Raises:
        CompressionError: the source is missing or wrong, a cell fails, or a number was not measured.
    """
    files = paths(lab, root)
    if not files["source"].is_file():
        raise BadSource(
            f"{files['source'].relative_to(root)} must be the source of the lab, but is missing; write it"
        )
    notebook = instructor_notebook(lab, files["source"].read_text(encoding="utf-8"))
    if run:
        execute(notebook, files["source"].parent, say=say)
    else:
        reuse_outputs(notebook, files["solution"])
    metrics = collect_metrics(notebook)
    fill(notebook, metrics)
    texts = {
        "solution": nbformat.writes(notebook) + "\n",
        "metrics": write_metrics(metrics),
        "student": student_edition(notebook, lab.name),
    }
    for name, text in texts.items():
        write_text(files[name], text)
        say(f"wrote {files[name].relative_to(root)}")
    if refresh_readme(root):
        say("wrote README.md")


def fill(notebook: NotebookNode, metrics: Mapping[str, int | float]) -> None:
    """Put the numbers into the notebook's prose, in place."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = fill_prose(cell.source, metrics, cell=cell.id)


def execute(notebook: NotebookNode, folder: Path, *, say: Callable[[str], None] = print) -> None:
    """Run the notebook in its folder and store the outputs in it, without times, widgets and progress bars.

    Raises:
        BadSource: a cell raised, took too long, or ended the kernel; with its last lines.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    count = len(code_cells(notebook))
    now: dict[str, NotebookNode] = {}

    def started(cell: NotebookNode, cell_index: int) -> None:
        if cell.cell_type == "code":
            now["cell"] = cell
            place = code_cells(notebook).index(cell) + 1
            say(f"cell {place} of {count}: {cell.id}")

    client = NotebookClient(
        notebook,
        timeout=SECONDS_PER_CELL,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=False,
        resources={"metadata": {"path": str(folder)}},
        on_cell_start=started,
    )
    metadata = json.loads(json.dumps(notebook.metadata))
    try:
        client.execute(env=passive(), stderr=subprocess.DEVNULL)  # the kernel's own log, not what cells write
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise BadSource(_failed(now["cell"], error)) from None
    notebook.metadata = nbformat.from_dict(metadata)
    for cell in code_cells(notebook):
        cell.outputs = _stored(cell, say)


def reuse_outputs(notebook: NotebookNode, stored: Path) -> None:
    """Copy the outputs of the stored notebook, in place.

    Raises:
        BadSource: there is none, or its code is not this notebook's.
    """
    if not stored.is_file():
        raise BadSource(f"{stored.name} must have been run before, but is missing; build without --no-run")
    cells = code_cells(notebook)
    before = code_cells(nbformat.read(stored, as_version=4))
    changed = [new.id for new, old in zip(cells, before, strict=False) if new.source != old.source]
    if changed or len(cells) != len(before):
        where = changed[0] if changed else f"{len(before)} cells became {len(cells)}"
        raise BadSource(
            f"the code of {stored.name} must be unchanged, but differs ({where}); build without --no-run"
        )
    for new, old in zip(cells, before, strict=True):
        new.outputs, new.execution_count = old.outputs, old.execution_count


def _failed(cell: NotebookNode, error: Exception) -> str:
    words = re.sub(r"\x1b\[[0-9;]*m", "", getattr(error, "traceback", "") or str(error))
    last = "\n".join(words.strip().splitlines()[-8:])
    return (
        f"cell {cell.id} fails:\n\n{cell.source}\n\n{last}\n\nNothing was written; correct it, build again."
    )


def _stored(cell: NotebookNode, say: Callable[[str], None]) -> list[NotebookNode]:
    """Return the outputs to keep: no widgets (they need a kernel), no stderr (progress bars)."""
    kept = []
    for output in cell.outputs:
        if output.get("name") == "stderr":
            if "%|" not in output.text:
                last = output.text.strip().splitlines()[-1]
                say(f"  cell {cell.id} wrote on stderr, not stored: {last[:200]}")
        elif WIDGET not in output.get("data", {}):
            output.pop("transient", None)
            kept.append(output)
    return kept
