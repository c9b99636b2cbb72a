"""Schedules of the learning rate against their formulas, and what optimizers do with them."""

import copy
import json
import math

import numpy as np
import pytest

import xpconv as xc
from xpconv.optimizers import schedules

# Each schedule with its rates by formula, at steps before, at and after whatever happens in it. Nothing here comes from xpconv.

CASES = {
    "exponential": (schedules.ExponentialDecay(0.1, 8, 0.5), lambda t: 0.1 * math.exp(math.log(0.5) * t / 8)),
    "exponential in steps": (schedules.ExponentialDecay(0.1, 8, 0.5, staircase=True), lambda t: 0.1 / 2 ** (t // 8)),
    "exponential, growing": (schedules.ExponentialDecay(1e-4, 10, 3.0), lambda t: 1e-4 * 3 ** (t / 10)),
    "inverse": (schedules.InverseTimeDecay(0.1, 8, 0.5), lambda t: 0.1 / (1 + t / 16)),
    "inverse in steps": (schedules.InverseTimeDecay(0.1, 8, 0.5, staircase=True), lambda t: 0.1 / (1 + 0.5 * (t // 8))),
    "constant pieces": (
        schedules.PiecewiseConstantDecay([5, 20], [0.1, 0.2, 0.05]),
        lambda t: 0.1 if t <= 5 else 0.2 if t <= 20 else 0.05,
    ),
    "one constant": (schedules.PiecewiseConstantDecay([], [0.1]), lambda t: 0.1),
    "straight line": (
        schedules.PolynomialDecay(0.1, 20, end_learning_rate=0.02),
        lambda t: 0.1 - 0.08 * t / 20 if t < 20 else 0.02,
    ),
    "square": (schedules.PolynomialDecay(0.1, 20, power=2.0), lambda t: 0.0999 * max(0, 20 - t) ** 2 / 400 + 0.0001),
    "saw": (
        schedules.PolynomialDecay(0.1, 10, end_learning_rate=0.0, cycle=True),
        lambda t: 0.1 * (1 - t / (10 * (1 if t <= 10 else 2 if t <= 20 else 3 if t <= 30 else 4))),
    ),
    "cosine": (
        schedules.CosineDecay(0.1, 20, alpha=0.25),
        lambda t: 0.025 + 0.075 * math.cos(math.pi * t / 40) ** 2 if t < 20 else 0.025,
    ),
    "cosine after a rise": (
        schedules.CosineDecay(0.02, 20, warmup_target=0.1, warmup_steps=5),
        lambda t: 0.02 + 0.016 * t if t < 5 else 0.1 * math.cos(math.pi * (t - 5) / 40) ** 2 if t < 25 else 0.0,
    ),
    "cosine from its target": (
        schedules.CosineDecay(0.02, 20, warmup_target=0.1),
        lambda t: 0.1 * math.cos(math.pi * t / 40) ** 2 if t < 20 else 0.0,
    ),
    "restarts": (
        schedules.CosineDecayRestarts(0.1, 4, m_mul=0.5, alpha=0.25),
        lambda t: (
            0.025 + 0.075 * math.cos(math.pi * t / 8) ** 2
            if t < 4
            else 0.025 + 0.0375 * math.cos(math.pi * (t - 4) / 16) ** 2
            if t < 12
            else 0.025 + 0.01875 * math.cos(math.pi * (t - 12) / 32) ** 2
            if t < 28
            else 0.025 + 0.009375 * math.cos(math.pi * (t - 28) / 64) ** 2
        ),
    ),
    "restarts of one length": (
        schedules.CosineDecayRestarts(0.1, 7, t_mul=1.0, m_mul=0.5),
        lambda t: 0.1 * 0.5 ** (t // 7) * math.cos(math.pi * (t % 7) / 14) ** 2,
    ),
    "a rise to a number": (schedules.Warmup(0.1, 10, 0.05), lambda t: 0.05 + 0.005 * t if t < 10 else 0.1),
    "a rise to a schedule": (
        schedules.Warmup(schedules.ExponentialDecay(0.1, 8, 0.5), 10),
        lambda t: 0.01 * t if t < 10 else 0.1 * 2 ** (-(t - 10) / 8),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_rates_are_those_of_the_formula(name):
    schedule, formula = CASES[name]
    rates = [schedule(step) for step in range(40)]
    np.testing.assert_allclose(rates, [formula(step) for step in range(40)], rtol=1e-12, atol=1e-17)
    assert all(type(rate) is float for rate in rates)
    assert [schedule(np.int64(step)) for step in range(40)] == rates
    assert all(type(schedule(np.int64(step))) is float for step in range(40))


@pytest.mark.parametrize("t_mul", [1.0, 1.5, 2.0, 3.0, 5.0, 10.0])
def test_a_restart_is_where_the_decay_before_it_ends(t_mul):
    schedule = schedules.CosineDecayRestarts(1.0, 4, t_mul=t_mul)
    start, length = 0.0, 4.0
    for _ in range(8):
        assert schedule(start) == 1.0
        assert schedule(start + length / 2) == pytest.approx(0.5, rel=1e-9)
        start, length = start + length, length * t_mul


@pytest.mark.parametrize("name", CASES)
def test_a_schedule_is_made_again_from_its_configuration(name):
    schedule, _ = CASES[name]
    config = json.loads(json.dumps({"class_name": type(schedule).__name__, "config": schedule.get_config()}))
    before = copy.deepcopy(config)
    again = schedules.get(config)
    assert config == before
    assert again is not schedule
    assert [again(step) for step in range(40)] == [schedule(step) for step in range(40)]
    assert again.get_config() == schedule.get_config()
    assert schedules.get(schedule) is schedule


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: schedules.ExponentialDecay(0, 10, 0.5), ValueError, "initial_learning_rate must be a positive"),
        (lambda: schedules.ExponentialDecay(0.1, 0, 0.5), ValueError, "decay_steps must be a positive number, got 0"),
        (lambda: schedules.ExponentialDecay(0.1, 10, -0.5), ValueError, "ExponentialDecay: decay_rate must be a positive"),
        (lambda: schedules.ExponentialDecay(0.1, 10, math.nan), ValueError, "decay_rate must be a positive number, got nan"),
        (lambda: schedules.ExponentialDecay(0.1, 10, 0.5, staircase=2), TypeError, "staircase must be True or False, got 2"),
        (lambda: schedules.InverseTimeDecay(0.1, 10, -1), ValueError, "decay_rate must be at least 0 and finite"),
        (lambda: schedules.InverseTimeDecay("0.1", 10, 1), TypeError, "initial_learning_rate must be a number, got '0.1'"),
        (lambda: schedules.PiecewiseConstantDecay([1, 2], [0.1, 0.2]), ValueError, "got 2 values and 2 boundaries"),
        (lambda: schedules.PiecewiseConstantDecay([2, 1], [1, 2, 3]), ValueError, r"boundaries must be .* rise, got \[2, 1\]"),
        (lambda: schedules.PiecewiseConstantDecay([2, 2], [1, 2, 3]), ValueError, "that rise"),
        (lambda: schedules.PiecewiseConstantDecay([math.nan], [1, 2]), ValueError, "that rise"),
        (lambda: schedules.PiecewiseConstantDecay([2], [1, -2]), ValueError, r"values\[1\] must be at least 0 and finite"),
        (lambda: schedules.PolynomialDecay(0.1, -1), ValueError, "PolynomialDecay: decay_steps must be a positive number"),
        (lambda: schedules.PolynomialDecay(0.1, 10, power=-1), ValueError, "power must be at least 0 and finite"),
        (lambda: schedules.CosineDecay(0.0, 10), ValueError, "CosineDecay: initial_learning_rate must be a positive number"),
        (lambda: schedules.CosineDecay(0.1, 10, warmup_steps=5), ValueError, "warmup_steps=5 needs warmup_target"),
        (lambda: schedules.CosineDecay(0.1, 10, warmup_target=-1), ValueError, "warmup_target must be a positive number"),
        (lambda: schedules.CosineDecay(0.1, 10, warmup_target=1, warmup_steps=-1), ValueError, "warmup_steps must be at least"),
        (lambda: schedules.CosineDecayRestarts(0.1, 10, t_mul=0.5), ValueError, "t_mul must be at least 1"),
        (lambda: schedules.CosineDecayRestarts(0.1, 10, m_mul=0), ValueError, "m_mul must be a positive number"),
        (lambda: schedules.Warmup(-0.1, 10), ValueError, "Warmup: learning_rate must be a positive number"),
        (lambda: schedules.Warmup(0.1, 0), ValueError, "Warmup: warmup_steps must be at least 1"),
        (lambda: schedules.Warmup(lambda step: 0.1, 10), TypeError, "Warmup: learning_rate must be a number, or a schedule"),
        (lambda: schedules.get("CosineDecay"), TypeError, "get: a schedule must be an object of .* got 'CosineDecay'"),
        (lambda: schedules.get({"class_name": "CosinDecay", "config": {}}), ValueError, "did you mean .*'CosineDecay'"),
        (lambda: schedules.CosineDecay(0.1, 10)(-1), ValueError, "CosineDecay: step must be a number of updates, got -1"),
        (lambda: schedules.Warmup(0.1, 10)(math.nan), ValueError, "Warmup: step must be a number of updates, got nan"),
    ],
)  # fmt: skip
def test_what_is_no_schedule_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_each_update_has_the_rate_of_the_number_of_updates_before_it(device):
    schedule = schedules.PolynomialDecay(1.0, 4, end_learning_rate=0.0)
    params = {"W": xc.asarray(np.zeros(2), device=device)}
    optimizer = xc.SGD(schedule)
    for expected in (-1.0, -1.75, -2.25, -2.5, -2.5):
        optimizer.update(params, {"W": xc.asarray(np.ones(2), device=device)}, device=device)
        np.testing.assert_array_equal(xc.to_numpy(params["W"]), expected)
    assert optimizer.learning_rate == 0.0


def test_a_training_goes_on_with_the_rate_it_stopped_with():
    optimizer = xc.SGD(schedules.ExponentialDecay(1.0, 1, 0.5), momentum=0.5)
    params = {"W": np.zeros(1)}
    for _ in range(3):
        optimizer.update(params, {"W": np.ones(1)})
    other = xc.SGD.from_config(optimizer.get_config())
    other.load_state_dict(optimizer.state_dict())
    assert other.learning_rate == optimizer.learning_rate == 0.125
    continued = {"W": params["W"].copy()}
    optimizer.update(params, {"W": np.ones(1)})
    other.update(continued, {"W": np.ones(1)})
    np.testing.assert_array_equal(continued["W"], params["W"])


def test_a_schedule_decides_alone():
    schedule = schedules.CosineDecay(0.1, 10)
    optimizer = xc.Adam(schedule)
    with pytest.raises(TypeError, match=r"Adam: learning_rate cannot be set to 0\.5, it follows the schedule CosineDecay\("):
        optimizer.learning_rate = 0.5
    assert optimizer.learning_rate == 0.1
    optimizer.learning_rate = schedules.CosineDecay(0.2, 10)
    assert optimizer.learning_rate == 0.2


class Given(schedules.LearningRateSchedule):
    def __init__(self, rate):
        self.rate = rate

    def __call__(self, step):
        return self.rate


@pytest.mark.parametrize("rate", [-0.1, math.nan, math.inf, None, "0.1", np.ones(1)])
def test_what_a_schedule_gives_must_be_a_rate(rate):
    params, optimizer = {"W": np.ones(2)}, xc.SGD(Given(rate), momentum=0.5)
    with pytest.raises(ValueError, match=r"SGD: the schedule Given\(rate=.* as the learning rate after 0 updates"):
        optimizer.update(params, {"W": np.ones(2)})
    np.testing.assert_array_equal(params["W"], 1)
    assert optimizer.state_dict() == {"iteration": 0}


def test_a_rate_that_grows_without_end_is_told():
    optimizer = xc.SGD(schedules.ExponentialDecay(1.0, 1, 1e300))
    optimizer.iteration = 5
    with pytest.raises(ValueError, match="gave inf as the learning rate after 5 updates"):
        optimizer.update({"W": np.ones(2)}, {"W": np.ones(2)})


def test_a_rate_in_double_precision_keeps_single_precision_single(device):
    params = {"W": xc.asarray(np.ones(2, np.float32), device=device)}
    optimizer = xc.RMSprop(Given(np.float64(0.1)), weight_decay=0.1, clipnorm=1.0, momentum=0.5, centered=True)
    optimizer.update(params, {"W": xc.asarray(np.ones(2, np.float32), device=device)}, device=device)
    assert params["W"].dtype == np.float32
    assert {array.dtype for key, array in optimizer.state_dict().items() if "/" in key} == {np.dtype(np.float32)}


def test_a_schedule_of_ones_own_tells_its_arguments_or_says_how():
    assert xc.SGD(Given(0.25)).hyperparameters()["learning_rate"] == {"class_name": "Given", "config": {"rate": 0.25}}

    class Forgetful(schedules.LearningRateSchedule):
        def __init__(self, rate):
            self.kept = rate

        def __call__(self, step):
            return self.kept

    with pytest.raises(NotImplementedError, match=r"Forgetful: keep each argument of __init__ .* or override get_config"):
        xc.SGD(Forgetful(0.25)).get_config()
