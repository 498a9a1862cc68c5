"""Stored results: written whole or not at all, and found again by their keys."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compresslab.errors import BadSetting, DamagedFile
from compresslab.experiments.results import load_weights, read_json, values, write_results
from compresslab.storage import save_model

RESULTS = {
    "chosen": {"kd": 4.0},
    "methods/kd/10": {"test_accuracy": 0.5},
    "methods/kd/2": {"test_accuracy": 0.25},
    "methods/kd/0": {"test_accuracy": 0.125, "seconds": 3.0},
    "methods/kd_long/0": {"test_accuracy": 0.9},
    "students/kd/half/1": {"test_accuracy": 0.7},
    "surgeon/0": {"magnitude": [0.5, 0.25]},
}


def test_values_come_in_the_order_of_their_seeds():
    assert values(RESULTS, "methods", "kd") == [0.125, 0.25, 0.5]
    assert values(RESULTS, "methods", "kd_long") == [0.9]
    assert values(RESULTS, "students", "kd", "half") == [0.7]
    assert values(RESULTS, "surgeon", key="magnitude") == [[0.5, 0.25]]


@pytest.mark.parametrize(("names", "start"), [(("methods", "sp"), "methods/sp/"), (("methods",), "methods/")])
def test_a_run_of_another_name_is_refused(names, start):
    text = (
        f"no run is called {start}SEED; there are methods/kd, methods/kd_long, students/kd/half, surgeon; "
        "repeat the runs with: compresslab train LAB"
    )
    with pytest.raises(BadSetting, match=f"^{re.escape(text)}$"):
        values(RESULTS, *names)


def test_where_nothing_ran_the_refusal_says_so():
    with pytest.raises(BadSetting, match=r"there are none; repeat the runs with: compresslab"):
        values({"chosen": {}}, "methods", "kd")


def test_a_key_that_not_every_run_has_is_refused():
    text = "^key must be one of test_accuracy for the runs methods/kd/SEED, got seconds$"
    with pytest.raises(BadSetting, match=text):
        values(RESULTS, "methods", "kd", key="seconds")


def test_results_are_json_in_the_order_of_their_keys(tmp_path):
    path = tmp_path / "new" / "one.json"
    write_results({"b": {"y": 1.5}, "a": {"x": [0.1, None]}}, path)
    assert list(json.loads(path.read_text())) == ["a", "b"]
    assert read_json(path, about="") == {"a": {"x": [0.1, None]}, "b": {"y": 1.5}}
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupted_writing_leaves_what_was_there(tmp_path, monkeypatch):
    def interrupted(*paths):
        raise KeyboardInterrupt

    path = tmp_path / "results.json"
    write_results({"first": 1}, path)
    monkeypatch.setattr("compresslab.storage.atomic.os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_results({"second": 2}, path)
    assert json.loads(path.read_text()) == {"first": 1}


@pytest.mark.parametrize("content", ["{", "7", None])
def test_results_that_are_damaged_or_missing_are_named(tmp_path, content):
    path = tmp_path / "lab.json"
    if content:
        path.write_text(content)
    with pytest.raises(
        DamagedFile, match=r"lab\.json can't be read \(.+\); it keeps\. Get it back with: git"
    ):
        read_json(path, about="it keeps")


@pytest.mark.parametrize("write", [save_model, lambda model, path: save_file(model.state_dict(), path)])
def test_a_network_comes_back_from_either_kind_of_file_and_another_one_is_refused(tmp_path, write):
    one, path = nn.Linear(3, 2), tmp_path / "one.safetensors"
    write(one, path)
    back = load_weights(path, into=nn.Linear(3, 2))
    assert torch.equal(back.weight, one.weight)
    assert not back.training
    content = path.read_bytes()
    says = rf"^{re.escape(str(path))} can't be loaded \(.+\); it holds the network of a run\. Get it back"
    with pytest.raises(DamagedFile, match=says):
        load_weights(path, into=nn.Linear(4, 2))
    for damaged in (content[:-3], b"", None):
        path.write_bytes(damaged) if damaged is not None else path.unlink()
        with pytest.raises(DamagedFile, match=says):
            load_weights(path, into=nn.Linear(3, 2))
