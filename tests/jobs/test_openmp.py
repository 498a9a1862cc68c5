"""Every process that the kit starts waits passively, unless the user has chosen otherwise."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_lab import LAB
from submissions import tiny

from compresslab.authoring.build import execute
from compresslab.authoring.instructor_notebook import instructor_notebook
from compresslab.cli.jupyter import jupyter_environment
from compresslab.experiments.runner import training_pool
from compresslab.grading.bundle import make_bundle
from compresslab.grading.sandbox.bubblewrap import sandbox_command
from compresslab.grading.sandbox.worker_client import WorkerClient
from compresslab.jobs.executor import local_processes
from compresslab.jobs.openmp import POLICY, environment_for_children

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=[None, "ACTIVE"], ids=["nothing chosen", "the user's own choice"])
def wanted(request, monkeypatch):
    """What a process started now must find: PASSIVE, or what the user has set."""
    monkeypatch.delenv(POLICY, raising=False)
    if request.param:
        monkeypatch.setenv(POLICY, request.param)
    yield request.param or "PASSIVE"
    assert os.environ.get(POLICY) == request.param  # our own environment is as it was


def test_jupyterlab_and_with_it_every_kernel(wanted, tmp_path):
    assert jupyter_environment(os.environ, tmp_path)[POLICY] == wanted


def test_the_kernel_of_a_build(wanted, tmp_path):
    notebook = instructor_notebook(LAB, f"# %%\nimport os\nprint(os.environ['{POLICY}'])\n")
    execute(notebook, tmp_path)
    assert [output.text for output in notebook.cells[0].outputs] == [f"{wanted}\n"]


def test_processes_that_train(wanted):
    with training_pool(1) as pool, pool.open() as executor:
        assert executor.submit(os.getenv, POLICY).result() == wanted


def test_processes_that_grade_a_class(wanted):
    with local_processes(1) as pool, pool.open() as executor:
        assert executor.submit(os.getenv, POLICY).result() == wanted


def test_workers_in_a_sandbox_and_without_one(wanted, tmp_path):
    command = sandbox_command(tmp_path, [])
    assert command[command.index(POLICY) - 1 : command.index(POLICY) + 2] == ["--setenv", POLICY, wanted]
    bundle = make_bundle(tiny("first"), tmp_path)
    assert WorkerClient(bundle, isolated=False)._environment()[POLICY] == wanted


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_whatever_the_makefile_runs(wanted, tmp_path):
    extra = tmp_path / "show.mk"
    extra.write_text(f"show:\n\t@printenv {POLICY}\n")
    command = ["make", "--no-print-directory", "-C", str(ROOT), "-f", "Makefile", "-f", str(extra), "show"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{wanted}\n"


def test_the_tests_themselves():
    shown = [sys.executable, "-c", "import os, conftest; print(os.environ['OMP_WAIT_POLICY'])"]
    bare = {name: value for name, value in os.environ.items() if name != POLICY}
    done = subprocess.run(shown, cwd=ROOT / "tests", env=bare, capture_output=True, text=True, check=True)
    assert done.stdout == "PASSIVE\n"


def test_variables_for_children_are_gone_after_an_error_too(monkeypatch):
    names, meanwhile = ("SET_BEFORE", "NEW", POLICY), []
    monkeypatch.delenv(POLICY, raising=False)
    monkeypatch.setenv("SET_BEFORE", "mine")

    def fail():
        with environment_for_children(SET_BEFORE="theirs", NEW="theirs"):
            meanwhile.extend(map(os.environ.get, names))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert meanwhile == ["theirs", "theirs", "PASSIVE"]
    assert list(map(os.environ.get, names)) == ["mine", None, None]
