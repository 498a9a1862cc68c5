"""The plan of the long runs: chosen by validation, kept as each one ends, none run twice."""

import json

import pytest
import torch
from safetensors.torch import save_file

from compresslab.errors import CompressionError
from compresslab.experiments.distillation import plan as experiments
from compresslab.experiments.distillation.methods import METHODS
from compresslab.experiments.distillation.plan import (
    HELD_OUT_SEEDS,
    LAB,
    LEARNING_RATES,
    SEEDS,
    TRIED_AT,
    load_results,
    load_student,
    run_experiments,
    summary,
    values,
)
from compresslab.experiments.long_runs import write_results
from compresslab.models.residual import student

BEST = {name: LEARNING_RATES[number % 3] for number, name in enumerate(("alone", *METHODS))}


def figures(job):
    """Made up: a try is best at BEST; test speaks for the others, loudly, wherever it may speak."""
    found = {"learning_rate": job.learning_rate, "small": False, "seconds": 1.0}
    found["validation_accuracy"] = 0.5
    if job.group == "tries":
        return found | {"validation_accuracy": 0.8 if job.learning_rate == BEST[job.method] else 0.7}
    if job.group == "held_out":
        return found | {"recall_at_1": 0.6, "one_shot_accuracy": 0.7}
    return found | {"test_accuracy": 0.8 + 0.001 * job.seed + 0.01 * (job.method != "alone")}


@pytest.fixture
def ran(monkeypatch, at_once):
    """The jobs that ran, in their order; nothing is trained."""
    jobs = []

    def perform(job, folder, small):
        jobs.append(job)
        return figures(job)

    monkeypatch.setattr(experiments, "perform", perform)
    monkeypatch.setattr(experiments, "workers", lambda jobs: at_once)
    monkeypatch.setattr(experiments, "_train_other_teachers", lambda data, folder, *, small: None)
    return jobs


def test_every_job_of_the_plan_has_a_name_of_its_own(ran, tmp_path):
    results = run_experiments(None, folder=tmp_path)
    keys = [job.key for job in ran]
    assert len(set(keys)) == len(keys)
    assert set(results) == {*keys, "learning_rates"}
    assert load_results(folder=tmp_path) == json.loads(json.dumps(results))


def test_the_plan_has_every_method_from_every_seed_and_three_tries_of_each(ran, tmp_path):
    run_experiments(None, folder=tmp_path)
    keys = {job.key for job in ran}
    for name in (*METHODS, "alone", "alone_long"):
        assert {f"methods/{name}/{seed}" for seed in SEEDS} <= keys
    for name in (*METHODS, "alone"):
        tries = [job for job in ran if job.group == "tries" and job.method == name]
        assert len({job.learning_rate for job in tries}) == 3  # the same effort for everybody
        assert {job.seed for job in tries} == {TRIED_AT}
    assert TRIED_AT not in (*SEEDS, *HELD_OUT_SEEDS)
    groups = {job.group for job in ran}
    beside = {"held_out", "teachers", "students", "transformers", "peers", "labels"}
    assert groups == {"tries", "methods", *beside}


def test_what_did_best_on_validation_is_what_the_table_uses(ran, tmp_path):
    results = run_experiments(None, folder=tmp_path)
    assert results["learning_rates"] == BEST
    for job in ran:
        if job.group not in ("tries", "transformers"):
            assert job.learning_rate == BEST["alone" if job.method == "alone_long" else job.method], job.key


def test_choosing_reads_validation_alone_and_takes_the_first_of_equals():
    accuracies = dict(zip(LEARNING_RATES, (0.7, 0.9, 0.9), strict=True))
    results = {f"tries/kd/{r:g}/{TRIED_AT}": {"validation_accuracy": a} for r, a in accuracies.items()}
    assert experiments._best(results, "kd") == LEARNING_RATES[1]
    for run, test in zip(results.values(), (0.99, 0.1, 0.5), strict=True):
        run["test_accuracy"] = test
    assert experiments._best(results, "kd") == LEARNING_RATES[1]


def test_what_was_interrupted_goes_on_with_what_is_missing(ran, tmp_path, monkeypatch):
    whole = run_experiments(None, folder=tmp_path / "whole")
    every, perform = [job.key for job in ran], experiments.perform
    ran.clear()

    def interrupted(job, folder, small):
        if len(ran) == 50:
            raise RuntimeError("the power failed")
        return perform(job, folder, small)

    monkeypatch.setattr(experiments, "perform", interrupted)
    with pytest.raises(RuntimeError, match="the power failed"):
        run_experiments(None, folder=tmp_path)
    kept = set(load_results(folder=tmp_path))
    monkeypatch.setattr(experiments, "perform", perform)
    ran.clear()
    assert run_experiments(None, folder=tmp_path) == whole
    assert {job.key for job in ran} == set(every) - kept
    assert 0 < len(ran) < len(every)
    ran.clear()
    assert run_experiments(None, folder=tmp_path) == whole
    assert ran == []


@pytest.mark.parametrize("other", [{"learning_rate": 7.0}, {"small": True}])
def test_a_run_of_other_settings_is_run_anew(ran, tmp_path, other):
    whole = run_experiments(None, folder=tmp_path)
    write_results(whole | {"methods/kd/0": whole["methods/kd/0"] | other}, tmp_path / f"{LAB}.json")
    ran.clear()
    assert run_experiments(None, folder=tmp_path) == whole
    assert [job.key for job in ran] == ["methods/kd/0"]


def test_before_the_first_run_there_are_no_results(tmp_path):
    assert load_results(folder=tmp_path) == {}


RESULTS = {
    "chosen": {"kd": 4.0},
    "methods/kd/10": {"test_accuracy": 0.5},
    "methods/kd/2": {"test_accuracy": 0.25},
    "methods/kd/0": {"test_accuracy": 0.125, "seconds": 3.0},
    "methods/kd_long/0": {"test_accuracy": 0.9},
    "students/kd/half/1": {"test_accuracy": 0.7},
    "tries/kd/4/100": {"validation_accuracy": 0.6},
}


def test_values_come_in_the_order_of_their_seeds():
    assert values(RESULTS, "methods", "kd") == [0.125, 0.25, 0.5]
    assert values(RESULTS, "students", "kd", "half") == [0.7]
    assert values(RESULTS, "tries", "kd", "4", key="validation_accuracy") == [0.6]
    assert values({"methods/kd/0": RESULTS["methods/kd/0"]}, "methods", "kd", key="seconds") == [3.0]


def test_a_run_of_another_name_is_refused_and_the_refusal_says_what_repeats_the_runs():
    text = (
        "^no run is called methods/sp/SEED; there are methods/kd, methods/kd_long, "
        f"students/kd/half, tries/kd/4. Repeat the runs with: compresslab train {LAB}$"
    )
    with pytest.raises(CompressionError, match=text):
        values(RESULTS, "methods", "sp")


def test_the_summary_has_a_row_a_method_the_best_first(ran, tmp_path):
    results = run_experiments(None, folder=tmp_path)
    for seed in SEEDS:
        results[f"methods/pkt/{seed}"]["test_accuracy"] = 0.9 + 0.001 * seed
        results[f"methods/sp/{seed}"]["test_accuracy"] = 0.7 + 0.001 * seed
    columns, rows = summary(results)
    names = [row[0] for row in rows]
    assert (names[0], names[-1]) == ("pkt", "sp")
    assert sorted(names) == sorted(["alone_long", *METHODS])
    assert {len(row) for row in rows} == {len(columns)}
    assert rows[0] == ("pkt", "+0.1000", "+0.1000 … +0.1000")
    assert rows[-1][1] == "-0.1000"


def test_a_stored_student_comes_back(tmp_path):
    torch.manual_seed(0)
    network = student()
    (tmp_path / LAB).mkdir()
    save_file(network.state_dict(), tmp_path / LAB / "held_out_rkd.safetensors")
    back = load_student("rkd", group="held_out", folder=tmp_path)
    assert not back.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor)
    text = (
        r"^no student of methods/rkd is kept; there are held_out_rkd\. "
        f"Repeat the runs with: compresslab train {LAB}$"
    )
    with pytest.raises(CompressionError, match=text):
        load_student("rkd", folder=tmp_path)
    with pytest.raises(CompressionError, match="there are none"):
        load_student("rkd", folder=tmp_path / "nowhere")
