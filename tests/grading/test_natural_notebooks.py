"""Notebooks as students write them, each marked right by its own check cell: they earn their points.

Every row is a small notebook; its cells stand below the opening cell that the labs ship. What is right here
must be right in the grader, in a real worker process, and without a note.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator

import nbformat
import pytest
from jupyter_client import BlockingKernelClient, KernelManager
from submissions import code

from compresslab.course import find_lab
from compresslab.grading.bundle import make_bundle
from compresslab.grading.grade import grade_content
from compresslab.grading.sandbox.self_test import can_isolate
from compresslab.grading.sandbox.worker_client import WorkerClient
from compresslab.grading.scores import Score, Status

OPENING = """import itertools
import math
import time
import numpy as np
import torch
from torch import Tensor, nn
import compresslab as cl
from compresslab.notebook import lab
check, hint, reveal, yours = lab("{lab}")"""
COUNT = "def count_parameters(model):\n    return sum(p.numel() for p in model.parameters())"
USES_X = "def count_parameters(model):\n    used = X\n    return sum(p.numel() for p in model.parameters())"
DEVICE = 'X = torch.device("cuda" if torch.cuda.is_available() else "cpu")'
CHECK = "check.count_parameters(count_parameters)"
CONV = """def conv_macs(input_shape, weight_shape, *, stride, padding, groups):
    out, inner, kh, kw = weight_shape
    h = (input_shape[1] + 2 * padding[0] - kh) // stride[0] + 1
    w = (input_shape[2] + 2 * padding[1] - kw) // stride[1] + 1
    return out * h * w * inner * kh * kw"""
TRAINING = "for n in (1, 2):\n    torch.manual_seed(n)\n    time.sleep(60)"
COUNTS = "    assert {}(nn.Linear(1, 1)) == 2\n    out, "
HEIGHT = "(input_shape[1] + 2 * padding[0] - kh) // stride[0] + 1"
CHECK_CONV, CHECK_MACS = "check.conv_macs(conv_macs)", "check.network_macs(network_macs)"
SPEEDUP = """def paired_speedup(baseline, candidate, clock, *, pairs, warmup):
    for _ in range(warmup):
        baseline()
        candidate()
    return float(np.median([seconds(baseline, clock) / seconds(candidate, clock) for _ in range(pairs)]))"""
SECONDS = "def seconds(function, clock):\n    start = clock()\n    function()\n    return clock() - start"
MACS = """def network_macs(model, image):
    found, was = [], [(m, m.training) for m in model.modules()]
    layers = [m for m in model.modules() if isinstance(m, tuple(KINDS))]
    def count(m, i, o):
        found.append(o[0].numel() * m.weight[0].numel())
    hooks = [m.register_forward_hook(count) for m in layers]
    with torch.no_grad():
        model.eval()(image[:1])
    for m, mode in was:
        m.training = mode
    for hook in hooks:
        hook.remove()
    return sum(found)"""

# name → the points, and the cells of lab 00 below the opening one
NATURAL: dict[str, tuple[int, tuple[str, ...]]] = {
    # Below the check nothing counts.
    "a sum at the end": (1, (COUNT, CHECK, "sum = 0\nfor n in (1, 2, 3):\n    sum += n\nprint(sum)")),
    "a star import at the end": (1, (COUNT, CHECK, "from torch import *")),
    "played with afterwards": (1, (COUNT, CHECK, "def count_parameters(model):\n    return 0")),
    "deleted afterwards": (1, (COUNT, CHECK, "del count_parameters")),
    "a helper that the lab ships below, too": (3, (SECONDS, SPEEDUP, "check.paired_speedup(paired_speedup)")),
    # Scratch lines around the function.
    "a call under the function": (1, (f"{COUNT}\n\nn = count_parameters(baseline)\nprint(n)", CHECK)),
    "a call, and no check": (1, (f"{COUNT}\n\nn = count_parameters(baseline)\nprint(n)",)),
    "an import of what is not here": (1, (f"import no_such_package\n{COUNT}", CHECK)),
    "a plot": (1, (f"{COUNT}\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()", CHECK)),
    "a timing line": (1, (f"{COUNT}\n%timeit count_parameters(nn.Linear(2, 2))", CHECK)),
    "a cell that times itself": (1, (f"%%time\n{COUNT}", CHECK)),
    "a shell command in two lines": (1, (f"!echo a \\\n    b\nfiles = !ls\n{COUNT}", CHECK)),
    "a slow line that nothing needs": (1, (f"time.sleep(60)\n{COUNT}", CHECK)),
    "a long training with a seed": (1, (TRAINING, COUNT, CHECK)),
    "a setting for all of torch": (1, ("torch.set_num_threads(64)\ntorch.manual_seed(0)", COUNT, CHECK)),
    "a plot within the function": (
        1,
        ("import matplotlib.pyplot as plt", COUNT.replace("return ", "plt.plot([1, 2])\n    return "), CHECK),
    ),
    # Values of every kind.
    "a comprehension": (1, ("X = {b: b for b in (4, 8)}", USES_X, CHECK)),
    "the idiom for the device": (1, (DEVICE, USES_X, CHECK)),
    "a layer": (1, ("X = nn.ReLU()", USES_X, CHECK)),
    "a loop": (1, ("X = 0\nfor n in range(4):\n    X += n", USES_X, CHECK)),
    "a with statement": (1, ("with torch.no_grad():\n    X = torch.ones(2)", USES_X, CHECK)),
    "an if": (1, ("if math.pi > 3:\n    X = 1\nelse:\n    X = 2", USES_X, CHECK)),
    "a walrus": (1, ("print(X := 3)", USES_X, CHECK)),
    "await": (1, ("async def given():\n    return 3\nX = await given()", USES_X, CHECK)),
    "a timed assignment": (1, ("%time X = 3", USES_X, CHECK)),
    "a data set": (1, ("data = cl.fashion_mnist()\nX = data.test.first(1)", USES_X, CHECK)),
    # Changes of what is bound.
    "a list that grows": (
        3,
        ("KINDS = []\nKINDS.append(nn.Conv2d)\nKINDS.append(nn.Linear)\nother = KINDS", MACS, CHECK_MACS),
    ),
    "another name of the list": (
        3,
        ("KINDS = []\nkinds = KINDS\nkinds += [nn.Conv2d]\nkinds.append(nn.Linear)", MACS, CHECK_MACS),
    ),
    "a function that registers": (
        3,
        (
            "KINDS = []\ndef register(kind):\n    KINDS.append(kind)\n    return kind",
            "register(nn.Conv2d)\nregister(nn.Linear)",
            MACS,
            CHECK_MACS,
        ),
    ),
    # The function itself, once more.
    "a cache around it": (
        2,
        (CONV, "import functools\nconv_macs = functools.lru_cache(conv_macs)", CHECK_CONV),
    ),
    "a decorator": (
        2,
        (
            "import functools\ndef logged(function):\n    @functools.wraps(function)\n"
            "    def inner(*a, **k):\n"
            "        calls.append(1)\n        return function(*a, **k)\n    return inner\ncalls = []",
            "@logged\n" + CONV,
            CHECK_CONV,
        ),
    ),
    "a name of one's own": (2, (CONV.replace("conv_macs", "my_macs"), "check.conv_macs(my_macs)")),
    "a lambda around it": (
        2,
        (CONV.replace("conv_macs", "my_macs"), "check.conv_macs(lambda *a, **k: my_macs(*a, **k))"),
    ),
    "two of one name, each with its user": (
        3,
        (
            "def size(n, p, k, s):\n    return (n + 2 * p - k) // s + 1",
            CONV.replace(HEIGHT, "size(input_shape[1], padding[0], kh, stride[0])"),
            CHECK_CONV,
            "def size(model):\n    return model.parameters()",
            "def count_parameters(model):\n    return sum(p.numel() for p in size(model))",
            CHECK,
        ),
    ),
    # What a notebook has without an import.
    "display": (1, (COUNT.replace("return ", "display(model)\n    return "), CHECK)),
    "get_ipython": (1, (f"get_ipython().run_line_magic('matplotlib', 'inline')\n{COUNT}", CHECK)),
    "a magic inside": (1, (COUNT.replace("return ", "%pwd\n    return "), CHECK)),
    "an answer taken from yours": (
        3,
        (
            COUNT,
            CHECK,
            CONV.replace("    out, ", COUNTS.format("yours.count_parameters")),
            CHECK_CONV,
        ),
    ),
    "an answer that was revealed": (
        2,
        (
            "count_parameters = reveal.count_parameters()",
            CHECK,
            CONV.replace("    out, ", COUNTS.format("yours.count_parameters")),
            CHECK_CONV,
        ),
    ),
    "the lab's menus by other names": (
        1,
        ('c, h, r, y = lab("00_measuring")', COUNT, "c.count_parameters(count_parameters)"),
    ),
    "the answer of another exercise by its name": (
        3,
        (
            COUNT,
            CHECK,
            CONV.replace("    out, ", COUNTS.format("count_parameters")),
            CHECK_CONV,
        ),
    ),
    # Other names of the same thing.
    "a star import above": (1, ("from itertools import *\nfrom math import *", COUNT, CHECK)),
    "a shadowed builtin that is free again": (1, ("sum = 3\ndel sum", COUNT, CHECK)),
}


@pytest.fixture(scope="module")
def worker(tmp_path_factory) -> Iterator[WorkerClient]:
    bundle = make_bundle(find_lab("00_measuring"), tmp_path_factory.mktemp("natural") / "bundle")
    with WorkerClient(bundle, isolated=False) as client:
        yield client


def graded(worker: WorkerClient, *texts: str, **metadata: object) -> Score:
    book = code(OPENING.format(lab="00_measuring"), *texts)
    book.metadata = metadata or book.metadata
    return grade_content(worker.bundle, json.dumps(book).encode(), worker=worker, path="natural.ipynb")


@pytest.mark.parametrize("name", NATURAL)
def test_a_natural_notebook_earns_its_points(worker, name):
    points, cells = NATURAL[name]
    score = graded(worker, *cells)
    outputs = {test.name: test.output for test in score.tests if test.verdict not in ("right", "unwritten")}
    assert (score.score, score.status, score.notes) == (points, Status.GRADED, ()), outputs
    assert {name for name in outputs if score.score} == set()


def output(score: Score, name: str = "count_parameters") -> str:
    return next(test.output for test in score.tests if test.name == name)


def test_a_needed_statement_that_fails_is_quoted_and_the_function_still_tried(worker):
    right = "X = undefined\ntry:\n    X\nexcept NameError:\n    X = 0"
    assert graded(worker, right, USES_X, CHECK).score == 1
    score = graded(worker, "X = 1 / 0", USES_X, CHECK)
    assert score.score == 0
    assert "cell 2 raises ZeroDivisionError: division by zero, in line 1: X = 1 / 0" in output(score)


def test_what_the_sandbox_may_not_have_is_said(worker):
    score = graded(
        worker, "X = cl.measure(cl.load_baseline(), cl.fashion_mnist().test, name='a')", USES_X, CHECK
    )
    assert "cell 2 raises" in output(score)
    assert "compresslab's own measure;" in output(score)
    assert graded(worker, "X = cl.load_baseline()", USES_X, CHECK).score == 1


@pytest.mark.parametrize(
    "own",
    [
        "def count_parameters(model):\n    return cl.count_parameters(model)",
        "def count_parameters(model):\n    from compresslab.measurement.costs import count_parameters as f\n"
        "    return f(model)",
    ],
)
def test_calling_the_kit_s_own_is_refused_in_a_sentence(worker, own):
    score = graded(worker, own, CHECK)
    assert score.score == 0
    assert "write it yourself" in output(score)
    assert "your function calls compresslab's own" in output(score)


def test_the_published_answer_earns_nothing_for_its_own_exercise(worker):
    for mine in ("count_parameters", "lambda model: count_parameters(model)", "yours.count_parameters"):
        cells = ("count_parameters = reveal.count_parameters()", f"check.count_parameters({mine})")
        score = graded(worker, *cells)
        assert score.score == 0
        assert "revealed: 0 points" in output(score)


NEWER = 'def count_parameters(model):\n    d = {"n": 1}\n    return f"{d["n"]:,}" + ('


def test_a_notebook_of_a_newer_python_is_for_a_person(worker):
    for language in ({"kernelspec": {}}, {"language_info": {"version": "3.99.1"}}):
        score = graded(worker, NEWER, CHECK, **language)
        assert score.status == Status.NEEDS_REVIEW
        assert "the grader has Python 3." in score.message
        assert "3.99.1" in score.message or "kernelspec" in language
    score = graded(worker, NEWER, CHECK, language_info={"version": "3.8.0"})
    assert (score.status, score.score) == (Status.GRADED, 0)
    assert "syntax error" in output(score)


def test_an_unfinished_merge_is_called_one(worker):
    conflict = f"<<<<<<< mine\n{COUNT}\n=======\n{COUNT}\n>>>>>>> theirs"
    assert "a merge conflict was not resolved" in output(graded(worker, conflict, CHECK))


@pytest.mark.parametrize("metadata", [{"colab": {"provenance": []}}, {"kaggle": {}}, {"deepnote": {}}, {}])
def test_a_notebook_saved_elsewhere_without_ids_earns_its_points(worker, metadata):
    book = nbformat.v4.new_notebook(metadata=metadata)
    texts = (OPENING.format(lab="00_measuring"), COUNT, CHECK)
    book.cells = [nbformat.v4.new_code_cell(text, metadata={"id": "x7Yq"}) for text in texts]
    for cell in book.cells:
        del cell["id"]
    content = json.dumps(book | {"nbformat_minor": 0}).encode()
    score = grade_content(worker.bundle, content, worker=worker, path="colab.ipynb")
    assert (score.score, score.notes) == (1, ())


# Through a real kernel and the sandbox.

SPOILT = {  # wrong where the notebook runs them, by what stands above the check
    "a shadowed sum": ("def sum(values):\n    return 0", COUNT, CHECK),
    "a helper that is spoilt later": (
        "def sizes(model):\n    return [p.numel() for p in model.parameters()]",
        "def count_parameters(model):\n    return sum(sizes(model))",
        "def sizes(model):\n    return []",
        CHECK,
    ),
    "a list that was emptied": (
        "KINDS = [nn.Conv2d, nn.Linear]\nkinds = KINDS",
        MACS,
        "kinds.clear()",
        CHECK_MACS,
    ),
    "a wrapper that adds": (COUNT, "old = count_parameters\ncount_parameters = lambda m: old(m) + 1", CHECK),
    "the kit's own": ("def count_parameters(model):\n    return cl.count_parameters(model)", CHECK),
    "the published one": ("count_parameters = reveal.count_parameters()", CHECK),
}
NOT_IN_A_KERNEL = {  # without a check; a package that is missing in both places; a minute of waiting
    "a call, and no check",
    "an import of what is not here",
    "a slow line that nothing needs",
    "a long training with a seed",
}
IN_A_KERNEL = [cells for name, (_, cells) in NATURAL.items() if name not in NOT_IN_A_KERNEL][::2]
IN_A_KERNEL += [NATURAL["a data set"][1], NATURAL["a plot within the function"][1]]


@pytest.mark.alone
def test_a_kernel_and_the_sandbox_agree(tmp_path):
    bundle = make_bundle(find_lab("00_measuring"), tmp_path / "bundle")
    said: Counter[bool] = Counter()
    with a_kernel() as client, WorkerClient(bundle, isolated=can_isolate()) as sandbox:
        for cells in [*IN_A_KERNEL, *SPOILT.values()]:
            client.execute("%reset -f", store_history=False)
            texts = (OPENING.format(lab="00_measuring"), *cells)
            right = sum(printed_a_tick(client, text) for text in texts) > 0  # runs every cell
            content = json.dumps(code(*texts)).encode()
            score = grade_content(bundle, content, worker=sandbox, path="natural.ipynb")
            assert (score.score > 0) == right, "\n----\n".join(cells)
            said[right] += 1
    print(f"a kernel and the sandbox agree on {said[True]} right and {said[False]} wrong notebooks")
    assert said[True] + said[False] >= 20
    assert said[False] >= len(SPOILT)


@contextlib.contextmanager
def a_kernel() -> Iterator[BlockingKernelClient]:
    kernel = KernelManager()
    kernel.start_kernel(extra_arguments=["--HistoryManager.enabled=False"])
    client = kernel.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        yield client
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


def printed_a_tick(client: BlockingKernelClient, text: str) -> bool:
    """Run a cell; tell whether its output has a check's ✓."""
    printed: list[str] = []

    def keep(message: dict[str, object]) -> None:
        printed.append(str(message["content"]))

    client.execute_interactive(text, timeout=120, output_hook=keep, store_history=False)
    return any("✓" in words for words in printed)
