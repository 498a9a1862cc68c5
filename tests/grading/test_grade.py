"""Grading: right earns everything, untouched earns nothing, whatever else comes ends in a sentence."""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest
from submissions import adds, code, notebook, right_answers, saved, tiny, unwritten, whole

from compresslab.course import find_lab
from compresslab.grading.grade import grade_alone
from compresslab.grading.sandbox.worker_client import WorkerClient
from compresslab.grading.scores import EXIT_CODES, ExerciseScore, Score, read_results, write_results

LAB = find_lab("00_measuring")


def by_name(score: Score) -> dict[str, ExerciseScore]:
    return {test.name: test for test in score.tests}


# The lab itself.


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    return grade_alone(LAB, saved(notebook(right_answers(LAB)), tmp_path_factory.mktemp("solved")))


def test_right_answers_earn_every_point(solved):
    assert {test.name: test.output for test in solved.tests} == {e.name: e.statement for e in LAB.exercises}
    assert (solved.status, solved.score) == ("graded", LAB.points)


def test_the_untouched_lab_earns_nothing_and_says_why(tmp_path):
    score = grade_alone(LAB, saved(notebook({e.name: unwritten(e) for e in LAB.exercises}), tmp_path))
    assert (score.status, score.score) == ("graded", 0)
    assert all(test.output.startswith("not written yet") for test in score.tests)


def test_mistakes_earn_nothing_and_are_named_and_other_exercises_are_untouched(tmp_path):
    wrong = {e.name: whole(e, e.mistakes[0].answer) for e in LAB.exercises}
    last = LAB.exercises[-1]
    score = grade_alone(
        LAB, saved(notebook({**wrong, last.name: whole(last, last.right[1])}, ids=False), tmp_path)
    )
    tests = by_name(score)
    assert tests.pop(last.name).status == "passed"
    assert {name: test.mistake for name, test in tests.items()} == {
        e.name: e.mistakes[0].title for e in LAB.exercises if e is not last
    }
    assert all("Hint on offer: " in test.output for test in tests.values())
    assert score.score == last.points


@pytest.mark.parametrize(
    "cheat",
    [
        "import compresslab as cl\n\ndef count_parameters(model):\n    return cl.count_parameters(model)",
        "from compresslab import count_parameters",
        "from compresslab.measurement.costs import count_parameters",
        "def count_parameters(model):\n    from compresslab import costs\n"
        "    return costs.count_parameters(model)",
        "import sys\n\ndef count_parameters(model):\n"
        "    return sys.modules['compresslab.measurement.report'].costs.count_parameters(model)",
        "def count_parameters(model):\n    import importlib\n"
        "    return importlib.import_module('compresslab.measurement.costs').count_parameters(model)",
    ],
)
def test_importing_the_answer_earns_nothing(cheat, tmp_path):
    holes = {exercise.name: unwritten(exercise) for exercise in LAB.exercises} | {"count_parameters": cheat}
    score = grade_alone(LAB, saved(notebook(holes), tmp_path), seed=1)
    assert (score.status, score.score) == ("graded", 0)
    assert score.tests[0].output


def test_the_same_seed_gives_the_same_score(tmp_path):
    place = saved(code("def first(x): return float(x.mean())", "def second(x): return 1"), tmp_path)
    lab = tiny("first", "second", seconds=5)
    one, other, another = (grade_alone(lab, place, seed=seed) for seed in (7, 7, 8))
    assert one.tests == other.tests
    assert one.tests != another.tests  # it shows the numbers that were drawn


def test_a_worker_for_each_exercise_comes_to_the_same(tmp_path):
    place = saved(
        code(adds("first"), "def second(x): os._exit(0)\nimport os", "def third(x): return 1"), tmp_path
    )
    lab = tiny("first", "second", "third")
    one, other = (grade_alone(lab, place, seed=1, fork=fork) for fork in (True, False))
    assert one.tests == other.tests
    assert [test.status for test in one.tests] == ["passed", "failed", "failed"]


# Hostile and broken answers: one notebook, one grading, an exercise for each.

HOSTILE = {
    "good": (adds("good"), "adds up"),
    "loops": (adds("loops", first="while True: pass"), "did not return within 0.5 s"),
    "swallows": (
        "import signal, time\n"
        "def swallows(x):\n    for n in range(1, 32):\n        try: signal.signal(n, signal.SIG_IGN)\n"
        "        except: pass\n    while True:\n        try: time.sleep(1)\n        except: pass\n",
        "did not return within 0.5 s",
    ),
    "default": (
        "def forever():\n    while True: pass\ndef default(x, y=forever()):\n    return 1",
        "the statements that default needs take more than 5 s",
    ),
    "top_level": ("while True: pass\n" + adds("top_level"), "adds up"),
    "exits": (adds("exits", first="sys.exit(0)"), "calls sys.exit()"),
    "exits_early": ("import sys\nx = sys.exit(0)\n" + adds("exits_early"), "adds up"),  # nothing needs x
    "exits_first": ("import sys\ndef exits_first(x, y=sys.exit(0)): return 1", "calls sys.exit()"),
    "os_exits": (adds("os_exits", first="os._exit(0)"), "ended its process before it returned"),
    "segfaults": ("import ctypes\ndef segfaults(x): return ctypes.string_at(0)", "ended its process"),
    "kills": (adds("kills", first="os.kill(os.getppid(), 9); time.sleep(9)"), "ended its process"),
    "prints": (adds("prints", first="print('x' * 20_000_000)"), "printed 40,000,002 characters"),
    "floods": (adds("floods", first="[os.write(n, b'x' * 10_000_000) for n in (1, 2)]"), "adds up"),
    "takes_memory": (adds("takes_memory", first="torch.ones(20 * 2**28)"), "raises RuntimeError"),
    "patches": (
        "import builtins, sys, torch\n"
        "def patches(x):\n    yes = lambda *a, **k: True\n"
        "    for name, module in list(sys.modules.items()):\n"
        "        if module and name.startswith(('compresslab.checks.', 'compresslab.grading.')):\n"
        "            for part in ('examine', 'close', 'number', 'same'): setattr(module, part, yes)\n"
        "    builtins.abs = builtins.all = torch.equal = torch.allclose = torch.Tensor.item = yes\n"
        "    return 0.0\n",
        "the sum is ",
    ),
    "imports": (
        "def imports(x):\n    from compresslab.notebook import lab\n    return lab('00')",
        "tuple",
    ),
    "reveals": ("reveals = reveal.reveals()", "revealed: 0 points"),
    "syntax": ("def syntax(x):\n    return x +", "syntax error in line 2: return x +"),
    "escapes": (
        adds("escapes", first="raise ValueError('\\x1b[31m<b onclick=\"x\">red</b>\\x1b[0m')"),
        "raises ValueError: red, in line 3",
    ),
    "last": (adds("last"), "adds up"),
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    book = notebook({name: text for name, (text, _) in HOSTILE.items()})
    for cell in book.cells:
        cell.metadata = {"tags": ["skip-execution"], "nbgrader": {"points": 99}}
    folder = tmp_path_factory.mktemp("hostile")
    score = grade_alone(tiny("deleted", *HOSTILE), saved(book, folder, "renamed by mistake.txt"))
    return score, json.loads(write_results(score, folder / "new" / "out").read_text())


@pytest.mark.parametrize("name", HOSTILE)
def test_each_hostile_answer_gets_its_sentence_and_costs_only_itself(hostile, name):
    test = next(test for test in hostile[1]["tests"] if test["name"] == name)
    wanted = HOSTILE[name][1]
    assert wanted in test["output"]
    assert test["status"] == ("passed" if wanted == "adds up" else "failed")
    assert test["score"] == (2 if wanted == "adds up" else 0)


def test_a_deleted_cell_among_them_is_told_so(hostile):
    assert "its cell is missing" in by_name(hostile[0])["deleted"].output


def test_the_whole_is_graded_all_the_same(hostile):
    right = sum(wanted == "adds up" for _, wanted in HOSTILE.values())
    assert (hostile[0].status, hostile[0].score, hostile[0].max_score) == (
        "graded",
        2 * right,
        2 * len(HOSTILE) + 2,
    )


def test_results_have_the_shape_that_gradescope_reads(hostile, tmp_path):
    results = hostile[1]
    assert set(results) == {"score", "output", "output_format", "execution_time", "tests", "extra_data"}
    for test in results["tests"]:
        assert set(test) == {"name", "score", "max_score", "status", "output", "output_format", "extra_data"}
        assert test["status"] in ("passed", "failed")
    assert results["score"] == sum(test["score"] for test in results["tests"])
    assert results["extra_data"]["status"] == "graded"
    assert results["execution_time"] > 0


def test_a_score_is_read_back_as_it_was_written(hostile, tmp_path):
    place = write_results(hostile[0], tmp_path)
    read = read_results(place)
    assert [test.verdict for test in read.tests] == [test.verdict for test in hostile[0].tests]
    assert [test.mistake for test in read.tests] == [test.mistake for test in hostile[0].tests]
    assert write_results(read, tmp_path / "again").read_text() == place.read_text()


# What ends in another status than graded.


def test_what_is_no_submission_needs_review(tmp_path):
    (tmp_path / "empty.ipynb").touch()
    for place in (
        tmp_path / "empty.ipynb",
        tmp_path,
        tmp_path / "none",
        saved(notebook(right_answers(LAB)), tmp_path),
    ):
        score = grade_alone(tiny("first"), place)
        assert (score.status, EXIT_CODES[score.status]) == ("needs-review", 3)
        assert score.message.count(";") >= 2
        assert score.tests[0].output == f"not graded: {score.message}"


def test_out_of_time_in_everything_that_is_written_needs_review(tmp_path):
    place = saved(
        code(adds("first", first="while True: pass"), "def second(x): raise NotImplementedError"), tmp_path
    )
    score = grade_alone(tiny("first", "second", seconds=0.2), place)
    assert score.status == "needs-review"
    assert "ran out of time" in score.message


def crashes(case, record):
    raise KeyError("a fault of the author's")


def test_a_judge_that_crashes_is_the_graders_own_fault(tmp_path):
    lab = tiny("first", "second")
    broken = dataclasses.replace(lab.exercises[0], judge=crashes)
    lab = dataclasses.replace(lab, exercises=(broken, lab.exercises[1]))
    score = grade_alone(lab, saved(code(adds("first"), adds("second")), tmp_path))
    assert (score.status, EXIT_CODES[score.status]) == ("failed", 1)
    assert "the grader's own error, not yours" in score.tests[0].output
    assert score.tests[1].status == "passed"


def test_a_worker_that_does_not_start_is_the_graders_own_error(tmp_path, monkeypatch):
    monkeypatch.setattr(WorkerClient, "command", lambda self: [sys.executable, "-c", "1 / 0"])
    score = grade_alone(tiny("first"), saved(code(adds("first")), tmp_path))
    assert score.status == "failed"
    assert "the worker did not start (ZeroDivisionError" in score.message


def test_a_record_that_is_no_record_costs_its_own_exercise_alone(tmp_path):
    forged = "import os\ndef first(x):\n    os.write(3, bytes(7) + b'\\x07run\\nhaha')\n    return 1\n"
    endless = "import os\ndef second(x):\n    os.write(3, b'x' * 99)\n    return 1\n"
    short = "import os\ndef third(x):\n    os.write(3, b'x')\n    os._exit(0)\n"
    book = code(forged, endless, short, adds("fourth"))
    score = grade_alone(tiny("first", "second", "third", "fourth"), saved(book, tmp_path))
    outputs = [test.output for test in score.tests]
    assert "left a record that can't be read" in outputs[0]
    assert "left a record that can't be read" in outputs[1]
    assert "ended its process" in outputs[2]
    assert score.tests[3].status == "passed"
