"""The errors speak to a person by their text and to a program by their kind."""

import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from compresslab import errors
from compresslab.__main__ import app
from compresslab.authoring.readme import fill
from compresslab.checks.record import from_bytes
from compresslab.cli.jupyter import lab_names
from compresslab.course import find_lab
from compresslab.data.images import Images
from compresslab.deployment.runtime import load_deployed
from compresslab.errors import (
    BadSetting,
    BadSource,
    CompressionError,
    DamagedFile,
    Diverged,
    NotAvailable,
    Unsupported,
    Unwritten,
    WrongAnswer,
    check_fraction,
)
from compresslab.jobs.executor import dask_cluster
from compresslab.models.graph import trace
from compresslab.models.pretrained import load_baseline
from compresslab.storage.container import save_model
from compresslab.storage.packing import pack
from compresslab.techniques.pruning.channel_groups import dependency_groups
from compresslab.techniques.pruning.granularity import fine_grained_mask
from compresslab.training.loop import fit

KINDS = (BadSetting, BadSource, DamagedFile, Diverged, NotAvailable, Unsupported)
IMAGES = Images(torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
NETWORK = nn.Sequential(nn.Flatten(), nn.Linear(784, 2))


def use_dask(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask", None)  # as where it is not installed
    with dask_cluster("tcp://127.0.0.1:1"):
        pass


def fit_diverging(folder, monkeypatch):
    def infinite(model, images, labels):
        return model(images).sum() * torch.inf

    fit(NETWORK, IMAGES, IMAGES, epochs=1, learning_rate=1.0, seed=0, loss=infinite)


def save_below_a_file(folder, monkeypatch):
    (folder / "file").touch()
    save_model(NETWORK, folder / "file" / "network")


def read_a_damaged_model(folder, monkeypatch):
    (folder / "baseline.safetensors").write_bytes(b"not a network")
    load_baseline(folder=folder)


RAISED = {
    "a sparsity of 50": (BadSetting, lambda *_: fine_grained_mask(torch.ones(2, 2), sparsity=50)),
    "bits of 9": (BadSetting, lambda *_: pack(torch.zeros(2, dtype=torch.uint8), bits=9)),
    "an unknown network": (BadSetting, lambda *_: load_baseline("resnet50")),
    "an unknown lab": (BadSetting, lambda *_: find_lab("42")),
    "a missing network": (DamagedFile, lambda folder, _: load_baseline(folder=folder)),
    "a damaged network": (DamagedFile, read_a_damaged_model),
    "a missing graph": (DamagedFile, lambda folder, _: load_deployed(folder / "absent.onnx")),
    "a record that is none": (DamagedFile, lambda *_: from_bytes(b"no archive")),
    "no labs": (DamagedFile, lambda folder, _: lab_names(folder)),
    "an infinite loss": (Diverged, fit_diverging),
    "an activation that moves zero": (
        Unsupported,
        lambda *_: dependency_groups(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sigmoid())),
    ),
    "an operation without a graph": (Unsupported, lambda *_: trace(nn.Sequential(nn.LSTM(2, 2)))),
    "a place below a file": (NotAvailable, save_below_a_file),
    "Dask not installed": (NotAvailable, use_dask),
    "a block that nothing generates": (
        BadSource,
        lambda *_: fill("<!-- generated: nothing -->\n<!-- end -->", {}),
    ),
}


@pytest.mark.parametrize("what", RAISED)
def test_each_refusal_is_of_its_kind(what, tmp_path, monkeypatch):
    kind, refused = RAISED[what]
    with pytest.raises(CompressionError) as caught:
        refused(tmp_path, monkeypatch)
    assert type(caught.value) is kind


def test_every_kind_is_raised_somewhere_above():
    offered = {value for value in vars(errors).values() if isinstance(value, type)}
    assert {kind for kind in offered if issubclass(kind, CompressionError)} == {CompressionError, *KINDS}
    assert {kind for kind, _ in RAISED.values()} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_can_be_caught_as_a_compression_error_and_as_a_value_error(kind):
    assert issubclass(kind, CompressionError)
    assert issubclass(kind, ValueError)


@pytest.mark.parametrize("file", sorted(Path(errors.__file__).parent.rglob("*.py")), ids=lambda f: f.stem)
def test_every_refusal_has_a_kind(file):
    assert not re.search(r"(raise|return) CompressionError\(", file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line_ends_with_2_whatever_the_kind(kind, monkeypatch):
    def refuse(*positional, **named):
        raise kind("bits must be 2 to 8, got 9")

    monkeypatch.setattr("compresslab.course.find_lab", refuse)
    done = CliRunner().invoke(app, ["check", "00"])
    assert (done.exit_code, done.output.strip()) == (2, "✗ bits must be 2 to 8, got 9")


def test_a_wrong_answer_is_no_value_error_so_that_a_broken_judge_is_not_mistaken_for_one():
    assert not issubclass(WrongAnswer, ValueError)


def test_a_wrong_answer_prints_its_reason_and_below_it_the_hint_on_offer():
    assert (
        str(WrongAnswer("the mask is all zero", "count the ones")) == "the mask is all zero\ncount the ones"
    )
    assert str(WrongAnswer("the mask is all zero")) == "the mask is all zero"


def test_jupyter_shows_a_wrong_answer_as_a_line_and_not_as_a_traceback():
    assert WrongAnswer("too small", "square it")._render_traceback_() == ["✗ too small", "  square it"]
    assert WrongAnswer("too small")._render_traceback_() == ["✗ too small"]


def test_a_wrong_answer_keeps_the_values_that_a_mistakes_message_names():
    assert WrongAnswer("too small", where=(0, 3), yours=1).details == {"where": (0, 3), "yours": 1}


def test_an_answer_that_is_missing_is_shown_as_one_grey_line():
    assert Unwritten("not written yet")._render_traceback_() == ["\x1b[90mnot written yet\x1b[0m"]


@pytest.mark.parametrize("within", ["[0, 1)", "(0, 1]", "(0, 1)", "[0, 1]"])
def test_a_fraction_may_be_the_ends_of_its_interval_that_have_a_square_bracket_and_all_between(within):
    allowed = [5e-324, 0.5, np.float32(0.25), 1 - 2**-53]
    allowed += [0.0] * within.startswith("[") + [1] * within.endswith("]")
    refused = [-0.1, 1.1, math.nan, math.inf, None, "0.5"]
    refused += [0] * within.startswith("(") + [1.0] * within.endswith(")")
    for value in allowed:
        check_fraction("share", value, within=within, hint="try 0.5")
    for value in refused:
        says = f"^{re.escape(f'share must be a fraction in {within}, got {value}; ')}"
        with pytest.raises(BadSetting, match=says):
            check_fraction("share", value, within=within, hint="try 0.5")


@pytest.mark.parametrize(
    ("value", "within", "advice"),
    [
        (50, "[0, 1)", "did you mean 0.5?"),
        (100, "[0, 1)", "try 0.9"),
        (100, "(0, 1]", "did you mean 1?"),
        (0.0, "(0, 1]", "try 0.9"),
        (1000, "[0, 1]", "try 0.9"),
    ],
)
def test_a_percentage_gets_its_fraction_told_where_that_is_allowed(value, within, advice):
    with pytest.raises(BadSetting, match=f"; {re.escape(advice)}$"):
        check_fraction("share", value, within=within, hint="try 0.9")
