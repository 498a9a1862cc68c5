"""The plan of lab 03's long runs: validation of tries chooses, each is kept as it ends, none runs twice."""

import itertools
import json
import re

import pytest
import torch

from compresslab.errors import CompressionError
from compresslab.experiments import bench
from compresslab.experiments.long_runs import write_results
from compresslab.experiments.pruning import plan as experiments
from compresslab.experiments.pruning import runs, studies
from compresslab.experiments.pruning.methods import CHANNEL_CHOICES, CRITERIA, GRANULARITIES
from compresslab.experiments.pruning.plan import (
    CHOICES,
    COMPARED,
    LAB,
    LEARNING_RATES,
    PASS,
    RAMPS,
    SEEDED,
    SEEDS,
    TRIED_AT,
    TUNED,
    load_network,
    load_results,
    run_experiments,
    summary,
    values,
)
from compresslab.models.pretrained import load_baseline
from compresslab.models.residual import ResidualNetwork
from compresslab.storage import save_model
from compresslab.techniques.pruning import prune_by_magnitude
from compresslab.techniques.pruning.channel_removal import remove_channels
from compresslab.techniques.pruning.sparse_layers import store_sparsely

NETWORKS = {
    "channel",
    "channel_any_width",
    "torch_pruning",
    "fine_90",
    "fine_95_oneshot",
    "fine_95_iterative",
    "nm_2_4",
}
BEST = {  # made up: what does best on validation, for each of those that are chosen
    "fine": {"learning_rate": LEARNING_RATES["fine"][0]},
    "nm_2_4": {"learning_rate": LEARNING_RATES["nm_2_4"][1]},
    "channel": {"choice": CHOICES["channel"][1], "learning_rate": LEARNING_RATES["channel"][0]},
    "channel_any_width": {
        "choice": CHOICES["channel_any_width"][0],
        "learning_rate": LEARNING_RATES["channel"][1],
    },
}


def choice_of(job):
    """Which of the four choices a try is for."""
    kind, choice = job.key.split("/")[1], job.settings.get("choice")
    return next((network for network, choices in CHOICES.items() if choice in choices), kind)


def figures(job):
    """Made up: tries speak by validation alone, the others, loudly, by test."""
    if job.key.startswith("tries"):
        best = BEST[choice_of(job)].items() <= job.settings.items()
        return {"validation_accuracy": 0.8 if best else 0.7}
    found = {"validation_accuracy": 0.99, "test_accuracy": 0.8 + 0.001 * job.settings.get("seed", 0)}
    return found | ({"storage_bytes": 12_345} if job.key.startswith("networks") else {})


def of_group(jobs, group):
    """{the key without its group: the job} of the jobs of that group."""
    keys = {job.key.partition("/"): job for job in jobs}
    return {rest: job for (first, _, rest), job in keys.items() if first == group}


@pytest.fixture
def ran(monkeypatch, at_once):
    """The jobs that ran, in their order; nothing is trained."""
    jobs = []

    def perform(job, folder, small):
        jobs.append(job)
        return figures(job)

    monkeypatch.setattr(bench, "perform", perform)
    monkeypatch.setattr(bench, "workers", lambda jobs: at_once)
    monkeypatch.setattr(experiments, "_allowed_macs", lambda: 10_000_000)
    return jobs


def test_every_job_of_the_plan_has_a_key_of_its_own_and_its_settings_are_json(ran, tmp_path):
    results = run_experiments(folder=tmp_path)
    keys = [job.key for job in ran]
    assert len(set(keys)) == len(keys)
    assert set(results) == {*keys, "chosen"}
    assert load_results(folder=tmp_path) == results
    for job in ran:
        assert json.loads(json.dumps(job.settings)) == job.settings
        assert results[job.key] == figures(job) | job.settings | {"small": False}


def test_every_network_that_is_named_is_made_once_at_the_seed_whose_networks_are_kept(ran, tmp_path):
    run_experiments(folder=tmp_path)
    networks = of_group(ran, "networks")
    assert networks.keys() == {f"{name}/{runs.KEPT_SEED}" for name in NETWORKS}
    assert {job.settings["seed"] for job in networks.values()} == {runs.KEPT_SEED} < set(SEEDS)


def test_rivals_are_trained_alike_and_as_long(ran, tmp_path):
    run_experiments(folder=tmp_path)
    networks = {key.partition("/")[0]: job.settings for key, job in of_group(ran, "networks").items()}
    ours, theirs = networks["channel_any_width"], networks["torch_pruning"]
    assert ours | {"choice": "torch_pruning"} == theirs
    assert theirs["learning_rate"] == BEST["channel_any_width"]["learning_rate"]
    assert {networks[name]["macs"] for name in (*CHOICES, "torch_pruning")} == {10_000_000}
    assert {networks[name]["epochs"] for name in (*CHOICES, "torch_pruning")} == {ours["epochs"]}
    ramps = [networks[f"fine_95_{name}"] for name in ("oneshot", "iterative")]
    assert len({s["rounds"] * s["epochs"] + s["more"] for s in ramps}) == 1
    assert [s["rounds"] > 1 for s in ramps] == [False, True]
    assert {(s["sparsity"], s["learning_rate"]) for s in ramps} == {(0.95, BEST["fine"]["learning_rate"])}


def test_everything_is_compared_and_what_has_chance_in_it_at_every_seed(ran, tmp_path):
    run_experiments(folder=tmp_path)
    keys = {job.key for job in ran}
    for seed in SEEDS:
        for granularity in GRANULARITIES:
            for criterion in CRITERIA:
                chance = criterion != "magnitude" and granularity in SEEDED
                assert (f"masks/{criterion}/{granularity}/{seed}" in keys) == (chance or seed == SEEDS[0])
                for sparsity in TUNED if criterion == "magnitude" else COMPARED[granularity]:
                    assert f"tuned/{criterion}/{granularity}/{sparsity:g}/{seed}" in keys
        alone = {f"allocation/{name}/{seed}" for name in studies.ALLOCATIONS}
        assert alone | {f"surgeon/{seed}", f"lottery/{seed}"} <= keys
    assert "scan" in keys
    groups = {key.partition("/")[0] for key in keys}
    assert groups == {"tries", "networks", "scan", "surgeon", "masks", "tuned", "allocation", "lottery"}


def test_what_did_best_on_validation_is_what_the_others_use(ran, tmp_path):
    results = run_experiments(folder=tmp_path)
    assert results["chosen"] == BEST
    used = {key.partition("/")[0]: job.settings for key, job in of_group(ran, "networks").items()}
    fine = dict.fromkeys(RAMPS, BEST["fine"])
    for network, best in (fine | {name: BEST[name] for name in ("nm_2_4", *CHOICES)}).items():
        assert best.items() <= used[network].items(), network
    short = [job.settings for job in ran if job.run in (studies.study_tuning, studies.study_allocation)]
    assert {settings["learning_rate"] for settings in short} == {BEST["fine"]["learning_rate"]}


def test_tries_differ_in_nothing_but_what_they_choose_and_have_a_seed_of_their_own(ran, tmp_path):
    run_experiments(folder=tmp_path)
    tries = of_group(ran, "tries").values()
    assert {job.settings["seed"] for job in tries} == {TRIED_AT}
    assert TRIED_AT not in SEEDS
    rest = {name: [] for name in BEST}
    for job in tries:
        rest[choice_of(job)].append({k: v for k, v in job.settings.items() if k not in BEST["channel"]})
    assert all(settings == alike[0] for alike in rest.values() for settings in alike)
    widths = {name: len(choices) * len(LEARNING_RATES["channel"]) for name, choices in CHOICES.items()}
    rates = {name: len(LEARNING_RATES[name]) for name in ("fine", "nm_2_4")}
    assert {name: len(alike) for name, alike in rest.items()} == rates | widths
    assert {*itertools.chain(*CHOICES.values())} <= CHANNEL_CHOICES.keys()
    assert all(choice.endswith("_of_eight") for choice in CHOICES["channel"])


def test_the_choice_for_each_network_follows_validation_of_its_own_tries_alone(ran, tmp_path):
    run_experiments(folder=tmp_path)
    tries = {job.key: job for job in ran if job.key.startswith("tries/")}
    equal = {key: {"validation_accuracy": 0.5, "test_accuracy": 0.9} for key in tries}
    first = experiments._choose(equal)
    assert first == {  # of equals the first
        **{name: {"learning_rate": LEARNING_RATES[name][0]} for name in ("fine", "nm_2_4")},
        **{n: {"choice": c[0], "learning_rate": LEARNING_RATES["channel"][0]} for n, c in CHOICES.items()},
    }
    for key, job in tries.items():
        shout, better = ({key: {"validation_accuracy": v, "test_accuracy": 1.5 - v}} for v in (0.5, 0.6))
        assert experiments._choose(equal | shout) == first
        mine = {choice_of(job): {name: job.settings[name] for name in first[choice_of(job)]}}
        assert experiments._choose(equal | better) == first | mine, key


@pytest.mark.parametrize("small", [True, False])
def test_what_was_interrupted_goes_on_with_what_is_missing(ran, tmp_path, monkeypatch, small):
    whole = run_experiments(folder=tmp_path / "whole", small=small)
    every, perform = {job.key for job in ran}, bench.perform
    ran.clear()

    def interrupted(job, folder, small):
        if len(ran) == 50:
            raise RuntimeError("the power failed")
        return perform(job, folder, small)

    monkeypatch.setattr(bench, "perform", interrupted)
    with pytest.raises(RuntimeError, match="the power failed"):
        run_experiments(folder=tmp_path, small=small)
    kept = set(load_results(folder=tmp_path))
    monkeypatch.setattr(bench, "perform", perform)
    ran.clear()
    assert run_experiments(folder=tmp_path, small=small) == whole
    assert {job.key for job in ran} == every - kept
    assert 0 < len(ran) < len(every)
    ran.clear()
    assert run_experiments(folder=tmp_path, small=small) == whole
    assert ran == []


@pytest.mark.parametrize("other", [{"sparsities": [0.5]}, {"small": True}])
def test_a_run_of_other_settings_is_run_anew(ran, tmp_path, other):
    whole = run_experiments(folder=tmp_path)
    write_results(whole | {"surgeon/1": whole["surgeon/1"] | other}, tmp_path / f"{LAB}.json")
    ran.clear()
    assert run_experiments(folder=tmp_path) == whole
    assert [job.key for job in ran] == ["surgeon/1"]


def test_our_network_may_cost_what_torch_prunings_does():
    keep = CHANNEL_CHOICES["torch_pruning"](None, None, 0)
    theirs, x = remove_channels(load_baseline(), keep), torch.zeros(1, 1, 28, 28)
    macs = 0

    def note(layer, inputs, output):
        nonlocal macs
        macs += layer.weight[0].numel() * output.numel()

    for layer in theirs.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(note)
    theirs(x)
    assert experiments._allowed_macs() == macs


def test_values_come_by_seed_and_a_missing_run_says_what_repeats_them(ran, tmp_path):
    results = run_experiments(folder=tmp_path)
    assert values(results, "networks", "channel") == [0.8]
    assert values(results, "masks", "taylor", "channel") == [0.8, 0.801, 0.802]
    assert values(results, "tuned", "magnitude", "fine", "0.9", key="images") == [PASS] * 3
    says = f"no run is called networks/none/SEED; .* Repeat the runs with: compresslab train {LAB}$"
    with pytest.raises(CompressionError, match=says):
        values(results, "networks", "none")


def test_the_summary_has_a_row_a_network(ran, tmp_path):
    columns, rows = summary(run_experiments(folder=tmp_path))
    assert columns == ("network", "test accuracy", "bytes")
    assert sorted(rows) == [(name, "0.8000", "12,345") for name in sorted(NETWORKS)]
    assert summary({})[1] == []


def test_a_thin_sparse_network_comes_back_with_its_outputs(tmp_path, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(experiments, "load_baseline", lambda: ResidualNetwork(4, [(6, 2)]))
    keep = {"blocks.0.conv1": [0, 3], "stem.0": [1, 2, 3]}
    network = prune_by_magnitude(remove_channels(ResidualNetwork(4, [(6, 2)]), keep), sparsity=0.6).eval()
    save_model(store_sparsely(network), tmp_path / LAB / "thin.safetensors")
    widths = {"blocks.0.conv1": 2, "stem.0": 3}
    write_results({"networks/thin/0": {"channels": widths}}, tmp_path / f"{LAB}.json")
    back, x = load_network("thin", folder=tmp_path), torch.randn(3, 1, 28, 28)
    assert not any(module.training for module in back.modules())
    with torch.no_grad():
        assert torch.equal(back(x), network(x))
    text = f"no network 'thick' is kept; there are thin. Repeat the runs with: compresslab train {LAB}"
    with pytest.raises(CompressionError, match=f"^{re.escape(text)}$"):
        load_network("thick", folder=tmp_path)
    with pytest.raises(CompressionError, match=r"no network 'thin' is kept; there are none\."):
        load_network("thin", folder=tmp_path / "nowhere")
