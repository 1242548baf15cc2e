"""What uses are worth, told from decreases that were made to be so."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_echo.adapting.report import reason, worth_line
from keras_echo.adapting.worth import (
    FEWEST_SAMPLES,
    LEAST_LIMIT,
    MOST_SAMPLES,
    Estimate,
    Estimates,
    Worth,
    last_use,
    next_limit,
)


def made(means, *, error=1.0, num=100):
    return Estimates((use, Estimate(mean, error, num)) for use, mean in enumerate(means, 1))


def learned(worths, *, seed, memory=(0.9, -0.3), noise=0.1, num_windows=40, shuffled=False):
    """What is learned from windows of 16 steps of a process with these worths."""
    rng, worth = np.random.default_rng(seed), Worth()
    inputs = np.array(worths) * (1 - sum(memory))
    for _ in range(num_windows):
        decreases, begin = [0.0, 0.0], rng.integers(len(worths))
        uses = [(begin + step) % len(worths) for step in range(40)]
        if shuffled:
            uses = rng.permutation(uses).tolist()
        for use in uses:
            before = memory[0] * decreases[-1] + memory[1] * decreases[-2]
            decreases.append(before + inputs[use] + noise * rng.normal())
        worth.add([use + 1 for use in uses[-16:]], decreases[-16:])
    return worth.estimates()


@pytest.mark.parametrize("memory", [(0.0, 0.0), (0.6, 0.0), (1.2, -0.4)])
@pytest.mark.parametrize("shuffled", [False, True])
def test_the_lasting_effect_is_found_in_spite_of_momentum(memory, shuffled):
    worths, misses, num_runs = [0.12, 0.05, 0.0, -0.05], 0, 40
    for seed in range(num_runs):
        found = learned(worths, seed=seed, memory=memory, shuffled=shuffled)
        assert list(found) == [1, 2, 3, 4]
        for use, worth in enumerate(worths, 1):
            misses += abs(found[use].mean - worth) > 2 * found[use].standard_error
    # Of two standard errors 4.6 % are expected outside; of 160, more than 19 in one run of 10,000.
    assert misses <= 19


def test_the_mean_decrease_would_be_wrong():
    """In a row at high momentum, the first use inherits what the last one before it did."""
    rng, decreases, sums = np.random.default_rng(0), [0.0, 0.0], np.zeros(2)
    for step in range(20_000):
        decreases.append(0.9 * decreases[-1] + (0.01, -0.01)[step % 2] + 0.001 * rng.normal())
        sums[step % 2] += decreases[-1] / 10_000
    found = learned([0.1, -0.1], seed=0, memory=(0.9, 0.0), noise=0.001)
    assert found[1].mean == pytest.approx(0.1, rel=0.1)
    assert found[2].mean == pytest.approx(-0.1, rel=0.1)
    assert abs(sums).max() < 0.01


def test_where_all_steps_are_alike_each_use_is_worth_a_step():
    worth = Worth()
    for _ in range(8):
        worth.add([1, 2] * 8, [0.25] * 16)
    found = worth.estimates()
    assert [estimate.mean for estimate in found.values()] == pytest.approx([0.25, 0.25])
    assert all(estimate.helps for estimate in found.values())


def test_unknown_steps_and_unknown_uses_are_left_out():
    worth = Worth()
    for _ in range(FEWEST_SAMPLES):
        # Of the five steps after the first two, two are near one that nobody knows.
        worth.add([1, 1, 1, 1, 0, 1, 1, 1], [math.nan, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert worth.estimates()[1].num == 4 * FEWEST_SAMPLES
    assert 0 not in worth.estimates()


def test_too_little_is_nothing():
    worth = Worth()
    worth.add([1] * (FEWEST_SAMPLES + 1), [1.0] * (FEWEST_SAMPLES + 1))
    assert worth.estimates() == {}
    worth.add([1, 1, 1], [1.0, 1.0, 1.0])
    assert worth.estimates()[1].num == FEWEST_SAMPLES


def test_the_latest_steps_count():
    worth = Worth()
    rng = np.random.default_rng(0)
    worth.add([1] * (MOST_SAMPLES + 2), rng.normal(-1, 0.1, MOST_SAMPLES + 2))
    worth.add([1] * (MOST_SAMPLES + 2), rng.normal(+1, 0.1, MOST_SAMPLES + 2))
    assert worth.estimates()[1].mean == pytest.approx(1, abs=0.1)


def test_higher_uses_are_forgotten_alone():
    worth = Worth()
    for _ in range(FEWEST_SAMPLES):
        worth.add([1, 2, 3, 1, 2, 3], [1.0, 0.5, 0.1, 1.1, 0.6, 0.2])
    worth.forget(above=2)
    assert sorted(worth.estimates()) == [1, 2]


@pytest.mark.parametrize(
    ("factor", "last"), [(1.0, 1), (1.05, 1), (1.25, 2), (2.0, 2), (2.05, 2), (3.88, 4), (4.0, 4)]
)
def test_the_last_use_is_one_that_batches_have(factor, last):
    assert last_use(factor) == last


@pytest.mark.parametrize(
    ("means", "factor", "limit", "expected"),
    [
        ((9, 5, 3, 0), 4.0, math.inf, math.inf),  # nobody knows of the last one
        ((9, 5, 3, -3), 4.0, math.inf, 3.0),
        ((9, 5, 3, -3), 3.88, math.inf, 3.0),
        ((9, 5, -3), 3.2, math.inf, 3.0),  # few batches have a fourth use, which is worth less
        ((9, 0, -1.5, -1.5), 4.0, math.inf, 3.0),  # neither does harm surely, both together do
        ((9, -3, 0, 0), 4.0, math.inf, 3.0),  # the second one spoils it, and then nothing is left
        ((9, -3), 2.0, 2.0, LEAST_LIMIT),
        ((9, -3), 1.25, LEAST_LIMIT, LEAST_LIMIT),
        ((9, 3), 1.25, LEAST_LIMIT, 3.0),
        ((9, 5, 3), 3.0, 3.0, 4.0),
        ((9, 5, 1.9), 3.0, 3.0, 3.0),
        ((9, 5, 3), 2.5, 4.0, 4.0),  # R is what limits the factor
        ((9, 5, 3), 4.0, math.inf, math.inf),  # the fourth isn't known
        ((-9,), 1.0, math.inf, math.inf),  # the first use is never left out
    ],
)
def test_the_limit(means, factor, limit, expected):
    assert next_limit(made(means), factor, limit) == expected


@given(
    st.lists(st.floats(-10, 10), max_size=9), st.floats(1, 9), st.sampled_from([2.0, 5.0, math.inf])
)
def test_the_limit_moves_by_one_at_most_and_never_without_two_standard_errors(means, factor, limit):
    estimates = made(means)
    found = next_limit(estimates, factor, limit)
    if found == limit:
        return
    last = last_use(factor)
    assert found in (last - 1, last + 1, LEAST_LIMIT)
    if found > last:
        assert means[last - 1] > 2
    else:
        known = min(last, len(means))
        some = [np.array(means[first:known]) for first in range(1, known)]
        some += [np.array(means[1:end]) for end in range(2, known + 1)]
        assert any(uses.mean() < -2 / math.sqrt(len(uses)) for uses in some)


def test_noise_alone_seldom_moves_the_factor():
    """In each of 200 runs of 20 windows, the factor is asked for after each."""
    num_moved = 0
    for seed in range(200):
        rng, worth = np.random.default_rng(seed), Worth()
        for _ in range(20):
            uses = (np.arange(16) + rng.integers(4)) % 4 + 1
            # The later uses are worth half as much as the first, and the noise is four times that.
            worth.add(
                uses.tolist(), (np.where(uses > 1, 0.5, 1.0) + 2 * rng.normal(size=16)).tolist()
            )
            if next_limit(worth.estimates(), 4.0, math.inf) < math.inf:
                num_moved += 1
                break
    assert num_moved / 200 < 0.15


def test_relative_to_the_first_use():
    found = made([10.0, 5.0, -2.0]).relative()
    assert [estimate.mean for estimate in found.values()] == pytest.approx([1.0, 0.5, -0.2])
    assert found[1].standard_error == 0
    assert found[2].standard_error == pytest.approx(math.hypot(1.0, 0.5) / 10)
    assert made([1.9, 1.0]).relative() == {}


def test_in_words():
    assert worth_line(made([10.0, 5.0])) == (
        "What a use of a batch is worth, over the first one: 1: 100% ± 0%, 2: 50% ± 11%"
    )
    assert worth_line(Estimates()) == ""
    assert worth_line(Estimates(), "it's dark").endswith("isn't known: it's dark.")
    assert "lost in noise" in worth_line(made([0.1, 0.1]))
    assert reason(made([9, -1.5, -1.5]), 3) == (
        "Uses 2 to 3 of a batch raise the loss on unseen data, by 1.5 ± 0.71 each (200 steps)"
    )
    assert reason(made([9, 3.0]), 2) == (
        "Use 2 of a batch lowers the loss on unseen data, by 3 ± 1 each (100 steps)"
    )
