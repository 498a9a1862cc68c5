"""What grading one lab needs, as one folder made once: ``compresslab bundle LAB --out DIR``.

    bundle.json         the kit's version, the lab, the names (no more) of all labs' exercises, the secret key
    exercises/FAMILY/   the lab's exercises: inputs, probes, judges, named mistakes
    skeleton.json       the code that the lab ships in its cells, less holes and checks
    worker/compresslab/ the package as a student's code may see it: ``stripping.py``

The key is drawn when the bundle is made. From it and a submission's bytes follows the seed of that
submission's inputs: the same file gets the same inputs and so the same score, a changed one gets others.
Whoever has the bundle can foresee the inputs: it belongs to the teacher alone.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import json
import os
import secrets
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nbformat

from compresslab import __version__
from compresslab.checks.exercise import Lab
from compresslab.course import all_labs
from compresslab.data.location import LABS, PACKAGE
from compresslab.errors import BadSetting, CompressionError, DamagedFile, NotAvailable
from compresslab.grading.sandbox.package_copy import WORKER, copy_package

__all__ = ["Bundle", "grading_digest", "make_bundle", "open_bundle"]

FORMAT = 1
EXERCISES = "compresslab.course"


@dataclass(frozen=True)
class Bundle:
    """A lab, ready to be graded anywhere. ``names``: of every lab's exercises; ``digest``: of all of it."""

    folder: Path
    lab: Lab
    names: Mapping[str, tuple[str, ...]]
    skeleton: tuple[str, ...]
    key: bytes
    digest: str

    @property
    def worker(self) -> Path:
        """The folder that a worker imports ``compresslab`` from."""
        return self.folder / "worker"

    def seed(self, content: bytes) -> int:
        """Of the inputs for a submission of this content."""
        return int.from_bytes(hmac.digest(self.key, content, "sha256")[:7], "big")


def make_bundle(lab: Lab, out: Path) -> Bundle:
    """Makes the bundle of a lab in a folder that is new or empty.

    Raises:
        CompressionError: the folder holds something, or can't be written.
    """
    unfinished = out.with_name(f".{out.name}.unfinished")
    try:
        if out.exists() and any(out.iterdir()):
            raise BadSetting(f"{out} is not empty; a bundle wants a new folder; give another --out")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        unfinished.chmod(0o700)
        _fill(unfinished, lab)
        os.replace(unfinished, out)
    except OSError as error:
        raise NotAvailable(
            f"no bundle can be made in {out} ({error.strerror}); expected a folder that can be written; give "
            "another --out"
        ) from error
    return _read(out, lab)


def _fill(folder: Path, lab: Lab) -> None:
    copy_package(PACKAGE, folder / "worker" / "compresslab", hidden=lab.answers)
    own = sys.modules.get(_exercises_of(lab))
    if own is not None and own.__file__ is not None:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(own.__file__).parent, folder / "exercises" / _family(lab), ignore=ignored)
    skeleton = LABS / lab.name / f"{lab.name}.ipynb"
    (folder / "skeleton.json").write_text(json.dumps(_given_code(skeleton, lab), indent=1))
    names = {each.name: [exercise.name for exercise in each.exercises] for each in all_labs()}
    names[lab.name] = [exercise.name for exercise in lab.exercises]
    head = {
        "format": FORMAT,
        "version": __version__,
        "lab": lab.name,
        "key": secrets.token_hex(16),
        "labs": names,
    }
    (folder / "bundle.json").write_text(json.dumps(head, indent=1))


def open_bundle(folder: str | Path) -> Bundle:
    """The bundle that lies in a folder; its exercises are those in it, not the installed ones.

    Raises:
        CompressionError: the folder holds no bundle, or one of another version.
    """
    place = Path(folder)
    try:
        head = json.loads((place / "bundle.json").read_text())
        if head["format"] != FORMAT:
            raise ValueError(f"format {head['format']}, this kit reads {FORMAT}")
        _refuse_another_kit(place, head.get("version", "0.1.0"))
        family = head["lab"].partition("_")[2]
        return _read(place, _load(place / "exercises" / family, f"{EXERCISES}.{family}"))
    except CompressionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError, SyntaxError) as error:
        raise DamagedFile(
            f"{place} is no bundle ({type(error).__name__}: {error}); expected a folder that compresslab "
            "bundle made; make one with: compresslab bundle LAB --out DIR"
        ) from error


def _refuse_another_kit(place: Path, version: str) -> None:
    """A bundle's worker and the grader that talks to it are of one version, or nobody understands anybody."""
    for name in WORKER:
        page = Path(*name.split(".")[1:]).with_suffix(".py")
        ours = PACKAGE / page
        if ours.is_file() and (place / "worker" / "compresslab" / page).read_bytes() != ours.read_bytes():
            raise DamagedFile(
                f"the bundle in {place} was made by another version of the kit ({version}, this is "
                f"{__version__}; {page} differs); make a new bundle, or install the version that made it"
            )


def grading_digest(bundle: Bundle, content: bytes, *, isolated: bool) -> str:
    """A digest of what a score depends on, for one version of the kit."""
    whole = hashlib.sha256(f"{bundle.digest} {isolated} ".encode())
    whole.update(content)
    return whole.hexdigest()


def _read(folder: Path, lab: Lab) -> Bundle:
    head = json.loads((folder / "bundle.json").read_text())
    names = {name: tuple(exercises) for name, exercises in head["labs"].items()}
    skeleton = tuple(json.loads((folder / "skeleton.json").read_text()))
    return Bundle(folder, lab, names, skeleton, bytes.fromhex(head["key"]), _digest(folder))


def _digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for place in sorted(path for path in folder.rglob("*") if path.is_file()):
        if "__pycache__" not in place.parts:
            whole.update(f"{place.relative_to(folder).as_posix()} {place.stat().st_size} ".encode())
            whole.update(place.read_bytes())
    return whole.hexdigest()


def _load(folder: Path, name: str) -> Lab:
    """The ``LAB`` of a package that lies in this folder; what is imported under its name stays untouched."""
    installed = {key: sys.modules.pop(key) for key in list(sys.modules) if _within(key, name)}
    try:
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None:
            raise ImportError(f"{folder} is no package")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.LAB
    finally:
        for key in [key for key in sys.modules if _within(key, name)]:
            del sys.modules[key]
        sys.modules.update(installed)


def _within(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}.")


def _family(lab: Lab) -> str:
    return lab.name.partition("_")[2]


def _exercises_of(lab: Lab) -> str:
    return f"{EXERCISES}.{_family(lab)}"


def _given_code(notebook: Path, lab: Lab) -> list[str]:
    """The code cells of the student's edition that are neither hole nor check; none where it is not here."""
    if not notebook.is_file():
        return []
    taken = {name for e in lab.exercises for name in (e.name, f"check-{e.name}")}
    cells = nbformat.read(notebook, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code" and cell.get("id") not in taken]
