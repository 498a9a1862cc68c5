"""``compresslab start``: the student's own copies of the labs, and JupyterLab opened on them.

The labs in ``labs/`` belong to the course; students write in ``my_labs/``, which git ignores. Copying never
overwrites, and a reset keeps a backup, so a second start or a ``git pull`` never loses work.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from compresslab.data.location import LABS, MY_LABS
from compresslab.errors import BadSetting, DamagedFile
from compresslab.jobs.openmp import passive
from compresslab.storage.atomic import write_bytes, write_text

__all__ = [
    "OWN_FOLDER",
    "back_up",
    "copy_labs",
    "jupyter_command",
    "jupyter_environment",
    "lab_names",
    "launch",
    "list_of_labs",
    "notebook_of",
    "reset_lab",
]

OWN_FOLDER = "the labs need a folder of your own. Clone the repository into your home folder and start there"
_NO_BACKUP = "without a backup your notebook stays as it is. Free some space, and try again"
_LIST = "START_HERE.md"  # written anew at every start
_HOW_TO_CHECK = """\
Save a lab and check it as the grader would, here lab 03:

- in a cell of a notebook: `!compresslab check 03`
- in a terminal, in the folder that you cloned: `make check LAB=03`, or `.venv/bin/compresslab check 03`

In an environment of your own, activate it and type `compresslab check 03`."""
_SETTINGS: dict[
    str, Any
] = {  # JupyterLab's defaults here; the user's own JupyterLab settings take precedence
    "labconfig/default_setting_overrides.json": {
        "@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Markdown Preview"}},
        "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    },
    "nbgrader_config.py": {},  # if it were missing, each start would warn
    "labconfig/page_config.json": {  # of nbgrader's panels, students need the Validate button alone
        "disabledExtensions": {
            f"@jupyter/nbgrader:{panel}": True
            for panel in ("assignment-list", "course-list", "create-assignment", "formgrader", "menu")
        }
    },
}


def lab_names(labs: Path = LABS) -> tuple[str, ...]:
    """Return the labs' folder names in order: each ``labs/NAME`` that contains ``NAME.ipynb``.

    Raises:
        DamagedFile: there is none, as when the package was installed without the repository.
    """
    names = tuple(
        sorted(folder.name for folder in labs.glob("*") if notebook_of(labs, folder.name).is_file())
    )
    if not names:
        raise DamagedFile(
            f"{labs} must contain the labs, but has none; they come with the repository, not the package. "
            "Clone the repository and, inside it, run: pip install -e . && compresslab start"
        )
    return names


def copy_labs(labs: Path = LABS, target: Path = MY_LABS) -> tuple[Path, ...]:
    """Copy the files that ``target`` lacks from ``labs``, and return the new ones.

    Also write the kit's own files: the list of the labs, ``START_HERE.md``, and, hidden in ``.jupyter``, the
    settings with which JupyterLab shows it.

    Raises:
        CompressionError: there are no labs, or ``target`` can't be written.
    """
    wanted = [file for name in lab_names(labs) for file in sorted((labs / name).rglob("*")) if _belongs(file)]
    copied = tuple(place for file in wanted if _copied(file, place := target / file.relative_to(labs)))
    write_text(target / _LIST, list_of_labs(labs), advice=OWN_FOLDER)
    for name, settings in _SETTINGS.items():
        write_text(target / ".jupyter" / name, json.dumps(settings, indent=1), advice=OWN_FOLDER)
    return copied


def reset_lab(name: str, *, now: datetime.datetime, labs: Path = LABS, target: Path = MY_LABS) -> Path | None:
    """Restore a lab's original notebook and return the backup of the student's; None if there was none.

    Args:
        name: the lab's folder, such as ``00_measuring``.
        now: names the backup, ``00_measuring.20260901-141500.ipynb``, beside the notebook.
        labs: where the course's notebooks are.
        target: where the student's notebooks are.

    Raises:
        BadSetting: there is no such lab.
        NotAvailable: the disk is full or read-only. The student's notebook is as it was.
    """
    names = lab_names(labs)
    if name not in names:
        raise BadSetting(f"name must be a lab, got {name!r}; there are {', '.join(names)}")
    notebook = notebook_of(target, name)
    backup = back_up(notebook, now) if notebook.exists() else None
    write_bytes(notebook, notebook_of(labs, name).read_bytes(), advice=OWN_FOLDER, durable=True)
    return backup


def list_of_labs(labs: Path = LABS) -> str:
    """Return a page in Markdown: each lab's title as a link, followed by its own opening."""
    lines = ["# The labs", ""]
    lines += [
        "Open one by its title. Your work stays in this folder; `compresslab start` never overwrites it.",
        "",
        *_HOW_TO_CHECK.splitlines(),
        "",
    ]
    for name in lab_names(labs):
        title, rest = _opening(notebook_of(labs, name))
        lines += [f"## [{title or name}]({name}/{name}.ipynb)", "", *rest, ""]
    return "\n".join(lines)


def launch(
    target: Path = MY_LABS,
    *,
    say: Callable[[str], None] = print,
    options: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> int:
    """Run JupyterLab on ``target`` until it is stopped, and return its exit status; Ctrl-C gives 0.

    A server that is running on ``target`` already is opened, and left running.

    Args:
        target: the folder to open.
        say: called with the address, and with what was decided for the user.
        options: further options of JupyterLab, such as ``--ip=0.0.0.0``.
        environment: tells whether there is a display.
    """
    as_root, display = hasattr(os, "geteuid") and os.geteuid() == 0, _has_display(environment)
    running = next((server for server in _servers() if _is_on(server, target) and _answers(server)), None)
    if running is not None:
        how = "it opens in your browser" if display else "open it in a browser"
        say(f"JupyterLab is running already; {how}:\n\n    {_page(running)}\n\nStop it where it was started.")
        return 0 if not display or webbrowser.open(_page(running)) else 1
    if as_root:
        say("You are root: JupyterLab is told to allow that (--allow-root).")
    before = {server["pid"] for server in _servers()}
    command = jupyter_command(target, as_root=as_root, display=display, options=options)
    # in a session of its own, Ctrl-C reaches only this process, which ends JupyterLab without a question
    process = subprocess.Popen(command, env=jupyter_environment(environment, target), start_new_session=True)
    for name in {"SIGTERM", "SIGHUP"} & set(dir(signal)):
        signal.signal(getattr(signal, name), lambda *_: process.terminate())
    try:
        address = _address(process, target, before)
        if address:
            how = "opens in your browser" if display else "no display here: open it in a browser"
            say(f"JupyterLab is running ({how}):\n\n    {address}\n\nStop it with Ctrl-C.")
        return process.wait()
    except KeyboardInterrupt:
        say("\nJupyterLab is stopped; the notebooks are in my_labs.")
        return 0
    finally:
        process.terminate()
        process.wait()


def jupyter_command(target: Path, *, as_root: bool, display: bool, options: Sequence[str] = ()) -> list[str]:
    """Return the command that opens JupyterLab on ``target``; it finds a free port from 8888 on."""
    return [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={target.resolve()}",
        f"--LabApp.default_url=/lab/tree/{_LIST}",
        f"--LabApp.workspaces_dir={target.resolve() / '.jupyter' / 'workspaces'}",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--Application.log_level=ERROR",
        *(["--allow-root"] if as_root else []),
        *([] if display else ["--no-browser"]),
        *options,
    ]


def jupyter_environment(environment: Mapping[str, str], target: Path) -> dict[str, str]:
    """Return the environment with this Python's programs and kernels first, and ``target``'s settings.

    The kernels inherit it, so OpenMP's passive waiting is set here, before a notebook imports torch.
    """
    programs = str(Path(sys.executable).parent)
    return {
        "JUPYTER_TOKEN": secrets.token_hex(24),  # if it is given, JupyterLab does not print the address
        **passive(environment),
        "PATH": os.pathsep.join([programs, *filter(None, [environment.get("PATH")])]),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_CONFIG_PATH": os.pathsep.join(
            [str(target.resolve() / ".jupyter"), *filter(None, [environment.get("JUPYTER_CONFIG_PATH")])]
        ),
    }


def _has_display(environment: Mapping[str, str]) -> bool:
    if environment.get("CI"):
        return False
    return not sys.platform.startswith("linux") or any(map(environment.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def _address(process: subprocess.Popen, target: Path, before: set[int]) -> str:
    """Return the address of the new server on ``target``; empty if it ended before it answered."""
    while process.poll() is None:
        for server in _servers():
            if server["pid"] not in before and _is_on(server, target) and _answers(server):
                return _page(server)
        time.sleep(0.2)
    return ""


def _servers() -> list[dict]:
    """Return what Jupyter knows of the servers that run for this user."""
    from jupyter_server.serverapp import list_running_servers

    return list(list_running_servers())


def _is_on(server: Mapping[str, Any], target: Path) -> bool:
    return Path(server["root_dir"]).resolve() == target.resolve()


def _page(server: Mapping[str, Any]) -> str:
    return f"{server['url']}?token={server['token']}" if server["token"] else server["url"]


def _answers(server: Mapping[str, Any]) -> bool:
    """Whether the server is there: the note of one that was killed may name another program's process."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{server['url']}api", timeout=3) as answer:
            return answer.status == 200
    except (OSError, ValueError):
        return False


def notebook_of(labs: Path, name: str) -> Path:
    """Return where a lab's notebook is, below ``labs/`` or ``my_labs/``."""
    return labs / name / f"{name}.ipynb"


def _belongs(file: Path) -> bool:
    return file.is_file() and not any(part.startswith((".", "__pycache__")) for part in file.parts[-2:])


def _copied(file: Path, place: Path) -> bool:
    """Copy a file unless there is one; return whether it was copied. A copy is complete or absent."""
    if place.exists():
        return False
    write_bytes(place, file.read_bytes(), advice=OWN_FOLDER)
    return True


def back_up(notebook: Path, now: datetime.datetime) -> Path:
    """Copy a notebook beside itself, and return the copy: two backups in one second keep both.

    Raises:
        NotAvailable: the disk is full or read-only. There is no half of a copy.
    """
    place = next(place for place in _backups(notebook, now) if not place.exists())
    write_bytes(place, notebook.read_bytes(), advice=_NO_BACKUP, durable=True)
    with contextlib.suppress(OSError):
        shutil.copystat(notebook, place)
    return place


def _backups(notebook: Path, now: datetime.datetime) -> Iterator[Path]:
    stem = f"{notebook.stem}.{now:%Y%m%d-%H%M%S}"
    yield notebook.with_name(f"{stem}.ipynb")
    yield from (notebook.with_name(f"{stem}-{number}.ipynb") for number in range(2, 1_000_000))


def _opening(notebook: Path) -> tuple[str, list[str]]:
    """Return the title and the other lines of a notebook's first Markdown cell; empty if it has none."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        text = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    except (ValueError, KeyError, TypeError, StopIteration):
        return "", []
    title, _, rest = text.strip().partition("\n")
    return title.lstrip("# ").strip(), [
        line for line in rest.strip().splitlines() if not line.startswith("#")
    ]
