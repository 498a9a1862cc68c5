"""The doctor looks at the real machine, and says of each broken one what is wrong and how to fix it."""

import importlib.metadata
import shutil
from types import SimpleNamespace

import pytest
from rich.console import Console

from compresslab.cli import doctor
from compresslab.cli.doctor import Finding, can_run_the_labs, examine, findings_table
from compresslab.data.fashion_mnist import cache_folder
from compresslab.data.location import DATA

GOOD, BAD = Finding("ink", True, True, "black"), Finding("paper", False, True, "none [sic]", "buy some")


def broken() -> bool:
    raise RuntimeError("CUDA driver too old")


def printed(findings: tuple[Finding, ...]) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(findings_table(findings))
    return captured.get()


def test_this_machine_can_run_the_labs():
    findings = examine()
    assert can_run_the_labs(findings), [finding for finding in findings if not finding.good]
    names = [finding.name for finding in findings]
    assert len(set(names)) == len(names)
    assert {"Python", "torch", "torchvision", "Fashion-MNIST", "jupyterlab", "nbgrader", "bubblewrap"} <= set(
        names
    )


def test_every_finding_that_is_not_good_says_how_to_mend_it(tmp_path):
    findings = (
        doctor.python((3, 10, 1)),
        doctor.package("a-package-that-nobody-has"),
        doctor.torchvision(broken),
        doctor.dataset(tmp_path / "nowhere", tmp_path),
        doctor.trained("baseline", tmp_path),
        doctor.cores(1),
        doctor.memory(10**9),
        doctor.disk(10**6),
        doctor.bubblewrap(None),
    )
    assert not any(finding.good for finding in findings)
    assert all(finding.remedy for finding in findings)


def test_an_old_python_is_told_from_a_new_one():
    assert doctor.python((3, 11, 0)).good
    assert doctor.python((3, 14, 1)).good
    assert not doctor.python((3, 10, 12)).good


def test_a_package_of_another_version_is_told_with_the_one_that_is_needed(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.12.1+cpu")
    finding = doctor.package("torch")
    assert not finding.good
    assert finding.needed
    assert finding.words == "2.12.1+cpu; ==2.13.* is needed"


def test_a_missing_package_is_told():
    finding = doctor.package("a-package-that-nobody-has")
    assert (finding.good, finding.needed, finding.words) == (False, True, "not installed")


def test_torchvision_says_whether_its_trap_was_worked_around():
    assert "do not load" in doctor.torchvision(lambda: False).words
    assert "do not load" not in doctor.torchvision(lambda: True).words
    assert doctor.torchvision(lambda: False).good


def test_a_broken_torchvision_is_told():
    finding = doctor.torchvision(broken)
    assert not finding.good
    assert "CUDA driver too old" in finding.words


def test_a_damaged_data_file_is_told_with_the_way_to_get_it_back(tmp_path):
    shutil.copytree(DATA / "fashion_mnist", tmp_path / "source")
    (tmp_path / "source" / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no gzip")
    finding = doctor.dataset(tmp_path / "source", tmp_path / "cache")
    assert not finding.good
    assert "t10k-labels-idx1-ubyte.gz can't be unpacked" in finding.words
    assert finding.remedy == "Get it back with: git checkout -- data/fashion_mnist/t10k-labels-idx1-ubyte.gz"


def test_without_the_repository_the_data_are_downloaded_and_the_labs_can_run(tmp_path):
    finding = doctor.dataset(tmp_path / "nowhere", tmp_path / "cache")
    assert (finding.good, finding.needed) == (False, False)
    assert "downloads" in finding.words


def test_missing_weights_are_told_with_the_way_to_get_them_back(tmp_path):
    finding = doctor.trained("student", tmp_path)
    assert not finding.good
    assert "student.safetensors is missing" in finding.words
    assert "compresslab train student" in finding.remedy


def test_a_card_without_an_accuracy_is_told(tmp_path):
    shutil.copy(DATA / "baselines" / "student.safetensors", tmp_path)
    (tmp_path / "student.json").write_text("{}")
    assert doctor.trained("student", tmp_path).words == "its model card does not state its test accuracy"


@pytest.mark.parametrize(
    ("finding", "good"),
    [
        (doctor.cores(1), False),
        (doctor.cores(2), True),
        (doctor.memory(2 * 2**30), False),
        (doctor.memory(3 * 2**30), True),
        (doctor.memory(None), True),
        (doctor.disk(2**29), False),
        (doctor.disk(2**31), True),
    ],
)
def test_small_machines_are_told_from_large_ones(finding, good):
    assert finding.good == good


def test_few_cores_and_little_memory_slow_the_labs_but_do_not_forbid_them():
    assert can_run_the_labs((GOOD, doctor.cores(1), doctor.memory(10**9), doctor.bubblewrap(None)))


def test_bubblewrap_is_tried_and_not_only_looked_for(monkeypatch):
    assert "not installed" in doctor.bubblewrap(None).words
    for status, words in ((0, "works"), (1, "is not allowed to run")):
        monkeypatch.setattr(
            doctor.subprocess, "run", lambda *_, s=status, **__: SimpleNamespace(returncode=s)
        )
        finding = doctor.bubblewrap("bwrap")
        assert (finding.good, finding.needed) == (status == 0, False)
        assert words in finding.words
        assert "grading" in finding.words


def test_the_table_shows_words_remedy_and_verdict():
    text = printed((GOOD, BAD))
    assert "none [sic]" in text, "square brackets are text, not Rich's markup"
    assert "buy some" in text
    assert "✗" in text
    assert "This machine cannot yet run the labs." in text
    assert "This machine can run the labs." in printed((GOOD,))


def test_no_remedy_is_shown_for_what_is_good():
    assert "buy some" not in printed((Finding("paper", True, True, "white", "buy some"),))


def test_free_space_is_that_of_the_disk_where_the_cache_will_be(tmp_path):
    assert doctor._free_bytes(tmp_path / "not" / "yet") == pytest.approx(
        shutil.disk_usage(tmp_path).free, rel=0.01
    )
    assert doctor._free_bytes(cache_folder()) > 0
