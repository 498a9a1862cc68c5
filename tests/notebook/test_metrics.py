"""Measured numbers travel from a cell to the prose, and none can be typed on the way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from compresslab.authoring.placeholders import FILTERS, fill_prose, typed_numbers
from compresslab.errors import CompressionError
from compresslab.measurement.statistics import Interval
from compresslab.notebook.metrics import MIME, collect_metrics, metric, read_metrics, write_metrics


def with_outputs(*bundles):
    cells = [new_code_cell("", outputs=[new_output("display_data", {MIME: bundle})]) for bundle in bundles]
    return new_notebook(cells=[new_markdown_cell("text"), *cells])


# metric()


def test_a_metric_shows_its_name_and_value(capsys):
    metric("int8.drop", 0.004)
    assert capsys.readouterr().out == "int8.drop = 0.004\n"


@pytest.mark.parametrize("value", [3, np.int64(3), torch.tensor(3)])
def test_a_whole_number_stays_whole(value, capsys):
    metric("made.count", value)
    assert capsys.readouterr().out == "made.count = 3\n"


def test_an_interval_brings_its_ends(capsys):
    metric("speedup", Interval(1.5, 1.42, 1.61))
    assert capsys.readouterr().out == "speedup = 1.5 [1.42, 1.61]\n"


def test_more_than_six_digits_are_noise(capsys):
    metric("third", torch.tensor(1 / 3, dtype=torch.float64))
    assert capsys.readouterr().out == "third = 0.333333\n"


@pytest.mark.parametrize("name", ["Drop", "int8 drop", "1st", "", "int8.", "drop.low", "drop.high"])
def test_a_name_of_another_form_is_refused(name):
    with pytest.raises(CompressionError, match=r"name must be like int8\.drop .* got"):
        metric(name, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.9", None, True, torch.ones(2)])
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(CompressionError, match="must be a finite number, got"):
        metric("drop", value)


def test_half_an_interval_is_refused():
    with pytest.raises(CompressionError, match="low and high must be given together for drop"):
        metric("drop", 1, low=0)


# collecting


def test_numbers_are_collected_from_all_cells_in_order_of_their_names():
    notebook = with_outputs({"b": 2}, {"a": 1, "a.low": 0.5})
    assert list(collect_metrics(notebook).items()) == [("a", 1), ("a.low", 0.5), ("b", 2)]


def test_a_name_given_twice_is_refused():
    with pytest.raises(CompressionError, match="the metric a must be given once"):
        collect_metrics(with_outputs({"a": 1}, {"a": 1}))


def test_metrics_survive_their_file():
    metrics = {"b": 0.5, "a": 3}
    assert read_metrics(write_metrics(metrics)) == metrics
    assert write_metrics(metrics).index('"a"') < write_metrics(metrics).index('"b"')


# filling and hiding


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        ("percent", 0.9421, "94.2 %"),
        ("percent", -0.001, "−0.1 %"),
        ("points", 0.0034, "0.34 points"),
        ("points", -0.0003, "−0.03 points"),
        ("points", -0.00001, "0.00 points"),
        ("times", 3.21, "3.21×"),
        ("times", 1.04, "1.04×"),
        ("times", 13.19, "13.2×"),
        ("times", 213.4, "213×"),
        ("count", 582266, "582,266"),
        ("bytes", 999, "999 B"),
        ("bytes", 12_345, "12.3 kB"),
        ("bytes", 2_331_234, "2.33 MB"),
        ("ms", 0.565, "0.56 ms"),
        ("ms", 300.4, "300 ms"),
        ("millions", 21_345_678, "21.3 million"),
        ("number", 1234, "1,234"),
        ("number", 0.123456, "0.1235"),
    ],
)
def test_a_filter_writes_the_unit(kind, value, wanted):
    assert FILTERS[kind](value) == wanted


def test_a_placeholder_becomes_the_plain_number():
    text = "It keeps {{ a.b | percent }} of {{c|count}}, that is {{ a.b }}."
    filled = fill_prose(text, {"a.b": 0.5, "c": 1000}, cell="x")
    assert filled == "It keeps 50.0 % of 1,000, that is 0.5."


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{ lost }}", "text-7: the metric lost must be measured by a cell; there are a"),
        ("{{ a | euros }}", "text-7: the filter must be one of percent, .*, got euros"),
        ("{{ a | percent | times }}", "with one filter"),
        ("{{ a + 1 }}", "with one filter"),
    ],
)
def test_a_placeholder_that_means_nothing_names_its_cell(text, says):
    with pytest.raises(CompressionError, match=says.replace("|", r"\|")):
        fill_prose(text, {"a": 1}, cell="text-7")


# numbers typed by hand


@pytest.mark.parametrize(
    "number",
    [
        "94.2 %",
        "0.94",
        "3×",
        "3.2 ×",
        "12 ms",
        "20 s",
        "31 MB",
        "5 kB",
        "117k",
        "9M",
        "25M MACs",
        "9 times",
        "2 points",
        "582,266 parameters",
        "40 percent",
    ],
)
def test_a_measurement_typed_by_hand_is_found(number):
    assert typed_numbers(f"This one reaches {number}, they say.") == [number]


@pytest.mark.parametrize(
    "text",
    [
        "in 2015 and the 1990s",
        "a 3 × 3 kernel",
        "8 bits, 10 classes",
        "`0.9` of `50 %`",
        "$0.5 x$ and $$1.5$$",
        "[39×](https://arxiv.org/abs/1510.00149)",
        "arXiv:1510.00149",
        "{{ a.b | percent }}",
        "exercise 3",
        "```\n0.5\n```",
        "about 5 minutes",
        "Lab 00",
        "int8, top-1",
    ],
)
def test_what_is_no_measurement_is_left_alone(text):
    assert typed_numbers(text) == []
