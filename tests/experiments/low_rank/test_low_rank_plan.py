"""The plan of lab 04's long runs: scans and tries choose, each is kept as it ends, none runs twice."""

import itertools
import json

import pytest
import torch
from torch import nn

from compresslab.errors import CompressionError
from compresslab.experiments import bench
from compresslab.experiments.long_runs import write_results
from compresslab.experiments.low_rank import plan as experiments
from compresslab.experiments.low_rank import runs
from compresslab.experiments.low_rank.plan import (
    BUDGETS,
    COMPARED,
    KEPT_SEED,
    LAB,
    LONG_RATES,
    MLP_BUDGET,
    MLP_RATES,
    NETWORKS,
    PASS,
    SEEDS,
    SHARES,
    SHORT_RATES,
    TRIED_AT,
    TRIED_LONG,
    TRIED_SHORT,
    UPDATES,
    load_results,
    run_experiments,
    summary,
    values,
)
from compresslab.measurement.costs import count_macs
from compresslab.models.residual import ResidualNetwork
from compresslab.techniques.low_rank.factorization import thin_like
from compresslab.techniques.low_rank.layer_splits import CHANNELS, SPLITS

ONE = torch.zeros(1, 1, 28, 28)
RATES = (
    {("long", name): LONG_RATES for name in TRIED_LONG}
    | {("long", "svd_mlp"): MLP_RATES}
    | {("short", way): SHORT_RATES for way in TRIED_SHORT}
)
BEST = {tried: rates[place % 3] for place, (tried, rates) in enumerate(RATES.items(), start=1)}  # made up


def tiny(name="baseline", seed=5):
    """Stands for a trained network."""
    torch.manual_seed(seed)
    sides = (784, 30, 400)
    hidden = [(nn.Linear(m, n), nn.ReLU()) for m, n in itertools.pairwise(sides)]
    perceptron = nn.Sequential(nn.Flatten(), *itertools.chain(*hidden), nn.Linear(400, 10))
    return (ResidualNetwork(8, [(16, 2), (16, 2)]) if name == "baseline" else perceptron).eval()


def tried(key):
    """("long" or "short", what) of the key of a try."""
    return tuple(key.split("/")[1:3])


def figures(job):
    """Made up: tries speak by validation alone, the others, loudly, by test."""
    if job.key.startswith("scan/"):
        return {"damages": {}}
    if job.key.startswith("tries/"):
        return {"validation_accuracy": 0.8 if job.settings["learning_rate"] == BEST[tried(job.key)] else 0.7}
    found = {"validation_accuracy": 0.99, "test_accuracy": 0.8 + 0.001 * job.settings["seed"]}
    return found | {"macs_per_sample": 12_345}


def made_up_ranks(model, inputs, damages, *, shares, macs_per_sample, split, multiple):
    """Stands for the ranks under a budget; says what was asked."""
    assert (shares, multiple) == (SHARES, experiments.MULTIPLE)
    return {"split": (macs_per_sample, 0) if split is SPLITS["tucker"] else macs_per_sample}


def of_group(jobs, group):
    """{the key without its group: the settings} of the jobs of that group."""
    keys = {job.key.partition("/"): job.settings for job in jobs}
    return {rest: settings for (first, _, rest), settings in keys.items() if first == group}


@pytest.fixture(autouse=True)
def small_world(monkeypatch):
    """Tiny networks of random weights for the trained ones."""
    for page in (experiments, runs):
        monkeypatch.setattr(page, "load_baseline", tiny)


@pytest.fixture
def ran(monkeypatch, at_once):
    """The jobs that ran, in their order; nothing is trained."""
    jobs = []

    def perform(job, folder, small):
        jobs.append(job)
        return figures(job)

    monkeypatch.setattr(bench, "perform", perform)
    monkeypatch.setattr(bench, "workers", lambda jobs: at_once)
    monkeypatch.setattr(experiments, "ranks_under_budget", made_up_ranks)
    return jobs


# the plan


def test_every_job_of_the_plan_has_a_key_of_its_own_and_its_settings_are_json(ran, tmp_path):
    results = run_experiments(folder=tmp_path)
    keys = [job.key for job in ran]
    assert len(set(keys)) == len(keys)
    assert set(results) == {*keys, "chosen"}
    assert load_results(folder=tmp_path) == results
    for job in ran:
        assert json.loads(json.dumps(job.settings)) == job.settings
        assert results[job.key] == figures(job) | job.settings | {"small": False}


def test_every_named_network_is_made_once_at_the_seed_whose_networks_are_kept(ran, tmp_path):
    run_experiments(folder=tmp_path)
    networks = of_group(ran, "networks")
    assert networks.keys() == {f"{name}/{KEPT_SEED}" for name in (*NETWORKS, "svd_mlp")}
    assert {settings["seed"] for settings in networks.values()} == {KEPT_SEED} < set(SEEDS)
    whole = count_macs(tiny(), ONE)
    for name, (way, budget) in NETWORKS.items():
        asked, macs = networks[f"{name}/{KEPT_SEED}"], int(whole / budget)
        assert (asked["network"], asked["way"]) == ("baseline", way)
        assert asked["ranks"] == {"split": [macs, 0] if way == "tucker" else macs}
    assert networks[f"svd_mlp/{KEPT_SEED}"]["network"] == "mlp"
    assert len({networks[f"{name}/{KEPT_SEED}"]["epochs"] for name in NETWORKS}) == 1  # rivals learn alike


def test_everything_is_compared_at_every_seed_and_budget_with_one_training(ran, tmp_path):
    run_experiments(folder=tmp_path)
    tuned, whole = of_group(ran, "tuned"), count_macs(tiny(), ONE)
    points = [*itertools.product(COMPARED, BUDGETS), ("random", 2.0), ("channels", 2.0)]
    assert tuned.keys() == {f"{way}/{budget:g}/{seed}" for way, budget in points for seed in SEEDS}
    for (way, budget), seed in itertools.product(points, SEEDS):
        asked, macs = tuned[f"{way}/{budget:g}/{seed}"], int(whole / budget)
        assert (asked["way"], asked["images"], asked["seed"]) == (way, PASS, seed)
        assert asked["ranks"] == {"split": [macs, 0] if way in ("tucker", "random") else macs}
    adapted = {"all", "head", *(f"update_{rank}" for rank in UPDATES)}
    assert of_group(ran, "adapting").keys() == {f"{way}/{seed}" for way in adapted for seed in SEEDS}
    assert of_group(ran, "beginning").keys() == {f"{seed}" for seed in SEEDS}
    assert of_group(ran, "scan").keys() == set(COMPARED)
    groups = {job.key.partition("/")[0] for job in ran}
    assert groups == {"scan", "tries", "networks", "tuned", "beginning", "adapting"}
    assert [*dict.fromkeys(job.key.partition("/")[0] for job in ran)][:3] == ["scan", "tries", "networks"]


def test_tries_differ_in_nothing_but_the_learning_rate_and_have_a_seed_of_their_own(ran, tmp_path):
    run_experiments(folder=tmp_path)
    tries = {key: job.settings for job in ran if (key := job.key).startswith("tries/")}
    assert {settings["seed"] for settings in tries.values()} == {TRIED_AT}
    assert TRIED_AT not in SEEDS
    for of, rates in RATES.items():
        mine = [settings for key, settings in tries.items() if tried(key) == of]
        assert [settings["learning_rate"] for settings in mine] == [*rates]
        rest = [{**settings, "learning_rate": None} for settings in mine]
        assert all(settings == rest[0] for settings in rest)
    assert len(tries) == sum(map(len, RATES.values()))


def test_what_did_best_on_validation_is_what_the_others_use(ran, tmp_path):
    chosen = run_experiments(folder=tmp_path)["chosen"]
    long = {name: rate for (length, name), rate in BEST.items() if length == "long"}
    short = {way: rate for (length, way), rate in BEST.items() if length == "short"}
    assert chosen["long"] == long | {"space": long["tucker"], "cp": long["tucker"]}
    assert chosen["short"] == short | {"channels": short["whitened"]}
    for key, settings in of_group(ran, "networks").items():
        assert settings["learning_rate"] == chosen["long"][key.partition("/")[0]]
    for settings in of_group(ran, "tuned").values():
        assert settings["learning_rate"] == chosen["short"][settings["way"]]


def test_each_choice_follows_validation_of_its_own_tries_alone_of_equals_the_first(ran, tmp_path):
    run_experiments(folder=tmp_path)
    tries = {key: job.settings["learning_rate"] for job in ran if (key := job.key).startswith("tries/")}
    equal = {key: {"validation_accuracy": 0.5, "test_accuracy": 0.9} for key in tries}
    first = experiments._choose(equal)
    assert {of: first[of[0]][of[1]] for of in RATES} == {of: rates[0] for of, rates in RATES.items()}
    for key, rate in tries.items():
        shout, better = ({key: {"validation_accuracy": v, "test_accuracy": 1.5 - v}} for v in (0.5, 0.6))
        assert experiments._choose(equal | shout) == first
        now = experiments._choose(equal | better)
        assert {of: now[of[0]][of[1]] for of in RATES} == {
            of: rate if of == tried(key) else rates[0] for of, rates in RATES.items()
        }


@pytest.mark.parametrize("small", [True, False])
def test_what_was_interrupted_goes_on_with_what_is_missing(ran, tmp_path, monkeypatch, small):
    whole = run_experiments(folder=tmp_path / "whole", small=small)
    every, perform = {job.key for job in ran}, bench.perform
    ran.clear()

    def interrupted(job, folder, small):
        if len(ran) == 40:
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


@pytest.mark.parametrize("other", [{"epochs": 1}, {"ranks": {}}, {"small": True}])
def test_a_run_of_other_settings_is_run_anew(ran, tmp_path, other):
    whole = run_experiments(folder=tmp_path)
    write_results(whole | {"beginning/1": whole["beginning/1"] | other}, tmp_path / f"{LAB}.json")
    ran.clear()
    assert run_experiments(folder=tmp_path) == whole
    assert [job.key for job in ran] == ["beginning/1"]


# how thin


@pytest.mark.parametrize("way", [*COMPARED, "channels", "random"])
def test_ranks_of_a_budget_meet_its_macs(monkeypatch, way):
    monkeypatch.setattr(experiments, "MULTIPLE", 1)
    scanned = experiments.PLANNED_AS.get(way, way)
    split = SPLITS.get(scanned, CHANNELS)
    layers = [f"blocks.{block}.conv{n}" for block in (0, 1) for n in (1, 2)]
    damages = {name: [0.01 * (place + 1) for place in range(len(SHARES))] for name in layers}
    plans = experiments._Plans({f"scan/{scanned}": {"damages": damages}})
    whole = count_macs(tiny(), ONE)
    macs = []
    for budget in (1.2, 1.5, 2.0):
        ranks = plans.ranks(way, budget)
        assert json.loads(json.dumps(ranks)) == ranks
        macs.append(count_macs(thin_like(tiny(), runs.as_ranks(ranks), split=split), ONE))
        assert macs[-1] <= whole / budget
    assert macs[0] > macs[1] > macs[2] > 0.3 * whole  # and use what they may


def test_the_perceptrons_hidden_layers_meet_their_budget_and_use_it(monkeypatch):
    perceptron = tiny("mlp")
    with torch.no_grad():
        for layer in (
            perceptron[1],
            perceptron[3],
        ):  # some directions matter more than others, as in trained ones
            u, s, v = torch.linalg.svd(layer.weight, full_matrices=False)
            layer.weight.copy_(u * (s * 0.7 ** torch.arange(len(s))) @ v)
    monkeypatch.setattr(experiments, "load_baseline", lambda name="baseline": perceptron)
    ranks = experiments._Plans({}).of_perceptron()
    assert ranks.keys() == {"1", "3"}  # the last layer stays whole
    assert min(ranks.values()) > 1
    thin, whole = count_macs(thin_like(perceptron, ranks), ONE), count_macs(perceptron, ONE)
    assert whole / MLP_BUDGET - (30 + 400) < thin <= whole / MLP_BUDGET  # no room for one more rank


def test_values_come_by_seed_and_a_missing_run_says_what_repeats_them(ran, tmp_path):
    results = run_experiments(folder=tmp_path)
    assert values(results, "networks", "cp") == [0.8]
    assert values(results, "tuned", "random", "2") == [0.8, 0.801, 0.802]
    assert values(results, "adapting", "update_4", key="rank") == [4] * 3
    says = f"no run is called networks/none/SEED; .* Repeat the runs with: compresslab train {LAB}$"
    with pytest.raises(CompressionError, match=says):
        values(results, "networks", "none")


def test_the_summary_has_a_row_a_network(ran, tmp_path):
    columns, rows = summary(run_experiments(folder=tmp_path))
    assert columns == ("network", "test accuracy", "MACs")
    assert sorted(rows) == [(name, "0.8000", "12,345") for name in sorted((*NETWORKS, "svd_mlp"))]
    assert summary({})[1] == []
