"""``compresslab doctor``: whether this machine can run the labs, and what to do about what is missing.

Each finding describes one thing that was examined. Nothing is changed, except that the data set is unpacked
into its cache folder, as the first lab would do; where a folder is tried, the file is removed again.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from rich.markup import escape
from rich.table import Table

from compresslab.cli.jupyter import OWN_FOLDER
from compresslab.cli.places import HOME_ADVICE, home_problem, temporary_problem, write_problem
from compresslab.data import location
from compresslab.data.fashion_mnist import FILES, cache_folder, unpack
from compresslab.data.location import DATA
from compresslab.data.torchvision_import import operators_load
from compresslab.errors import CompressionError
from compresslab.models.pretrained import ARCHITECTURES, load_baseline, read_card

__all__ = [
    "Finding",
    "bubblewrap",
    "can_run_the_labs",
    "cores",
    "dataset",
    "disk",
    "examine",
    "findings_table",
    "memory",
    "package",
    "places",
    "python",
    "repository",
    "torchvision",
    "trained",
]

_INSTALL = "pip install -e . in the repository"
_GIB = 2**30
_MEMORY_GIB, _DISK_GIB = 3, 1


@dataclass(frozen=True)
class Finding:
    """What was examined: whether it is good, whether the labs need it, what was found, and the remedy."""

    name: str
    good: bool
    needed: bool
    words: str
    remedy: str = ""


def examine(*, data: Path = DATA, cache: Path | None = None) -> tuple[Finding, ...]:
    """Return the findings about this machine, in the order in which they should be fixed.

    Args:
        data: the folder with the data set and the trained networks.
        cache: where the data set is unpacked; by default ``cache_folder()``.
    """
    try:
        cache = cache or cache_folder()
        without: list[Finding] = []
    except CompressionError as error:
        cache = Path(tempfile.gettempdir()) / "compresslab"
        without = [Finding("cache folder", False, True, *_reason_and_remedy(error))]
    return (
        python(sys.version_info[:3]),
        *without,
        *places(),
        package("torch"),
        torchvision(),
        *(package(name) for name in ("jupyterlab", "ipywidgets", "nbgrader", "ipykernel")),
        repository(location.HAS_REPOSITORY),
        dataset(data / "fashion_mnist", cache),
        *(trained(name, data / "baselines") for name in ARCHITECTURES),
        cores(_cores()),
        memory(_memory_bytes()),
        disk(_free_bytes(cache)),
        bubblewrap(shutil.which("bwrap")),
    )


def places(my_labs: Path | None = None) -> tuple[Finding, ...]:
    """Examine the places that the labs write to: ``my_labs/``, JupyterLab's own, temporary files."""
    examined = (
        ("my_labs", write_problem(my_labs or location.MY_LABS), OWN_FOLDER),
        ("home folder", home_problem(), HOME_ADVICE),
        ("temporary files", temporary_problem(), "name a folder of yours in the environment variable TMPDIR"),
    )
    return tuple(
        Finding(name, not problem, True, problem or "can be written", advice)
        for name, problem, advice in examined
    )


def can_run_the_labs(findings: tuple[Finding, ...]) -> bool:
    """Return whether everything that the labs need is good."""
    return all(finding.good for finding in findings if finding.needed)


def findings_table(findings: tuple[Finding, ...]) -> Table:
    """Return the findings as a table for the screen, with the verdict as its last line."""
    table = Table("", "what", "found", "how to fix it", show_footer=True)
    for finding in findings:
        mark = "[green]✓[/]" if finding.good else "[red]✗[/]" if finding.needed else "[yellow]–[/]"
        table.add_row(
            mark, *map(escape, (finding.name, finding.words, "" if finding.good else finding.remedy))
        )
    ready = can_run_the_labs(findings)
    table.columns[2].footer = f"This machine {'can' if ready else 'cannot yet'} run the labs."
    return table


def python(version: tuple[int, ...]) -> Finding:
    """Examine Python, which has to be 3.11 or newer for nbgrader."""
    words = f"{'.'.join(map(str, version))}; 3.11 or newer is needed"
    return Finding(
        "Python", version >= (3, 11), True, words, "make start PYTHON=python3.12, or another that you have"
    )


def package(name: str) -> Finding:
    """Examine an installed package, which has to have a version that compresslab allows."""
    wanted = _wanted(name)
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, True, "not installed", _INSTALL)
    good = wanted.specifier.contains(version.split("+")[0], prereleases=True)
    words = version if good else f"{version}; {wanted.specifier} is needed"
    return Finding(name, good, True, words, _INSTALL)


def torchvision(loads: Callable[[], bool] = operators_load) -> Finding:
    """Examine torchvision, which reads the data set; its operators may be of another build than torch."""
    installed = package("torchvision")
    if not installed.good:
        return installed
    try:
        how = (
            ""
            if loads()
            else "; its compiled operators do not load beside this torch, and the labs need none"
        )
    except (ImportError, RuntimeError) as error:
        words = f"{installed.words} can't be imported ({error})"
        return Finding(
            "torchvision", False, True, words, f"{_INSTALL}, with torch and torchvision asked for together"
        )
    return Finding("torchvision", True, True, installed.words + how)


def repository(there: bool) -> Finding:
    """Examine whether the package lies in its repository, which holds labs, data and trained networks."""
    words = "there" if there else "compresslab is installed without it: no labs, no trained networks"
    return Finding("repository", there, True, words, location.CLONE)


def dataset(source: Path, cache: Path) -> Finding:
    """Examine Fashion-MNIST, by the SHA-256 of each file, and unpack it into the cache folder."""
    if not source.exists():
        words = "not in this installation; the first lab downloads it"
        return Finding("Fashion-MNIST", False, False, words, "clone the repository to work without a network")
    try:
        unpack(source, cache / "FashionMNIST" / "raw")
    except CompressionError as error:
        return Finding("Fashion-MNIST", False, True, *_reason_and_remedy(error))
    return Finding("Fashion-MNIST", True, True, f"{len(FILES)} files, each with the expected SHA-256")


def trained(name: str, folder: Path) -> Finding:
    """Examine a trained network: its weights load, and its model card states its accuracy."""
    try:
        load_baseline(name, folder=folder)
        accuracy = float(read_card(name, folder=folder)["test_accuracy"])
    except CompressionError as error:
        return Finding(f"network {name!r}", False, True, *_reason_and_remedy(error))
    except (KeyError, TypeError, ValueError):
        words = "its model card does not state its test accuracy"
        return Finding(f"network {name!r}", False, True, words, f"compresslab train {name}")
    return Finding(f"network {name!r}", True, True, f"loads; test accuracy {accuracy:.1%} by its model card")


def cores(count: int) -> Finding:
    """Examine the number of processor cores; the labs' minutes are meant for two."""
    words = f"{count}; the labs' minutes are meant for 2"
    return Finding(
        "processor cores", count >= 2, False, words, "nothing to do; slow cells take about twice as long"
    )


def memory(size: int | None) -> Finding:
    """Examine the memory in bytes; None if the system does not report it."""
    words = "not reported by the system" if size is None else f"{size / _GIB:.1f} GiB"
    good = size is None or size >= _MEMORY_GIB * _GIB
    remedy = "close other programs, or give the container or virtual machine more"
    return Finding("memory", good, False, f"{words}; {_MEMORY_GIB} GiB are enough", remedy)


def disk(free: int) -> Finding:
    """Examine the free bytes where the data set is unpacked."""
    words = f"{free / _GIB:.1f} GiB free for the cache; {_DISK_GIB} GiB is enough"
    return Finding(
        "disk", free >= _DISK_GIB * _GIB, True, words, "free some, or set COMPRESSLAB_CACHE to another disk"
    )


def bubblewrap(program: str | None) -> Finding:
    """Examine bubblewrap, which isolates the grading of other people's notebooks; students do not need it."""
    purpose = "only for grading notebooks of people you do not trust"
    if program is None:
        remedy = "on Linux: install the package bubblewrap; elsewhere there is none"
        return Finding("bubblewrap", False, False, f"not installed; {purpose}", remedy)
    try:
        command = [program, "--ro-bind", "/", "/", "--unshare-all", "--die-with-parent", "true"]
        status = subprocess.run(command, capture_output=True, timeout=10).returncode
    except (OSError, subprocess.TimeoutExpired):
        status = 1
    remedy = "the administrator must allow unprivileged user namespaces; ordinary containers forbid them"
    return Finding(
        "bubblewrap",
        status == 0,
        False,
        f"{'works' if status == 0 else 'is not allowed to run'}; {purpose}",
        remedy,
    )


def _wanted(name: str) -> Requirement:
    """Return what compresslab's metadata requires of a package; any version, if it does not name it."""
    try:
        asked = [Requirement(text) for text in importlib.metadata.requires("compresslab") or []]
    except importlib.metadata.PackageNotFoundError:  # run from its folder, not installed
        asked = []
    return next((requirement for requirement in asked if requirement.name == name), Requirement(name))


def _reason_and_remedy(error: CompressionError) -> tuple[str, str]:
    """Split an error's text in two: the kit's errors end with the sentence that says what to try."""
    reason, separator, remedy = str(error).rpartition(". ")
    return (reason, remedy) if separator else (remedy, "")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int | None:
    """Return the memory of the machine or of its container; None if the system does not report it."""
    sizes = []
    if hasattr(os, "sysconf") and platform.system() != "Windows":
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        sizes.append(int(text))
    return min(sizes, default=None)


def _free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of a folder that may not exist yet."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free
