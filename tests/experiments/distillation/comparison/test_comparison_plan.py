"""The comparison's rows: who is tuned alike and trained alike; and no stored choice lies at an edge."""

from collections import defaultdict

import pytest

from compresslab.experiments.distillation.comparison.methods import METHODS
from compresslab.experiments.distillation.comparison.plan import EXPERIMENT, FEATURES, ROWS, TEACHER, TWIN
from compresslab.experiments.distillation.comparison.task import ALL_LABELS, FEW_LABELS
from compresslab.experiments.experiment import TUNING
from compresslab.experiments.runner import Unfinished

BOTH = {
    *("alone", "alone_longer", "smoothed", "hard_labels", "permuted", "kd", "kd_smoothed_teacher", "dkd"),
    *("fitnet", "fitnet_in_stages", "attention", "rkd", "pkt", "sp", "fitnet_kd", "attention_kd", "rkd_kd"),
    *("pkt_kd", "sp_kd", "mutual", "born_again"),
}
FEW = {
    *("hard_labels_smoothed", "mutual_four", "mutual_ensemble", "deep_alone", "own_teacher", "noisy_student"),
}
HEADLINES = {"alone", "smoothed", "hard_labels", "permuted", "kd"}
BY_NAME = {(row.task, row.name): row for row in ROWS}
PLAN = {run.key: run for run in EXPERIMENT.plan}


def test_both_tasks_have_the_rows_of_a_complete_comparison():
    rows = defaultdict(set)
    for row in ROWS:
        rows[row.task].add(row.name)
    assert rows == {ALL_LABELS: BOTH, FEW_LABELS: BOTH | FEW}
    assert {row.method for row in ROWS} == METHODS.keys()


def test_headlines_have_five_seeds_and_other_rows_three():
    for row in ROWS:
        seeds = {run.seed for run in PLAN.values() if run.key.startswith(f"{row.task}/{row.name}/")}
        assert seeds == set(range(5 if row.name in HEADLINES else 3)), row.name


def test_every_row_tries_four_rates_in_any_case_and_only_one_has_none_of_its_own():
    for row in ROWS:
        if row.tuning is None:
            assert row.name == "alone_longer"
            continue
        for number, grid in enumerate(row.tuning.grids):
            own = [run for run in row.tuning.runs if f"/{grid.setting}/" in run.key and run.needed is None]
            assert len(own) == (4 if number == 0 else 2), row.name  # the third is the default, tried before
            assert len(grid.start) == (4 if number == 0 else 3)
            assert len(grid.values) > len(grid.start) or grid.bounds, row.name
        assert row.tuning.grids[0].setting == "learning_rate"


def test_what_is_tuned_is_the_methods_own_settings_and_a_control_has_those_of_what_it_controls_for():
    for task in (ALL_LABELS, FEW_LABELS):
        tuned = {
            name: {g.setting for g in row.tuning.grids}
            for (t, name), row in BY_NAME.items()
            if t == task and row.tuning
        }
        assert tuned["alone"] == tuned["hard_labels"] == tuned["permuted"] == {"learning_rate"}
        assert tuned["kd"] == tuned["kd_smoothed_teacher"] == {"learning_rate", "temperature", "share"}
        kd = BY_NAME[task, "kd"].chosen
        for name in ("permuted", "fitnet_in_stages", *(f"{name}_kd" for name in FEATURES)):
            row = BY_NAME[task, name]
            assert {k: row.derived[k] for k in ("temperature", "share")} == {
                k: kd[k] for k in ("temperature", "share")
            }
        for name in FEATURES:
            assert tuned[name] == {"learning_rate", "weight"}
            assert tuned[f"{name}_kd"] == {"learning_rate"}
            assert BY_NAME[task, f"{name}_kd"].derived["weight"] == BY_NAME[task, name].chosen["weight"]


def test_rivals_see_the_same_views_for_as_long():
    reported = [run for run in PLAN.values() if run.group not in (TUNING, "teachers")]
    assert {(run.function, run.settings["thirds"]) for run in reported} == {("teach", 3)}
    tries = [run for run in PLAN.values() if run.group == TUNING]
    assert {(run.function, run.settings["thirds"], run.seed) for run in tries} == {("teach", 1, 100)}
    longer = {run.key.split("/")[1] for run in reported if "longer" in run.settings}
    assert longer == {"alone_longer"}


def test_a_row_learns_from_the_teacher_without_smoothing_or_says_so_or_from_none():
    twins = {row.name for row in ROWS if row.teacher == TWIN}
    assert twins == {"kd_smoothed_teacher"}
    alone = {row.name for row in ROWS if not row.teacher}
    none = {"alone", "alone_longer", "smoothed", "mutual", "born_again"}
    assert alone == none | FEW - {"hard_labels_smoothed"}
    for row in ROWS:
        for run in (row.run(0), *(row.tuning.runs if row.tuning else ())):
            assert run.after == ((row.teacher,) if row.teacher else ())


def test_the_teachers_differ_in_label_smoothing_alone():
    mine, twin = PLAN[TEACHER], PLAN[TWIN]
    assert mine.settings | {"label_smoothing": 0.05} == twin.settings
    assert mine.settings["label_smoothing"] == 0.0
    assert (mine.function, mine.seed) == (twin.function, twin.seed)


@pytest.mark.parametrize("row", [row for row in ROWS if row.tuning], ids=lambda row: f"{row.task}/{row.name}")
def test_no_stored_run_was_chosen_at_an_edge(row):
    results = Unfinished(EXPERIMENT).results
    if row.run(0).key not in results:
        return  # nothing has been chosen yet
    for grid in row.tuning.grids:
        assert not row.tuning.at_edge(grid.setting, results), grid.setting


def test_what_is_stored_is_what_was_chosen():
    results = EXPERIMENT.load_results()
    for row in ROWS:
        for seed in range(row.seeds):
            record = results.get(row.run(seed).key)
            if record is not None:
                chosen = {name: each.value(results) for name, each in row.chosen.items()}
                assert chosen.items() <= record.items()
                assert 0 < record["test_accuracy"] <= 1
                assert record["seconds"] > 0
