"""``compresslab train``: labs by number or name, what is missing said first, an interruption's exit code."""

import functools

import pytest
from test_command_line import said

from compresslab.experiments import runner
from compresslab.experiments.results import RESULTS


@pytest.fixture
def nothing_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "Unfinished", functools.partial(runner.Unfinished, folder=tmp_path))
    return tmp_path


def stored():
    return {path: path.read_bytes() for path in RESULTS.rglob("*") if path.is_file()}


def test_everything_that_is_stored_is_found_and_nothing_is_written():
    before = stored()
    code, words = said("train", "01", "02_distillation", "pruning")
    assert code == 0
    for found in ("01_quantization: all 8", "02_distillation: all ", "03_pruning: all "):
        assert found in words
    assert "is missing" not in words.replace("none is missing", "")
    assert "codebook_2bit" in words
    assert stored() == before


def test_a_dry_run_says_what_is_missing_and_runs_nothing(nothing_stored):
    code, words = said("train", "01", "mlp", "--dry-run")
    assert code == 0
    assert words.startswith("01_quantization: 8 of 8 runs are missing: about 0.0 hours of one worker, 8 of")
    assert list(nothing_stored.iterdir()) == []


def test_an_interruption_says_how_to_go_on(nothing_stored, monkeypatch):
    def interrupted(*given, **told):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run_missing", interrupted)
    code, words = said("train", "01", "03")
    assert code == 130
    assert words.endswith("Interrupted; what had ended is stored. Go on with: compresslab train 01 03")


def test_where_runs_go_is_asked_for(nothing_stored, monkeypatch):
    asked = []

    def pool(jobs, scheduler):
        asked.append((jobs, scheduler))
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "training_pool", pool)
    said("train", "01", "--jobs", 3)
    said("train", "01", "--scheduler", "tcp://host:8786")
    assert asked == [(3, None), (None, "tcp://host:8786")]


def test_no_process_is_not_enough(nothing_stored):
    code, words = said("train", "01", "--jobs", 0)
    assert code == 2
    assert "--jobs must be 1 or more, the number of processes, got 0; try 2" in words


def test_nothing_runs_if_one_name_is_wrong(nothing_stored):
    code, words = said("train", "01", "resnet")
    assert code == 2
    assert "NAME must be one of baseline, teacher, student, mlp, 01_quantization" in words
    assert "missing" not in words
