"""Laws of every plan, as data; and all its runs are stored; of one under way, those stored are its own."""

import itertools
import json
import re
from collections import defaultdict

import pytest
import torch

from compresslab.errors import BadSetting
from compresslab.experiments import all_experiments, experiments_under_way, find_experiment
from compresslab.experiments.distillation.methods import METHODS
from compresslab.experiments.experiment import TUNING, Best
from compresslab.experiments.pruning.methods import CHANNEL_CHOICES, CRITERIA, GRANULARITIES
from compresslab.experiments.pruning.plan import ALLOWED_MACS, CHOICES
from compresslab.experiments.results import RESULTS, record_settings, summarize
from compresslab.experiments.runner import Unfinished, forecast
from compresslab.models.pretrained import load_baseline
from compresslab.techniques.pruning.channel_removal import remove_channels

EXPERIMENTS = all_experiments()
UNDER_WAY = experiments_under_way()
EVERY = {**EXPERIMENTS, **UNDER_WAY}
every_experiment = pytest.mark.parametrize("experiment", EVERY.values(), ids=EVERY.keys())
under_way = pytest.mark.parametrize("experiment", UNDER_WAY.values(), ids=UNDER_WAY.keys())
every_lab = pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS.keys())


def by_key(lab):
    return {run.key: run for run in EXPERIMENTS[lab].plan}


def bests(chosen):
    """Every ``Best`` in a nested dictionary."""
    for each in chosen.values():
        yield from [each] if isinstance(each, Best) else bests(each)


@every_experiment
def test_keys_and_networks_are_unique(experiment):
    keys = [run.key for run in experiment.plan]
    networks = [run.network for run in experiment.plan if run.network]
    assert len(set(keys)) == len(keys)
    assert len(set(networks)) == len(networks)


@every_experiment
def test_settings_are_json_and_functions_exist(experiment):
    for run in experiment.plan:
        assert json.loads(json.dumps(run.settings)) == run.settings, run.key
        assert run.function in experiment.functions, run.key
        assert not run.settings.keys() & run.derived.keys()


@every_experiment
def test_what_a_run_depends_on_comes_before_it_and_has_a_network_where_that_is_needed(experiment):
    before = {}
    for run in experiment.plan:
        assert run.depends_on <= before.keys(), run.key
        assert all(before[key].network for key in run.after), run.key
        before[run.key] = run


@every_experiment
def test_a_key_ends_with_the_seed(experiment):
    for run in experiment.plan:
        if run.seed is not None and not run.network_only:
            assert run.key.rpartition("/")[2] == str(run.seed)


@every_experiment
def test_seeds_are_complete(experiment):
    seeds = defaultdict(set)
    for run in experiment.plan:
        if run.group != TUNING and run.seed is not None:
            seeds[run.key.rpartition("/")[0]].add(run.seed)
    for name, there in seeds.items():
        assert there == set(range(len(there))), name


@every_experiment
def test_tuning_runs_have_a_seed_of_their_own_and_only_they_choose(experiment):
    tries = {run.key: run for run in experiment.plan if run.group == TUNING}
    reported = {run.seed for run in experiment.plan if run.group != TUNING}
    assert {run.seed for run in tries.values()} & reported == set()
    chosen = [*bests(experiment.chosen)]
    chosen += [each for run in experiment.plan for each in run.derived.values() if isinstance(each, Best)]
    for best in chosen:
        assert set(best.after) <= tries.keys()
        assert all(best.setting in tries[key].settings | tries[key].derived for key in best.after)
    assert {key for best in chosen for key in best.after} == tries.keys()


@every_experiment
def test_tries_among_which_is_chosen_differ_only_in_what_is_chosen(experiment):
    plan = {run.key: run for run in experiment.plan}
    choices = defaultdict(set)
    for best in bests(experiment.chosen):
        choices[best.after].add(best.setting)
    for keys, settings in choices.items():
        tries = [plan[key] for key in keys]
        points = [
            tuple(str((run.settings | run.derived)[name]) for name in sorted(settings)) for run in tries
        ]
        assert len(set(points)) == len(points) > 1
        for part in ("settings", "derived"):
            alike = [{k: v for k, v in getattr(run, part).items() if k not in settings} for run in tries]
            assert all(each == alike[0] for each in alike)
        assert len({(run.function, run.seed, run.after) for run in tries}) == 1


@every_lab
def test_every_stored_run_is_found_and_none_is_started(experiment):
    unfinished = Unfinished(experiment)
    assert [run.key for run in unfinished.runs] == []
    assert forecast(unfinished).endswith("are stored, none is missing")
    recorded = {run.key for run in experiment.plan if not run.network_only}
    assert unfinished.results.keys() == recorded | experiment.chosen.keys()
    before = json.dumps(unfinished.results)
    unfinished.conclude()
    assert json.dumps(unfinished.results) == before  # what the runs decide is what is stored


@every_lab
def test_every_stored_network_is_named_in_the_plan_and_loads(experiment):
    folder = experiment.network_path("x", RESULTS).parent
    names = {run.network for run in experiment.plan if run.network}
    assert {file.stem for file in folder.glob("*.safetensors")} == names
    for name in names:
        assert not experiment.load_network(name).training
    known = ", ".join(run.network for run in experiment.plan if run.network)
    text = (
        f"name must be one of the stored networks ({known}), got 'x'; repeat the runs with: compresslab train"
    )
    with pytest.raises(BadSetting, match=f"^{re.escape(text)} {experiment.lab}$"):
        experiment.load_network("x")


@under_way
def test_stored_runs_of_an_experiment_under_way_are_its_own_and_none_is_started_again(experiment):
    stored, unfinished = experiment.load_results(), Unfinished(experiment)
    assert stored == unfinished.results  # none has become needless
    recorded = {run.key for run in experiment.plan if not run.network_only}
    assert stored.keys() <= recorded | experiment.chosen.keys()
    assert stored.keys() & {run.key for run in unfinished.runs} == set()


@under_way
def test_stored_networks_of_an_experiment_under_way_are_those_of_stored_runs_and_load(experiment):
    stored = experiment.load_results()
    kept = {run.network for run in experiment.plan if run.network and run.key in stored}
    assert {file.stem for file in experiment.network_path("x", RESULTS).parent.glob("*.safetensors")} == kept
    assert not any(experiment.load_network(name).training for name in kept)


@every_lab
def test_what_the_command_line_prints_has_a_row_per_run_of_its_group(experiment):
    group, *keys = experiment.summary
    rows = summarize(experiment.load_results(), group, *keys)
    assert len(rows) >= 4
    assert all(len(row) == 1 + len(keys) for row in rows)


@every_experiment
def test_tries_have_no_result_of_test_images(experiment):
    for key, record in experiment.load_results().items():
        if key.startswith(TUNING):
            assert not [name for name in record if "test" in name or name.startswith(("recall", "one_shot"))]


def test_an_experiment_is_found_by_its_lab_its_number_or_its_topic():
    for name in ("03_pruning", "03", "pruning"):
        assert find_experiment(name).lab == "03_pruning"
    for name, experiment in UNDER_WAY.items():
        assert find_experiment(name) is experiment  # by its whole name alone
    for name in ("", "0", "resnet", "comparison"):
        text = f"NAME must be one of mlp, {', '.join(EVERY)}, or a lab's number, got '{name}'"
        with pytest.raises(BadSetting, match=f"^{re.escape(text)}$"):
            find_experiment(name, beside=("mlp",))


# Lab 02.


def test_every_method_and_the_student_alone_are_tuned_with_the_same_effort():
    tries = defaultdict(set)
    for run in EXPERIMENTS["02_distillation"].plan:
        if run.group == TUNING:
            tries[run.settings["method"]].add(run.settings["learning_rate"])
    assert tries.keys() == {"alone", *METHODS}
    assert len({frozenset(rates) for rates in tries.values()}) == 1


def test_each_method_is_taught_at_its_own_best_rate_everywhere():
    own = EXPERIMENTS["02_distillation"].chosen["learning_rates"]
    for run in EXPERIMENTS["02_distillation"].plan:
        if run.group not in (TUNING, "transformers") and not run.network_only:
            assert run.derived["learning_rate"] == own[run.settings["method"]], run.key
    for name, best in own.items():
        assert all(key.split("/")[1] == name for key in best.after)


def test_the_methods_rivals_differ_in_the_method_alone():
    """The student alone for three times as long is the one exception."""
    runs = [run for run in EXPERIMENTS["02_distillation"].plan if run.group == "methods"]
    rest = {run.key.split("/")[1]: run.settings.keys() - {"method"} for run in runs}
    assert {name for name, more in rest.items() if more} == {"alone_long"}
    assert rest.keys() == {"alone", "alone_long", *METHODS}


# Lab 03.


def test_rivals_among_the_pruned_networks_are_trained_alike_and_as_long():
    networks = {run.network: run for run in EXPERIMENTS["03_pruning"].plan if run.network}
    ours, theirs = networks["channel_any_width"], networks["torch_pruning"]
    assert {**ours.settings, "choice": "torch_pruning"} == theirs.settings
    assert theirs.derived["learning_rate"] == ours.derived["learning_rate"]
    channels = [networks[name].settings for name in (*CHOICES, "torch_pruning")]
    assert len({(each["macs"], each["epochs"]) for each in channels}) == 1
    ramps = [networks[f"fine_95_{name}"] for name in ("oneshot", "iterative")]
    assert len({r.settings["rounds"] * r.settings["epochs"] + r.settings["more"] for r in ramps}) == 1
    assert len({(r.settings["sparsity"], r.derived["learning_rate"]) for r in ramps}) == 1
    assert [r.settings["rounds"] > 1 for r in ramps] == [False, True]


def test_every_criterion_is_compared_at_every_granularity():
    keys = by_key("03_pruning").keys()
    for criterion, granularity in itertools.product(CRITERIA, GRANULARITIES):
        assert f"masks/{criterion}/{granularity}/0" in keys
        seeded = criterion != "magnitude" and granularity in ("fine", "channel")  # with chance in the masks
        assert (f"masks/{criterion}/{granularity}/1" in keys) == seeded
    assert all(choice in CHANNEL_CHOICES for choices in CHOICES.values() for choice in choices)
    assert all(choice.endswith("_of_eight") for choice in CHOICES["channel"])


def test_short_trainings_use_the_learning_rate_of_single_weights():
    plan, chosen = EXPERIMENTS["03_pruning"].plan, EXPERIMENTS["03_pruning"].chosen["chosen"]
    for run in plan:
        if run.group in ("tuned", "allocation"):
            assert run.derived == chosen["fine"]


def test_our_network_may_cost_what_torch_prunings_does():
    theirs = remove_channels(load_baseline(), CHANNEL_CHOICES["torch_pruning"](None, None, 0))
    x, macs = torch.zeros(1, 1, 28, 28), 0

    def note(layer, inputs, output):
        nonlocal macs
        macs += layer.weight[0].numel() * output.numel()

    for layer in theirs.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(note)
    theirs(x)
    assert macs == ALLOWED_MACS


# Lab 04.


def test_every_split_is_compared_at_every_budget_with_one_training():
    tuned = defaultdict(dict)
    for run in EXPERIMENTS["04_low_rank"].plan:
        if run.group == "tuned":
            _, way, budget, seed = run.key.split("/")
            tuned[way, budget][seed] = {k: v for k, v in run.settings.items() if k != "way"}
            assert (run.derived["ranks"].way, f"{run.derived['ranks'].budget:g}") == (way, budget)
    ways, budgets = ("whitened", "space", "tucker", "cp"), ("1.5", "2", "3", "4")
    assert tuned.keys() == {*itertools.product(ways, budgets), ("channels", "2"), ("random", "2")}
    settings = [each for runs in tuned.values() for each in runs.values()]
    assert all(each == settings[0] for each in settings)


def test_a_control_has_the_ranks_of_what_it_controls_for():
    plan, results = by_key("04_low_rank"), EXPERIMENTS["04_low_rank"].load_results()
    for control, way in (("random", "tucker"), ("channels", "whitened")):
        ours, theirs = (results[f"tuned/{name}/2/0"]["ranks"] for name in (control, way))
        assert ours == theirs
        mine, its = (plan[f"tuned/{name}/2/0"].derived["ranks"] for name in (control, way))
        assert mine.after == its.after == (f"scan/{way}",)


def test_the_low_rank_rivals_learn_as_long():
    networks = {run.network: record_settings(run.settings) for run in by_key("04_low_rank").values()}
    assert len({networks[name]["epochs"] for name in ("tucker", "space", "cp")}) == 1
    assert {networks[name]["network"] for name in ("tucker", "space", "cp")} == {"baseline"}
    assert networks["svd_mlp"]["network"] == "mlp"
