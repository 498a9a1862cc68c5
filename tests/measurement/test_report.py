"""A report says what its ratios divide, carries its intervals, and draws pictures that can be read."""

import json
import subprocess
import sys

import pytest
import torch
from matplotlib import pyplot

from compresslab.errors import CompressionError
from compresslab.measurement.measurement import Measurement
from compresslab.measurement.report import Report, Row, compare
from compresslab.measurement.statistics import Interval


class Machine:
    """A pretended machine whose clock moves on by what each model takes."""

    now = 0.0

    def model(self, seconds):
        def run(inputs):
            self.now += seconds

        return run

    def clock(self):
        return self.now


MACHINE = Machine()


def measured(name, right, file, macs, seconds):
    return Measurement(
        name=name,
        accuracy=right / 100,
        parameters=1,
        storage_bytes=file,
        macs_per_sample=macs,
        peak_activation_bytes=1,
        latency_ms=1000 * seconds,
        latency_ms_low=1000 * seconds,
        latency_ms_high=1000 * seconds,
        correct=torch.arange(100) < right,
        model=MACHINE.model(seconds),
        sample=torch.zeros(1, 1, 28, 28),
    )


BASELINE = measured("baseline", 94, 2_000_000, 20_000_000, 0.003)
SMALL = measured("small & fast", 90, 500_000, 5_000_000, 0.001)
SLOW = measured("slow", 95, 1_000_000, 0, 0.006)


@pytest.fixture(scope="module")
def report():
    return compare(BASELINE, SMALL, SLOW, clock=MACHINE.clock)


def test_ratios_divide_the_baseline_by_the_row(report):
    first, small, slow = report.rows
    assert (small.file_ratio, small.macs_ratio, slow.file_ratio) == (4, 4, 2)
    assert (first.file_ratio, first.macs_ratio) == (1, 1)
    assert slow.macs_ratio is None  # nothing to divide by
    assert small.drop.value == pytest.approx(0.04)
    assert slow.drop.value == pytest.approx(-0.01)


def test_models_are_clocked_anew_in_turns_and_the_first_row_is_the_noise_floor(report):
    assert [row.speedup.value for row in report.rows] == pytest.approx([1, 3, 0.5])
    assert [row.verdict for row in report.rows][1:] == ["faster", "slower"]


def test_where_the_interval_covers_one_the_table_says_so():
    row = Row("even", 0.9, Interval(0, 0, 0), 1, 1, 1, 1, 1, Interval(1.1, 0.98, 1.2))
    assert "1.10 [0.98, 1.20]" in str(Report((row,)))
    assert "no measurable difference" in str(Report((row,)))


def test_the_table_is_aligned_and_shows_percent(report):
    lines = str(report).splitlines()
    assert len({len(line) for line in lines[:5]}) == 1
    assert "90.00%" in lines[3]
    assert "4.00 [" in lines[3]
    assert "0.00 [0.00, 0.00]" in lines[2]
    tiny = Row("even", 0.9, Interval(-1e-6, -1e-6, 1e-6), 1, 1, 1, 1, 1, Interval(1, 1, 1))
    assert "0.00 [0.00, 0.00]" in str(Report((tiny,)))
    assert "-0.00" not in str(Report((tiny,)))
    assert lines[5].startswith("Ratios divide baseline by the row.")


def test_the_notebook_gets_a_table_with_names_escaped(report):
    page = report._repr_html_()
    assert page.count("<tr>") == 4
    assert "small &amp; fast" in page
    assert "small & fast" not in page


def test_json_has_every_number_with_its_interval(report):
    read = json.loads(report.to_json())
    assert read["baseline"] == "baseline"
    assert [row["name"] for row in read["rows"]] == ["baseline", "small & fast", "slow"]
    row = read["rows"][1]
    assert row["storage_bytes"] == 500_000
    assert row["speedup"] == pytest.approx({"value": 3, "low": 3, "high": 3})
    assert row["drop"]["low"] <= row["drop"]["value"] <= row["drop"]["high"]
    assert row["verdict"] == "faster"


def test_two_measurements_of_one_name_are_refused():
    with pytest.raises(
        CompressionError, match=r"a name of its own, got 'slow' twice; measure\(..., name=...\) sets it"
    ):
        compare(BASELINE, SLOW, SLOW, clock=MACHINE.clock)


def test_the_pareto_picture_shows_every_model_at_its_place_and_names_the_baseline(report):
    (axes,) = report.draw().axes
    assert axes.get_xlabel().startswith("file, kB")
    assert axes.get_ylabel().startswith("accuracy, %")
    assert [text.get_text() for text in axes.texts] == ["baseline", "small & fast", "slow"]
    assert [text.xy[0] for text in axes.texts] == pytest.approx([2000, 500, 1000])
    assert [text.xy[1] for text in axes.texts] == pytest.approx([94, 90, 95])
    markers = [line.get_marker() for line in axes.lines if line.get_marker() not in ("None", "_")]
    assert len(set(markers)) == 3  # told apart without colour
    front = next(line for line in axes.lines if line.get_linestyle() == "--")
    assert list(front.get_xdata()) == [500, 1000]  # the baseline is beaten in both by "slow"
    assert "filled: baseline" in axes.get_title()
    assert not pyplot.get_fignums()  # a figure left open would be shown twice by a notebook


def test_importing_the_report_does_not_import_the_plotting():
    code = "import sys, compresslab.measurement.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
