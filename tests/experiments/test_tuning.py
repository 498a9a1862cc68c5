"""Tuning: a grid goes on while its best lies at an edge and no further, and the results alone decide it."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from torch import nn

from compresslab.errors import BadSetting
from compresslab.experiments import runner
from compresslab.experiments.experiment import TUNING, Experiment, Run
from compresslab.experiments.results import write_results
from compresslab.experiments.runner import Unfinished, forecast, run_missing
from compresslab.experiments.tuning import Grid, tune
from compresslab.jobs.executor import Pool

RATES = Grid("rate", (0.25, 0.5, 1.0, 2.0, 4.0, 8.0), (1.0, 2.0))
WEIGHTS = Grid("weight", (1.0, 3.0, 10.0, 30.0, 100.0), (3.0, 10.0, 30.0), 10.0)
SHARES = Grid("share", (0.5, 0.9, 1.0), (0.9, 1.0), 0.9, bounds=(1.0,))
TEMPLATE = Run(f"{TUNING}/kd", "reach", {"method": "kd"}, 100)


@pytest.fixture(autouse=True)
def no_images(monkeypatch):
    monkeypatch.setattr(runner, "_data", lambda *args, **told: None)


@pytest.fixture
def search(tmp_path):
    """A function that tunes where the best is known: what was tried, the tuning, results, the experiment."""

    def run(peak, *grids):
        """``peak``: {setting: the value at which validation is best}."""

        def reach(context, *, method, seed, **settings):
            lost = sum(abs(math.log(settings[name] / best)) for name, best in peak.items())
            return {"validation_accuracy": 1 - lost / 100}

        tuning = tune(TEMPLATE, grids)
        last = Run("methods/kd/0", "reach", {"method": "kd"}, 0, tuning.chosen)
        experiment = Experiment(
            "99_search", (*tuning.runs, last), {"reach": reach}, nn.Identity, ("methods",)
        )
        lines = []
        pool = Pool(lambda: ThreadPoolExecutor(1), 1)
        results = run_missing(Unfinished(experiment, folder=tmp_path), pool, report=lines.append)
        tried = [line.partition("] ")[2].partition(":")[0].removeprefix("tries/kd/") for line in lines]
        return tried, tuning, results, experiment

    return run


@pytest.mark.parametrize(
    ("peak", "tried"),
    [
        (1.1, "1 2 0.5"),  # the best of two lies at an edge, whichever it is
        (0.4, "1 2 0.5 0.25"),
        (3.9, "1 2 4 8"),
        (2.1, "1 2 4"),
    ],
)
def test_a_grid_goes_on_while_its_best_lies_at_an_edge_and_no_further(search, peak, tried):
    keys, tuning, results, _ = search({"rate": peak}, RATES)
    assert keys == [f"rate/{value}/100" for value in tried.split()] + ["methods/kd/0"]
    assert tuning.tried("rate", results) == sorted(map(float, tried.split()))
    assert abs(math.log(results["methods/kd/0"]["rate"] / peak)) < math.log(2)


def test_where_the_best_lies_inside_nothing_is_added(search):
    keys, tuning, results, experiment = search({"rate": 1.5}, replace(RATES, start=(0.5, 1.0, 2.0, 4.0)))
    assert len(keys) == 5
    assert not tuning.at_edge("rate", results)
    assert tuning.chosen["rate"].value(results) in (1.0, 2.0)
    assert experiment.plan[4].needed is not None


@pytest.mark.parametrize("peak", [0.01, 100.0])
def test_the_end_of_the_whole_grid_is_an_edge(search, peak):
    _, tuning, results, _ = search({"rate": peak}, RATES)
    assert tuning.at_edge("rate", results)


def test_a_bound_is_no_edge(search):
    _, tuning, results, _ = search({"rate": 1.5, "share": 1.0}, RATES, SHARES)
    assert tuning.chosen["share"].value(results) == 1.0
    assert not tuning.at_edge("share", results)
    assert replace(tuning, grids=(RATES, replace(SHARES, bounds=()))).at_edge("share", results)


def test_the_next_setting_is_tried_at_the_best_so_far_and_its_default_not_again(search):
    keys, tuning, results, _ = search({"rate": 3.9, "weight": 40.0}, RATES, WEIGHTS)
    weights = [key for key in keys if key.startswith("weight")]
    assert weights == ["weight/3/100", "weight/30/100", "weight/100/100"]
    assert {results[f"tries/kd/{key}"]["rate"] for key in weights} == {4.0}
    assert {results[f"tries/kd/{key}"]["weight"] for key in keys if key.startswith("rate")} == {10.0}
    assert {name: best.value(results) for name, best in tuning.chosen.items()} == {
        "rate": 4.0,
        "weight": 30.0,
    }
    assert (results["methods/kd/0"]["rate"], results["methods/kd/0"]["weight"]) == (4.0, 30.0)


def test_a_default_that_is_best_was_tried_with_the_first_setting(search):
    keys, tuning, results, _ = search({"rate": 1.5, "weight": 10.0}, RATES, WEIGHTS)
    assert [key for key in keys if key.startswith("weight")] == ["weight/3/100", "weight/30/100"]
    assert tuning.chosen["weight"].value(results) == 10.0
    assert not tuning.at_edge("weight", results)


def test_an_ended_search_is_found_ended_and_a_result_that_is_needless_goes(search, tmp_path):
    _, _, results, experiment = search({"rate": 2.1}, RATES)
    again = Unfinished(experiment, folder=tmp_path)
    assert [run.key for run in again.needless] == [
        f"tries/kd/rate/{value}/100" for value in ("0.5", "0.25", "8")
    ]
    assert forecast(again) == "99_search: all 4 runs are stored, none is missing"
    old = results["tries/kd/rate/4/100"] | {"rate": 8.0, "validation_accuracy": 2.0}  # of an earlier plan
    write_results(results | {"tries/kd/rate/8/100": old}, experiment.path(tmp_path))
    assert Unfinished(experiment, folder=tmp_path).results == results
    assert Unfinished(experiment, folder=tmp_path).runs == []


def test_what_may_be_needed_is_forecast_as_such(tmp_path):
    tuning = tune(TEMPLATE, [RATES])
    experiment = Experiment("99_search", tuning.runs, {"reach": print}, nn.Identity, ("tries",))
    assert forecast(Unfinished(experiment, folder=tmp_path)) == (
        "99_search: 2 of 2 runs are missing: about 0.0 hours of one worker, 2 of unknown length; "
        "at most 4 more, where the best of a grid lies at its edge"
    )


def test_a_start_with_gaps_or_a_default_outside_it_is_refused():
    with pytest.raises(
        BadSetting, match=r"^start must be neighbours among the values of rate, from low to high"
    ):
        tune(TEMPLATE, [replace(RATES, start=(0.5, 2.0))])
    with pytest.raises(BadSetting, match=r"got \(2.0, 1.0\) among \(2.0, 1.0\); try values\[1:5\]$"):
        tune(TEMPLATE, [replace(RATES, values=(2.0, 1.0), start=(2.0, 1.0))])
    text = (
        r"^default must be one of the start of weight, got 1.0 and \(3.0, 10.0, 30.0\); earlier settings are"
    )
    with pytest.raises(BadSetting, match=text):
        tune(TEMPLATE, [RATES, replace(WEIGHTS, default=1.0)])
