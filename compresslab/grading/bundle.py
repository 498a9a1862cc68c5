"""A bundle: all that grading a lab needs, in one folder made once by ``compresslab bundle LAB --out DIR``.

    bundle.json         the kit's version, the lab's name, the names of every lab's exercises, the secret key
    exercises/FAMILY/   the lab's exercises: inputs, probes, judges, named mistakes
    skeleton.json       the code that the lab ships in its cells, without holes and checks
    worker/compresslab/ the package as a student's code may see it: ``sandbox/package_copy.py``

The key is drawn when the bundle is made. The seed of a submission's inputs is derived from the key and the
submission's bytes: the same file gets the same inputs and so the same score, a changed file gets others. With
the bundle one can predict the inputs, so it is for the teacher alone.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import json
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
from compresslab.errors import BadSetting, CompressionError, DamagedFile
from compresslab.grading.sandbox.package_copy import WORKER, copy_package
from compresslab.storage.atomic import new_folder

__all__ = ["Bundle", "grading_digest", "make_bundle", "open_bundle"]

FORMAT = 1
EXERCISES = "compresslab.course"


@dataclass(frozen=True)
class Bundle:
    """A lab that can be graded on any machine.

    ``names`` are those of every lab's exercises; ``digest`` is of all the bundle's files.
    """

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
        """Return the seed of the inputs for a submission of this content."""
        return int.from_bytes(hmac.digest(self.key, content, "sha256")[:7], "big")


def make_bundle(lab: Lab, out: Path) -> Bundle:
    """Make the bundle of a lab in a folder that is new or empty.

    Raises:
        CompressionError: the folder is not empty, or can't be written.
    """
    advice = "expected a path where a folder can be written; give another --out"
    with new_folder(out, mode=0o700, advice=advice) as unfinished:
        if out.is_dir() and any(out.iterdir()):
            raise BadSetting(f"--out {out} is not empty; expected a new folder; give another one")
        _fill(unfinished, lab)
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
    """Open the bundle in a folder; its exercises are those in the folder, not the installed ones.

    Raises:
        CompressionError: the folder holds no bundle, or one that another version of the kit made.
    """
    path = Path(folder)
    try:
        head = json.loads((path / "bundle.json").read_text())
        if head["format"] != FORMAT:
            raise ValueError(f"format {head['format']}, this kit reads {FORMAT}")
        _refuse_another_kit(path, head.get("version", "0.1.0"))
        family = head["lab"].partition("_")[2]
        return _read(path, _load(path / "exercises" / family, f"{EXERCISES}.{family}"))
    except CompressionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError, SyntaxError) as error:
        raise DamagedFile(
            f"{path} is not a bundle ({type(error).__name__}: {error}); expected a folder that compresslab "
            "bundle made; make one with: compresslab bundle LAB --out DIR"
        ) from error


def _refuse_another_kit(path: Path, made_by: str) -> None:
    """Raise unless this kit made the bundle: its worker and this grader must speak one protocol."""
    advice = (
        f"expected one made by this kit, {__version__}; make a new bundle, or install the kit that made it"
    )
    if made_by != __version__:
        raise DamagedFile(f"the bundle in {path} was made by compresslab {made_by}; {advice}")
    for name in WORKER:
        file = Path(*name.split(".")[1:]).with_suffix(".py")
        ours = PACKAGE / file
        if ours.is_file() and (path / "worker" / "compresslab" / file).read_bytes() != ours.read_bytes():
            raise DamagedFile(
                f"the bundle in {path} was made by compresslab {made_by} with another {file}; {advice}"
            )


def grading_digest(bundle: Bundle, content: bytes, *, isolated: bool) -> str:
    """Return a digest of everything that a score depends on."""
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
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if "__pycache__" not in path.parts:
            whole.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size} ".encode())
            whole.update(path.read_bytes())
    return whole.hexdigest()


def _load(folder: Path, name: str) -> Lab:
    """Return the ``LAB`` of the package in this folder; modules imported under its name stay as they are."""
    installed = {key: sys.modules.pop(key) for key in list(sys.modules) if _within(key, name)}
    try:
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None:
            raise ImportError(f"{folder} is not a package")
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
    """Return the code of the students' edition without holes and checks; nothing if it is not installed."""
    if not notebook.is_file():
        return []
    taken = {name for e in lab.exercises for name in (e.name, f"check-{e.name}")}
    cells = nbformat.read(notebook, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code" and cell.get("id") not in taken]
