"""The learning rate in curves that are made up, so that the answer is known."""

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainkit.workflows.lr_find.curves import (
    Curve,
    NoLearningRate,
    Smoothed,
    find,
    learning_rates,
    longest_fall,
    valley,
)


def made_up(loss_at, *, steps=150, noise=0.0, seed=0):
    """The curve of a loss that is a function of the learning rate, up to where it diverges."""
    random.seed(seed)
    mean, curve = Smoothed(), Curve(seed, steps)
    for rate in learning_rates(steps):
        curve.losses.append(loss_at(rate) + random.gauss(0, noise))
        if mean.diverges(mean.add(curve.losses[-1])):
            break
    return curve


def falls_between(low, high):
    """2 below ``low``, 1 at ``high``, on the logarithm of the rate; above it rises steeply."""

    def loss_at(rate):
        share = math.log(rate / low) / math.log(high / low)
        return 2 - min(max(share, 0), 1) if rate < high else 1 + 100 * math.log(rate / high)

    return loss_at


@pytest.mark.parametrize(("low", "high"), [(1e-5, 1e-2), (1e-4, 1e-1), (1e-3, 1.0)])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_middle_of_the_valley_on_the_logarithm(low, high, noise):
    result = find([made_up(falls_between(low, high), noise=noise, seed=seed) for seed in range(3)])
    middle = math.sqrt(low * high)
    assert middle / 2 < result.lr < 4 * middle, "smoothing comes a little later"
    assert result.lr == float(f"{statistics.median(result.of_seeds):.2g}")
    assert result.spread == (min(result.of_seeds), max(result.of_seeds))


def fastais_valley(losses):
    """``valley`` of ``fastai/callback/schedule.py``: the start and the end of the longest valley."""
    n = len(losses)
    max_start, max_end = 0, 0
    lds = [1] * n
    for i in range(1, n):
        for j in range(i):
            if (losses[i] < losses[j]) and (lds[i] < lds[j] + 1):
                lds[i] = lds[j] + 1
            if lds[max_end] < lds[i]:
                max_end = i
                max_start = max_end - lds[max_end]
    return max_start, max_end


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=40))
def test_the_longest_fall_is_fastais(losses):
    length, end = longest_fall(losses)
    start, expected = fastais_valley(losses)
    if length > 1:
        assert (end - length, end) == (start, expected)


@pytest.mark.parametrize("end", [2.0, 0.9])
def test_a_long_fall_after_a_jump_is_no_valley(end):
    """As of a small CNN on pictures: the loss jumps up by less than four times, and creeps back to that of a guess."""
    before = falls_between(1e-4, 1e-3)

    def loss_at(rate):
        return before(rate) if rate < 1e-3 else 3.8 - (3.8 - end) / 4 * math.log10(rate / 1e-3)

    curve = made_up(loss_at)
    assert len(curve.losses) == curve.steps
    assert 2e-4 < find([curve]).lr < 1.5e-3


def test_the_steps_rise_from_the_lowest_to_the_highest_by_one_factor():
    rates = learning_rates(150)
    assert rates[0] == 1e-7
    assert rates[-1] == pytest.approx(10)
    assert rates[75] / rates[74] == pytest.approx(rates[1] / rates[0])


def test_the_smoothed_loss_has_no_bias_to_zero_and_stops_at_four_times_its_best():
    mean = Smoothed()
    assert [mean.add(3.0) for _ in range(30)] == pytest.approx([3.0] * 30)
    assert not mean.diverges(11.9)
    assert mean.diverges(12.1)
    below_zero = Smoothed()
    for _ in range(30):
        below_zero.add(-2.0)
    assert not below_zero.diverges(-1.0)
    assert below_zero.diverges(5.0)


@pytest.mark.parametrize("steps", [100, 150, 200])
def test_losses_that_do_not_fall_lead_to_no_number(steps):
    for seed in range(20):
        with pytest.raises(NoLearningRate, match=r"the curve is flat: the mean loss of 20 steps is 2.* at first and"):
            find([made_up(lambda rate: 2.3, noise=0.3, steps=steps, seed=seed)])


def test_a_loss_that_falls_by_less_than_a_hundredth_is_flat_even_without_noise():
    with pytest.raises(NoLearningRate, match="flat"):
        find([made_up(lambda rate: 2.3 - 0.002 * math.log10(rate / 1e-7))])


@pytest.mark.parametrize("steps_taken", [0, 1, 50])
def test_a_loss_that_is_not_finite_leads_to_no_number(steps_taken):
    curve = Curve(0, 150, [2.0 + 0.1 * (step % 3) for step in range(steps_taken)])
    with pytest.raises(NoLearningRate, match="diverges before it falls: at a learning rate of"):
        find([curve])


def test_a_loss_that_falls_only_after_a_jump_leads_to_no_number():
    def loss_at(rate):
        return 2.4 if rate < 1e-3 else 3.8 - 0.5 * math.log10(rate / 1e-3)

    with pytest.raises(NoLearningRate, match="flat"):
        find([made_up(loss_at, noise=0.02)])


def test_most_seeds_decide():
    good, flat = made_up(falls_between(1e-4, 1e-1)), made_up(lambda rate: 2.3, noise=0.1)
    result = find([good, flat, good])
    assert result.of_seeds == [valley(good), None, valley(good)]
    with pytest.raises(NoLearningRate, match="flat"):
        find([good, flat, flat])


def test_a_loss_that_still_falls_at_the_highest_rate_says_so():
    assert made_up(lambda rate: 20 - math.log10(rate)).falls_to_the_end
    assert not made_up(falls_between(1e-4, 1e-1)).falls_to_the_end
    assert not made_up(lambda rate: 20 - math.log10(rate) * (1 if rate < 1 else -3)).falls_to_the_end
