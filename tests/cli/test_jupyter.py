"""Starting never overwrites, resetting keeps a backup, and JupyterLab answers on the printed address."""

import datetime
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from compresslab.cli import jupyter
from compresslab.cli.jupyter import (
    LABS,
    copy_labs,
    jupyter_command,
    jupyter_environment,
    lab_names,
    launch,
    list_of_labs,
    reset_lab,
)
from compresslab.errors import CompressionError

NOON = datetime.datetime(2026, 9, 1, 12, 0, 0)


def notebook(title: str, *, more: str = "") -> str:
    cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": [f"# {title}\n", more]}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


@pytest.fixture
def labs(tmp_path):
    for name, title in (("01_fewer", "Fewer bits"), ("00_cost", "What does it cost?")):
        (tmp_path / "labs" / name / ".ipynb_checkpoints").mkdir(parents=True)
        (tmp_path / "labs" / name / f"{name}.ipynb").write_text(notebook(title, more="\n- 30 minutes"))
        (tmp_path / "labs" / name / ".ipynb_checkpoints" / f"{name}-checkpoint.ipynb").write_text("{}")
    (tmp_path / "labs" / "00_cost" / "picture.svg").write_text("<svg/>")
    (tmp_path / "labs" / "notes").mkdir()
    return tmp_path / "labs"


@pytest.fixture
def mine(tmp_path):
    return tmp_path / "my_labs"


def shown(folder: Path) -> list[str]:
    """What a student sees in a folder: its files, without the hidden ones."""
    files = (place.relative_to(folder) for place in folder.rglob("*") if place.is_file())
    return sorted(str(place) for place in files if not place.parts[0].startswith("."))


def test_the_labs_are_the_folders_with_a_notebook_of_their_name(labs):
    assert lab_names(labs) == ("00_cost", "01_fewer")


def test_the_course_has_labs():
    assert "00_measuring" in lab_names()


def test_all_files_of_the_labs_are_copied(labs, mine):
    copied = copy_labs(labs, mine)
    wanted = ["00_cost/00_cost.ipynb", "00_cost/picture.svg", "01_fewer/01_fewer.ipynb"]
    assert [str(place.relative_to(mine)) for place in copied] == wanted
    assert shown(mine) == [*wanted, "START_HERE.md"]
    assert (mine / "00_cost/00_cost.ipynb").read_text() == (labs / "00_cost/00_cost.ipynb").read_text()


def test_what_the_student_wrote_is_never_overwritten(labs, mine):
    copy_labs(labs, mine)
    (mine / "00_cost/00_cost.ipynb").write_text("my work")
    (mine / "01_fewer/01_fewer.ipynb").unlink()
    (labs / "00_cost/00_cost.ipynb").write_text(notebook("A newer edition"))
    assert [place.name for place in copy_labs(labs, mine)] == ["01_fewer.ipynb"]
    assert (mine / "00_cost/00_cost.ipynb").read_text() == "my work"


def test_an_empty_file_of_the_student_is_a_file_too(labs, mine):
    (mine / "00_cost").mkdir(parents=True)
    (mine / "00_cost/00_cost.ipynb").touch()
    copy_labs(labs, mine)
    assert (mine / "00_cost/00_cost.ipynb").read_text() == ""


def test_without_the_repository_it_says_where_the_labs_are(tmp_path, mine):
    with pytest.raises(
        CompressionError,
        match=r"must contain the labs, .* come with the repository.* Clone .* compresslab start",
    ):
        copy_labs(tmp_path / "nowhere", mine)
    assert not mine.exists()


def test_a_folder_that_cannot_be_written_is_named(labs, tmp_path):
    (tmp_path / "taken").write_text("a file where the folder should be")
    with pytest.raises(
        CompressionError, match=r"taken/.*can't be written \(Not a directory\); .* home folder"
    ):
        copy_labs(labs, tmp_path / "taken")


# the list of the labs


def test_the_list_links_each_title_to_its_notebook_and_quotes_its_opening(labs):
    text = list_of_labs(labs)
    assert "## [What does it cost?](00_cost/00_cost.ipynb)\n\n- 30 minutes" in text
    assert text.index("00_cost") < text.index("01_fewer")


@pytest.mark.parametrize("text", ["", "{}", '{"cells": []}', "[1]", notebook("")])
def test_a_lab_whose_opening_cannot_be_read_is_listed_by_its_name(labs, text):
    (labs / "00_cost/00_cost.ipynb").write_text(text)
    assert "[00_cost](00_cost/00_cost.ipynb)" in list_of_labs(labs)


def test_the_list_says_how_a_lab_is_checked_without_an_activated_environment(labs):
    text = list_of_labs(labs)
    for command in ("!compresslab check 03", "make check LAB=03", ".venv/bin/compresslab check 03"):
        assert f"`{command}`" in text


def test_a_notebooks_cell_finds_the_command_in_what_start_hands_to_jupyterlab(labs, mine):
    copy_labs(labs, mine)
    environment = jupyter_environment({**os.environ, "PATH": os.defpath}, mine)
    command = "from IPython import get_ipython; get_ipython().system('compresslab check --help')"
    kernel = [sys.executable, "-m", "IPython", "--quick", "-c", command]
    done = subprocess.run(kernel, cwd=mine / "00_cost", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Check your notebook as the grader would" in done.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="this machine has no make")
def test_make_check_marks_the_lab_that_is_named_and_asks_for_a_name():
    root = LABS.parent
    told = subprocess.run(["make", "-n", "check", "LAB=03"], cwd=root, capture_output=True, text=True).stdout
    assert "compresslab check 03" in told
    rules = re.search(r"^check:.*\n((?:\t.*\n)+)", (root / "Makefile").read_text(), re.MULTILINE)[1]
    alone = subprocess.run(
        ["sh", "-c", rules.splitlines()[0].strip("\t@").replace("$(LAB)", "")], capture_output=True, text=True
    )
    assert "such as: make check LAB=03" in alone.stdout
    assert alone.returncode == 2


def test_the_courses_own_list_states_objectives_and_minutes():
    text = list_of_labs(LABS)
    for name in lab_names():
        section = re.split(r"^## ", text[text.index(f"({name}/") :], flags=re.M)[0]
        assert "**You will**" in section
        assert re.search(r"\d+ minutes", section)


# reset


def test_a_reset_lab_is_as_new_and_the_students_notebook_lies_beside_it(labs, mine):
    copy_labs(labs, mine)
    (mine / "00_cost/00_cost.ipynb").write_text("my work")
    backup = reset_lab("00_cost", now=NOON, labs=labs, target=mine)
    assert backup == mine / "00_cost" / "00_cost.20260901-120000.ipynb"
    assert backup.read_text() == "my work"
    assert (mine / "00_cost/00_cost.ipynb").read_text() == (labs / "00_cost/00_cost.ipynb").read_text()


def test_two_resets_in_one_second_keep_both_notebooks(labs, mine):
    copy_labs(labs, mine)
    backups = []
    for work in ("first", "second", "third"):
        (mine / "00_cost/00_cost.ipynb").write_text(work)
        backups.append(reset_lab("00_cost", now=NOON, labs=labs, target=mine))
    assert [backup.read_text() for backup in backups] == ["first", "second", "third"]


def test_a_lab_that_was_never_copied_is_reset_to_new_without_a_backup(labs, mine):
    assert reset_lab("00_cost", now=NOON, labs=labs, target=mine) is None
    assert (mine / "00_cost/00_cost.ipynb").exists()


def test_an_unknown_lab_is_refused_with_the_known_ones(labs, mine):
    with pytest.raises(CompressionError, match="must be a lab, got '07_magic'; there are 00_cost, 01_fewer"):
        reset_lab("07_magic", now=NOON, labs=labs, target=mine)


# JupyterLab


def test_only_root_is_allowed_root_and_only_a_display_gets_a_browser(mine):
    bare = jupyter_command(mine, as_root=False, display=True)
    assert "--allow-root" not in bare
    assert "--no-browser" not in bare
    assert "--allow-root" in jupyter_command(mine, as_root=True, display=True)
    assert "--no-browser" in jupyter_command(mine, as_root=False, display=False)
    assert jupyter_command(mine, as_root=False, display=True, options=["--port=9"])[-1] == "--port=9"


def test_the_environments_programs_come_first_activated_or_not(mine):
    given = {"PATH": "/usr/bin", "HOME": "/home/me", "JUPYTER_TOKEN": "mine"}
    made = jupyter_environment(given, mine)
    assert made["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/usr/bin"]
    assert (made["HOME"], made["JUPYTER_TOKEN"]) == ("/home/me", "mine")
    assert jupyter_environment({}, mine)["PATH"] == str(Path(sys.executable).parent)
    assert jupyter_environment({}, mine)["JUPYTER_TOKEN"] != jupyter_environment({}, mine)["JUPYTER_TOKEN"]


def start_jupyterlab(mine: Path, folder: Path) -> subprocess.Popen:
    """``launch`` in a process of its own, with empty folders for settings: this machine's do not matter."""
    code = (
        "import signal, sys, pathlib; from compresslab.cli.jupyter import launch; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a background job of a shell ignores it
        f"sys.exit(launch(pathlib.Path({str(mine)!r}), say=lambda words: print(words, flush=True)))"
    )
    folders = {name: str(folder / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "HOME")}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | folders | {"CI": "true"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def said_at_start(process: subprocess.Popen) -> str:
    words = ""
    while not words.endswith("Stop it with Ctrl-C.\n"):
        line = process.stdout.readline()
        assert line, f"JupyterLab ended: {words}"
        words += line
    return words


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent in another way on Windows")
def test_jupyterlab_answers_on_the_printed_address_and_ctrl_c_ends_it(labs, mine, tmp_path):
    copy_labs(labs, mine)
    process = start_jupyterlab(mine, tmp_path)
    try:
        words = said_at_start(process)
        address = re.search(r"http://\S+", words)[0]
        assert "no display here" in words
        direct, cookies = urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor()
        browser = urllib.request.build_opener(direct, cookies)
        with browser.open(address, timeout=30) as answer:
            assert answer.status == 200
            assert "/lab/tree/START_HERE.md" in answer.url
        second = start_jupyterlab(mine, tmp_path)
        told, _ = second.communicate(timeout=120)
        assert "JupyterLab is running already; open it in a browser" in told
        assert (address in told, second.returncode, process.poll()) == (True, 0, None)
        kernels = address.replace("/?", "/api/kernelspecs?")
        with browser.open(kernels, timeout=30) as answer:
            assert "python3" in json.load(answer)["kernelspecs"]
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
        assert "JupyterLab is stopped" in rest
        assert process.returncode == 0
        time.sleep(0.5)
        with pytest.raises(OSError, match="refused"):
            browser.open(address, timeout=5)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def server_of(folder: Path, url: str) -> dict:
    return {"pid": os.getpid(), "root_dir": str(folder), "url": url, "token": "secret"}


class Answer(http.server.BaseHTTPRequestHandler):
    """A server that is there."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def running():
    """The address of a server that answers."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_a_second_start_opens_the_server_that_runs_on_this_folder(monkeypatch, mine, running, tmp_path):
    servers = [
        server_of(tmp_path / "other", running),
        server_of(mine, "http://127.0.0.1:1/"),
        server_of(mine, running),
    ]
    opened, said = [], []
    monkeypatch.setattr(jupyter, "_servers", lambda: servers)
    monkeypatch.setattr(jupyter.webbrowser, "open", lambda page: opened.append(page) or True)
    monkeypatch.setattr(jupyter.subprocess, "Popen", None)  # none is started
    assert launch(mine, say=said.append, environment={"DISPLAY": ":0"}) == 0
    assert opened == [f"{running}?token=secret"]
    assert opened[0] in said[-1]
    assert launch(mine, say=said.append, environment={"CI": "true"}) == 0
    assert len(opened) == 1, "without a display nothing is opened"
    assert "open it in a browser" in said[-1]


def test_the_note_of_a_server_that_was_killed_starts_another(monkeypatch, mine):
    monkeypatch.setattr(jupyter, "_servers", lambda: [server_of(mine, "http://127.0.0.1:1/")])
    monkeypatch.setattr(jupyter, "jupyter_command", lambda *_, **__: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        launch(mine, say=lambda _: None, environment={"CI": "true"})
