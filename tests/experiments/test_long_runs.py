"""Long runs: kept as each one ends, none run twice, written whole; one thread a worker."""

import json
import os
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from compresslab.errors import CompressionError
from compresslab.experiments import long_runs
from compresslab.experiments.long_runs import (
    load_whole,
    read_results,
    run_missing,
    save_whole,
    values_by_seed,
    workers,
    write_results,
)


@dataclass(frozen=True)
class Job:
    key: str
    rate: float = 0.5


JOBS = [Job(f"group/name/{seed}") for seed in range(5)]
FOUND = {job.key: {"found": 2.0 * number, "rate": 0.5} for number, job in enumerate(JOBS)}


class Runs:
    """What runs the jobs, with what it already found; ``ran`` are those that ran, in their order."""

    def __init__(self, place, pool):
        self.place, self.pool, self.ran = place, pool, []

    def perform(self, job):
        self.ran.append(job)
        return {"found": 2.0 * JOBS.index(job)}

    def __call__(self, jobs=JOBS, perform=None):
        results = read_results(self.place)
        run_missing(
            jobs,
            perform or self.perform,
            settings=lambda job: {"rate": job.rate},
            results=results,
            place=self.place,
            pool=self.pool,
        )
        return results


@pytest.fixture
def runs(tmp_path, at_once):
    return Runs(tmp_path / "new" / "lab.json", at_once)


def test_every_job_runs_once_and_what_it_found_is_kept_with_its_settings(runs):
    assert runs() == FOUND
    assert runs.ran == JOBS
    assert read_results(runs.place) == FOUND
    assert runs() == FOUND
    assert runs.ran == JOBS  # not one of them again


def test_what_was_interrupted_goes_on_with_what_is_missing(runs):
    def interrupted(job):
        if job == JOBS[3]:
            raise RuntimeError("the power failed")
        return runs.perform(job)

    with pytest.raises(RuntimeError, match="the power failed"):
        runs(perform=interrupted)
    kept = read_results(runs.place)
    assert kept.items() <= FOUND.items()
    runs.ran.clear()
    assert runs() == FOUND
    assert {job.key for job in runs.ran} == FOUND.keys() - kept.keys()


def test_after_a_failure_nothing_that_waits_is_begun(runs, monkeypatch):
    def fail(job):
        raise ValueError("broken")

    asked = []
    monkeypatch.setattr(runs.pool, "shutdown", lambda **how: asked.append(how))
    with pytest.raises(ValueError, match="broken"):
        runs(perform=fail)
    assert asked == [{"wait": False, "cancel_futures": True}]
    assert not runs.place.exists()


def test_a_job_without_settings_runs_once_too(tmp_path, at_once):
    ran, results = [], {}
    for _ in range(2):
        run_missing(
            JOBS[:1],
            lambda job: ran.append(job) or {"found": 1},
            settings=lambda job: {},
            results=results,
            place=tmp_path / "one.json",
            pool=at_once,
        )
    assert ran == JOBS[:1]
    assert results == {JOBS[0].key: {"found": 1}}


@pytest.mark.parametrize("other", [{"rate": 7.0}, {"rate": None}])
def test_a_run_of_other_settings_is_run_anew(runs, other):
    write_results(FOUND | {JOBS[2].key: FOUND[JOBS[2].key] | other, "another/run/0": {}}, runs.place)
    assert runs() == FOUND | {"another/run/0": {}}
    assert runs.ran == [JOBS[2]]


def test_results_are_written_whole_after_every_run(runs, monkeypatch):
    write, written = long_runs.write_results, []

    def watched(results, place):
        write(results, place)
        written.append(read_results(place))

    monkeypatch.setattr(long_runs, "write_results", watched)
    runs()
    assert [len(results) for results in written] == [1, 2, 3, 4, 5]
    assert all(results.items() <= FOUND.items() for results in written)
    assert list(runs.place.parent.iterdir()) == [runs.place]


def test_results_are_json_in_the_order_of_their_keys(tmp_path):
    write_results({"b": {"y": 1.5}, "a": {"x": [0.1, None]}}, tmp_path / "one.json")
    assert list(json.loads((tmp_path / "one.json").read_text())) == ["a", "b"]
    assert read_results(tmp_path / "one.json") == {"a": {"x": [0.1, None]}, "b": {"y": 1.5}}
    assert read_results(tmp_path / "none.json") == {}


def interrupted(*places):
    raise KeyboardInterrupt


def test_an_interrupted_writing_leaves_the_results_before(tmp_path, monkeypatch):
    write_results(FOUND, tmp_path / "one.json")
    monkeypatch.setattr(long_runs.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_results({}, tmp_path / "one.json")
    assert read_results(tmp_path / "one.json") == FOUND


def test_a_network_is_saved_whole_or_what_was_there_stays(tmp_path, monkeypatch):
    place = tmp_path / "new" / "one.safetensors"
    network, other = nn.Linear(2, 3), nn.Linear(2, 3)
    save_whole(network, place)
    assert list(place.parent.iterdir()) == [place]
    monkeypatch.setattr(long_runs.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_whole(other, place)
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in load_file(place).items())


def test_a_worker_has_one_thread_and_no_progress_bar(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    with workers(1) as pool:
        threads = pool.submit(torch.get_num_threads)
        silent = pool.submit(os.getenv, "TQDM_DISABLE")
        assert (threads.result(), silent.result()) == (1, "1")
    assert "TQDM_DISABLE" not in os.environ


@pytest.mark.parametrize("before", ["0", None])
def test_progress_bars_are_afterwards_as_they_were(monkeypatch, at_once, before):
    monkeypatch.setattr(long_runs, "ProcessPoolExecutor", lambda jobs, **settings: at_once)
    if before is None:
        monkeypatch.delenv("TQDM_DISABLE", raising=False)
    else:
        monkeypatch.setenv("TQDM_DISABLE", before)
    meanwhile = []

    def stopped():
        with workers():
            meanwhile.append(os.environ["TQDM_DISABLE"])
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopped()
    assert (meanwhile, os.environ.get("TQDM_DISABLE")) == (["1"], before)


@pytest.mark.parametrize(("jobs", "processes"), [(3, 3), (None, os.cpu_count())])
def test_there_are_as_many_workers_as_asked_or_as_processors(monkeypatch, at_once, jobs, processes):
    def pool(jobs, **settings):
        made.append((jobs, settings))
        return at_once

    made = []
    monkeypatch.setattr(long_runs, "ProcessPoolExecutor", pool)
    with workers(jobs):
        pass
    ((number, settings),) = made
    assert number == processes
    assert settings["mp_context"].get_start_method() == "spawn"


RESULTS = {
    "chosen": {"kd": 4.0},
    "methods/kd/10": {"test_accuracy": 0.5},
    "methods/kd/2": {"test_accuracy": 0.25},
    "methods/kd/0": {"test_accuracy": 0.125, "seconds": 3.0},
    "methods/kd_long/0": {"test_accuracy": 0.9},
    "surgeon/0": {"magnitude": [0.5, 0.25]},
}


def values(*names, key="test_accuracy", results=RESULTS):
    return values_by_seed(results, *names, key=key, command="compresslab train LAB")


def test_values_come_in_the_order_of_their_seeds():
    assert values("methods", "kd") == [0.125, 0.25, 0.5]
    assert values("methods", "kd_long") == [0.9]
    assert values("surgeon", key="magnitude") == [[0.5, 0.25]]


@pytest.mark.parametrize(("names", "start"), [(("methods", "sp"), "methods/sp/"), (("methods",), "methods/")])
def test_a_run_of_another_name_is_refused(names, start):
    text = (
        f"^no run is called {start}SEED; there are methods/kd, methods/kd_long, surgeon. "
        "Repeat the runs with: compresslab train LAB$"
    )
    with pytest.raises(CompressionError, match=text):
        values(*names)


def test_where_nothing_ran_the_refusal_says_so():
    with pytest.raises(CompressionError, match=r"there are none\. Repeat the runs with: compresslab"):
        values("methods", "kd", results={"chosen": {}})


def test_a_key_that_not_every_run_has_is_refused():
    text = "^the runs methods/kd/SEED have no seconds; they have test_accuracy: choose one of those$"
    with pytest.raises(CompressionError, match=text):
        values("methods", "kd", key="seconds")


def test_results_that_are_damaged_are_named(tmp_path):
    (tmp_path / "lab.json").write_text("{")
    with pytest.raises(CompressionError, match=r"lab\.json can't be read \(.+\); it keeps"):
        read_results(tmp_path / "lab.json")


def test_a_network_comes_back_from_its_file_and_another_one_is_refused(tmp_path):
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    save_whole(one, tmp_path / "one.safetensors")
    assert torch.equal(load_whole(tmp_path / "one.safetensors", into=other).weight, one.weight)
    with pytest.raises(CompressionError, match="it holds what a long run found"):
        load_whole(tmp_path / "one.safetensors", into=nn.Linear(4, 2))
