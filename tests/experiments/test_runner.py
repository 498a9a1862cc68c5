"""The runner: what is missing runs once, in the order of its dependencies, and is stored as it ends."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load
from torch import nn

from compresslab.data.images import Images, Splits
from compresslab.experiments import runner
from compresslab.experiments.experiment import TUNING, Best, Experiment, Run
from compresslab.experiments.results import write_results
from compresslab.experiments.runner import Unfinished, forecast, perform, run_missing, training_pool
from compresslab.jobs.executor import Pool

PIXELS = torch.zeros(1200, 1, 28, 28, dtype=torch.uint8)
ALL = Images(PIXELS, torch.arange(1200) % 10)
DATA = Splits(ALL, ALL.first(600), ALL.first(200))
RATES = (0.1, 0.4, 1.6)


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(runner, "fashion_mnist", lambda: DATA)
    runner._data.cache_clear()
    yield
    runner._data.cache_clear()


# A tiny experiment, of functions that another process can import.


def tune(context, *, rate, seed):
    """The try of 0.4 is the best on validation."""
    return {"validation_accuracy": 1 - abs(rate - 0.4)}


def make_teacher(context, *, width, seed):
    context.save_network(nn.Linear(width, 1))
    return {}


def teach(context, *, rate, seed):
    """Return what was drawn, what the teacher weighs, which process this is."""
    drawn, weight = torch.rand(()).item(), load(context.networks["teacher"])["weight"]
    context.save_network(nn.Linear(2, 1))
    found = {"drawn": drawn, "width": weight.shape[1], "test": len(context.data.test)}
    return found | {"threads": torch.get_num_threads(), "silent": os.getenv("TQDM_DISABLE")}


def die_once(context, *, rate, seed):
    """End the process, but only the first time."""
    mark = context.folder / "mark"
    if not mark.exists():
        mark.touch()
        os._exit(1)
    return {"rate_was": rate}


TRIES = tuple(Run(f"{TUNING}/{rate:g}/100", "tune", {"rate": rate}, 100) for rate in RATES)
BEST = Best("rate", tuple(run.key for run in TRIES))
PLAN = (
    *TRIES,
    Run("teacher", "make_teacher", {"width": 5}, 0, network="teacher", network_only=True),
    *(
        Run(f"methods/kd/{seed}", "teach", {}, seed, {"rate": BEST}, ("teacher",), "kd" if seed == 0 else "")
        for seed in range(2)
    ),
)
FUNCTIONS = {"tune": tune, "make_teacher": make_teacher, "teach": teach, "die_once": die_once}
TINY = Experiment("99_tiny", PLAN, FUNCTIONS, lambda name, record: nn.Linear(2, 1), ("methods", "drawn"))
TINY = replace(TINY, chosen={"chosen": {"kd": BEST}})


@pytest.fixture
def pool():
    return Pool(lambda: ThreadPoolExecutor(1), 1)


@pytest.fixture
def lines():
    return []


@pytest.fixture
def run(tmp_path, pool, lines):
    """A function that runs what is missing of an experiment, in this process."""

    def run_here(experiment=TINY, **settings):
        unfinished = Unfinished(experiment, folder=tmp_path, **settings)
        return run_missing(unfinished, pool, report=lines.append)

    return run_here


def ended(lines):
    return [line.partition("] ")[2].partition(":")[0] for line in lines]


def test_every_run_ends_once_after_those_that_it_depends_on(run, lines, tmp_path):
    results = run()
    assert ended(lines) == [each.key for each in PLAN]
    assert lines[0].startswith("[1/6] ")
    assert results.keys() == {each.key for each in PLAN} - {"teacher"} | {"chosen"}
    assert json.loads((tmp_path / "99_tiny.json").read_text()) == results
    lines.clear()
    assert run() == results
    assert lines == []


def test_of_those_that_can_begin_the_first_of_the_plan_begins(run, lines):
    first, second, third = TRIES
    waits = Run("methods/kd/1", "teach", {}, 1, {"rate": Best("rate", (first.key,))}, ("teacher",))
    plan = (PLAN[3], first, waits, second, third)
    run(replace(TINY, plan=plan, chosen={}))
    assert ended(lines) == [each.key for each in plan]


def test_a_record_has_what_was_found_and_its_settings(run):
    record = run()["methods/kd/1"]
    assert record["rate"] == 0.4  # what did best on validation
    assert (record["seed"], record["small"], record["width"], record["test"]) == (1, False, 5, 200)
    assert record["seconds"] >= 0
    assert record["torch"] == torch.__version__
    torch.manual_seed(1)
    assert record["drawn"] == torch.rand(()).item()


def test_what_the_runs_decided_is_stored_for_readers(run):
    assert run()["chosen"] == {"kd": 0.4}


def test_networks_are_stored_and_work_folders_are_gone(run, tmp_path):
    run()
    assert {file.name for file in (tmp_path / "99_tiny").iterdir()} == {
        "teacher.safetensors",
        "kd.safetensors",
    }
    assert isinstance(TINY.load_network("kd", folder=tmp_path), nn.Linear)


def test_trying_out_takes_a_few_images(run):
    assert run(small=True)["methods/kd/0"]["test"] == 100
    small = runner._data(True, with_test=True)
    assert [len(part) for part in vars(small).values()] == [1000, 500, 100]


def test_a_tuning_run_is_given_no_test_image(tmp_path):
    def read_test(context, **settings):
        return {"images": len(context.data.test)}

    record, _ = perform(read_test, Run("networks/x/0", ""), {}, {}, None, False)
    assert record["images"] == 200
    with pytest.raises(TypeError):
        perform(read_test, Run(f"{TUNING}/x/0", ""), {}, {}, None, False)


class Interrupted(Exception):
    pass


def test_what_was_interrupted_goes_on_with_what_is_missing(run, lines, tmp_path, pool):
    def stop(line):
        lines.append(line)
        if len(lines) == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        run_missing(Unfinished(TINY, folder=tmp_path), pool, report=stop)
    stored = set(TINY.load_results(folder=tmp_path))
    assert stored == {each.key for each in TRIES}
    lines.clear()
    run()
    assert ended(lines) == ["teacher", "methods/kd/0", "methods/kd/1"]


@pytest.mark.parametrize(
    ("other", "again"),
    [
        ({"methods/kd/1": {"rate": 0.1}}, ["methods/kd/1"]),
        ({"methods/kd/1": {"small": True}}, ["methods/kd/1"]),
        ({"methods/kd/0": {"seed": 7}}, ["methods/kd/0"]),
        # another try is the best, and so the others' settings are no longer these
        ({f"{TUNING}/1.6/100": {"validation_accuracy": 2.0}}, ["methods/kd/0", "methods/kd/1"]),
        # a try is run again: what depends on it waits, and is found to be as it was
        ({f"{TUNING}/0.1/100": {"rate": 0.2}}, [f"{TUNING}/0.1/100"]),
    ],
)
def test_a_run_of_other_settings_is_run_again_and_nothing_else(run, lines, tmp_path, other, again):
    results = run()
    changed = {key: results[key] | change for key, change in other.items()}
    write_results(results | changed, TINY.path(tmp_path))
    lines.clear()
    run()
    assert ended(lines) == again


@pytest.mark.parametrize(("name", "again"), [("kd", ["methods/kd/0"]), ("teacher", ["teacher"])])
def test_a_run_whose_network_is_gone_is_run_again(run, lines, tmp_path, name, again):
    run()
    (tmp_path / "99_tiny" / f"{name}.safetensors").unlink()
    lines.clear()
    run()
    assert ended(lines) == again


def test_settings_that_older_records_lack_are_taken_from_the_plan_but_not_if_they_are_there(
    run, lines, tmp_path
):
    results = run()
    old = replace(TINY, unrecorded=frozenset({"seed"}))
    write_results(
        results | {"methods/kd/1": {"rate": 0.4, "small": False}, "methods/kd/0": {"rate": 0.4, "seed": 5}},
        TINY.path(tmp_path),
    )
    assert [each.key for each in Unfinished(old, folder=tmp_path).runs] == ["methods/kd/0"]
    assert {each.key for each in Unfinished(TINY, folder=tmp_path).runs} == {"methods/kd/0", "methods/kd/1"}


def test_nested_settings_of_older_records_count_too(run, tmp_path):
    results = run()
    nested = {"settings": {"rate": 0.4, "seed": 1}}
    write_results(results | {"methods/kd/1": nested}, TINY.path(tmp_path))
    assert Unfinished(TINY, folder=tmp_path).runs == []


def test_a_failure_stops_only_what_depends_on_it_and_is_told_at_the_end(run, lines):
    def fail(context, **settings):
        raise ZeroDivisionError("broken")

    broken = replace(TINY, functions={**FUNCTIONS, "make_teacher": fail})
    with pytest.raises(ExceptionGroup, match="1 of 6 runs failed") as failure:
        run(broken)
    (error,) = failure.value.exceptions
    assert isinstance(error, ZeroDivisionError)
    assert error.__notes__ == ["in the run teacher"]
    assert lines[-1] == "[4/6] teacher failed: broken"
    lines.clear()
    run()  # mended
    assert ended(lines) == ["teacher", "methods/kd/0", "methods/kd/1"]


def test_runs_in_one_process_take_turns_because_chance_belongs_to_the_process(tmp_path):
    meanwhile = []

    def look(context, **settings):
        meanwhile.append(runner._ONE_AT_A_TIME.locked())
        assert not overlapping.is_set()
        overlapping.set()
        torch.rand(100_000).sort()
        overlapping.clear()
        return {}

    overlapping = threading.Event()
    with ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(perform, look, Run(f"x/{n}", ""), {}, {}, None, False) for n in range(8)]
        assert all(each.result() for each in runs)
    assert meanwhile == [True] * 8


def test_what_is_missing_is_forecast_by_stored_runs_of_alike_names(run, tmp_path):
    unfinished = Unfinished(TINY, folder=tmp_path)
    assert forecast(unfinished) == (
        "99_tiny: 6 of 6 runs are missing: about 0.0 hours of one worker, 6 of unknown length"
    )
    results = run()
    assert forecast(Unfinished(TINY, folder=tmp_path)) == "99_tiny: all 6 runs are stored, none is missing"
    results = {**results, "methods/kd/1": results["methods/kd/1"] | {"seconds": 7200.0}}
    del results["methods/kd/0"]
    write_results(results, TINY.path(tmp_path))
    assert forecast(Unfinished(TINY, folder=tmp_path)) == (
        "99_tiny: 1 of 6 runs are missing: about 2.0 hours of one worker"
    )


# Other processes, and a cluster.


@pytest.mark.alone
def test_local_processes_have_one_thread_no_progress_bars_and_a_death_costs_only_time(tmp_path, lines):
    mortal = Run("mortal/0", "die_once", {"rate": 0.5}, 0)
    experiment = replace(TINY, plan=(*PLAN, mortal))
    with training_pool(2) as pool:
        results = run_missing(Unfinished(experiment, folder=tmp_path), pool, report=lines.append)
    assert results["mortal/0"]["rate_was"] == 0.5
    assert sorted(ended(lines)) == sorted(each.key for each in experiment.plan)
    assert (results["methods/kd/0"]["threads"], results["methods/kd/0"]["silent"]) == (1, "1")
    assert "TQDM_DISABLE" not in os.environ
    torch.manual_seed(1)
    assert results["methods/kd/1"]["drawn"] == torch.rand(()).item()


@pytest.mark.alone
def test_a_cluster_comes_to_the_same_results_and_its_networks_come_back_as_bytes(run, tmp_path):
    distributed = pytest.importorskip("distributed", reason="the extra [cluster] is not installed")
    here = run()
    settings = {"processes": False, "host": "127.0.0.1", "protocol": "tcp://", "dashboard_address": ":0"}
    there_folder = tmp_path / "there"
    with (
        distributed.LocalCluster(1, 2, **settings) as cluster,
        training_pool(scheduler=cluster.scheduler_address) as pool,
    ):
        there = run_missing(Unfinished(TINY, folder=there_folder), pool, report=lambda line: None)
    assert there.keys() == here.keys()
    for key in ("methods/kd/0", "methods/kd/1"):
        assert {**there[key], "seconds": 0} == {**here[key], "seconds": 0}
    stored = {file.name for file in (there_folder / "99_tiny").iterdir()}
    assert stored == {"teacher.safetensors", "kd.safetensors"}
