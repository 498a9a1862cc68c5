"""The clock is honest on machines that drift; every test holds a fake watch, none asserts on a real time."""

import pytest
import torch
from torch import nn

from compresslab.errors import CompressionError
from compresslab.measurement.statistics import Interval, bootstrap, median
from compresslab.measurement.timing import latency, noise_floor, pinned, speedup
from compresslab.models.surgery import evaluating

X = torch.zeros(1, 3)


class Machine:
    """A pretended machine: a run takes the seconds we say, times a slowness that changes with every run."""

    def __init__(self, slowness=lambda run: 1.0):
        self.now, self.runs, self.slowness = 0.0, [], slowness

    def model(self, name, seconds):
        def run(inputs):
            self.now += seconds * self.slowness(len(self.runs))
            self.runs.append(name)

        return run

    def clock(self):
        return self.now


def test_on_a_steady_machine_the_speedup_is_exact():
    machine = Machine()
    interval = speedup(machine.model("A", 0.006), machine.model("B", 0.002), X, clock=machine.clock)
    assert (interval.value, interval.low, interval.high) == pytest.approx((3, 3, 3))
    assert interval.verdict == "faster"


def test_the_two_run_in_turns_after_a_warm_up():
    machine = Machine()
    speedup(machine.model("A", 1), machine.model("B", 1), X, rounds=5, clock=machine.clock)
    assert "".join(machine.runs) == "AAABBB" + "ABBA" * 5


@pytest.mark.parametrize(
    "slowness",
    [
        lambda run: 1 + 0.05 * run,  # a processor that heats up steadily: 6 times as slow at the end
        lambda run: 1.0 if run < 50 else 4.0,  # another program starts in the middle
        lambda run: 9.0 if run % 17 == 0 else 1.0,  # hiccups
    ],
)
def test_a_machine_that_drifts_gives_the_same_median(slowness):
    machine = Machine(slowness)
    interval = speedup(machine.model("A", 0.006), machine.model("B", 0.002), X, clock=machine.clock)
    assert interval.value == pytest.approx(3)
    assert noise_floor(machine.model("A", 0.006), X, clock=machine.clock).value == pytest.approx(1)


def test_the_fair_order_matters_timing_one_after_the_other_would_be_wrong():
    machine = Machine(lambda run: 1 + 0.05 * run)
    one, other = machine.model("A", 0.006), machine.model("B", 0.006)
    naive = latency(one, X, clock=machine.clock).value / latency(other, X, clock=machine.clock).value
    assert naive < 0.6  # the second looks much slower, and both are the same
    assert speedup(one, other, X, clock=machine.clock).value == pytest.approx(1)


def test_equal_models_on_a_noisy_machine_are_no_measurable_difference():
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(500, generator=generator).tolist()
    machine = Machine(lambda run: 1 + noise[run])
    interval = noise_floor(machine.model("A", 0.001), X, clock=machine.clock)
    assert interval.low < 1 < interval.high
    assert interval.verdict == "no measurable difference"


def test_latency_is_in_milliseconds():
    machine = Machine()
    assert latency(machine.model("A", 0.25), X, clock=machine.clock).value == pytest.approx(250)


def test_threads_are_pinned_while_the_clock_runs_and_restored_even_after_an_error():
    before, seen = torch.get_num_threads(), []
    machine = Machine()
    run = machine.model("A", 1)

    def model(inputs):
        seen.append(torch.get_num_threads())
        run(inputs)

    latency(model, X, threads=before + 1, clock=machine.clock)
    assert set(seen) == {before + 1}
    with pytest.raises(ZeroDivisionError), pinned(before + 1):
        1 / 0  # noqa: B018 (the error is the point)
    assert torch.get_num_threads() == before


def test_models_run_in_evaluation_mode_and_each_module_gets_its_own_mode_back():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Dropout(0.5))
    model.train()
    model[1].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert not model(X).requires_grad
    assert [module.training for module in model.modules()] == [True, True, False, True]


# --- intervals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.01, 1.3, "faster"),
        (0.7, 0.99, "slower"),
        (0.9, 1.2, "no measurable difference"),
        (1.0, 1.3, "no measurable difference"),
        (0.8, 1.0, "no measurable difference"),
    ],
)
def test_a_difference_is_one_only_where_the_interval_keeps_clear_of_one(low, high, verdict):
    assert Interval((low + high) / 2, low, high).verdict == verdict


def test_an_interval_in_the_wrong_order_is_refused():
    with pytest.raises(
        CompressionError, match=r"got 2.0, 1.0, 3.0; the order of the arguments is value, low, high"
    ):
        Interval(1.0, 2.0, 3.0)
    with pytest.raises(CompressionError, match="low ≤ value ≤ high"):
        Interval(float("nan"), 0.0, 1.0)


def test_the_bootstrap_interval_of_a_mean_is_the_one_of_the_normal_law():
    samples = torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    interval, error = bootstrap(samples, torch.mean), samples.std().item() / 400**0.5
    assert interval.value == pytest.approx(samples.mean().item())
    assert interval.value - interval.low == pytest.approx(1.96 * error, rel=0.15)
    assert interval.high - interval.value == pytest.approx(1.96 * error, rel=0.15)


def test_the_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    generator = torch.Generator().manual_seed(2)
    intervals = [bootstrap(torch.rand(25, generator=generator), median, seed=seed) for seed in range(80)]
    assert 0.88 <= sum(i.low <= 0.5 <= i.high for i in intervals) / 80 <= 1.0


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    samples = torch.rand(30, generator=torch.Generator().manual_seed(3))
    assert bootstrap(samples, median, seed=1) == bootstrap(samples, median, seed=1)
    assert bootstrap(samples, torch.mean, seed=1) != bootstrap(samples, torch.mean, seed=2)


@pytest.mark.parametrize("timed", [latency, noise_floor])
def test_bad_settings_are_refused(timed):
    machine = Machine()
    model = machine.model("A", 1)
    with pytest.raises(
        CompressionError, match="rounds must be a whole number from 5 up, got 4; 25 gives a useful interval"
    ):
        timed(model, X, rounds=4, clock=machine.clock)
    with pytest.raises(
        CompressionError, match="threads must be a whole number from 1 up, got 0; 1 is the steadiest"
    ):
        timed(model, X, threads=0, clock=machine.clock)
    with pytest.raises(
        CompressionError, match=r"clock must go forward, got 0\.0 seconds for one run; use time.perf_counter"
    ):
        timed(model, X, clock=lambda: 1.0)
