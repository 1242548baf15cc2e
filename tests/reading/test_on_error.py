"""What `on_error` means, and what it refuses."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_echo import Retry, Skip
from keras_echo.reading.on_error import Policy, policy
from keras_echo.reading.stream import EmptyPassError


def test_the_short_forms_mean_the_long_ones():
    assert policy("raise") == Policy(None, None)
    assert policy("skip") == policy(Skip()) == Policy(None, Skip())
    assert policy(Retry()) == Policy(Retry(times=3, wait_seconds=1.0, then="raise"), None)
    assert policy(Retry(then="skip")).skip == Skip()
    assert policy(Retry(then=Skip(most=3))).skip == Skip(most=3)


@given(times=st.integers(1, 20), wait_seconds=st.floats(0, 1e6))
def test_the_waits_double(times, wait_seconds):
    again = policy(Retry(times=times, wait_seconds=wait_seconds)).again
    waits = [again(OSError(), num_failures) for num_failures in range(1, times + 1)]
    assert waits == [wait_seconds * 2**number for number in range(times)]
    assert again(OSError(), times + 1) is None


def test_any_number_of_tries_is_a_number_of_seconds():
    assert policy(Retry(times=10**6, wait_seconds=0.0)).again(OSError(), 10**6) == 0.0
    assert policy(Retry(times=10**6)).again(OSError(), 10**6) > 1e300


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), EmptyPassError()])
def test_what_no_further_try_mends_is_not_tried_again(error):
    assert policy(Retry()).again(error, 1) is None


@pytest.mark.parametrize("on_error", ["raise", "skip", Skip(most=1)])
def test_without_retry_nothing_is_tried_again(on_error):
    assert policy(on_error).again(OSError(), 1) is None


@pytest.mark.parametrize(
    ("skip", "num_skipped", "num_reads", "is_allowed"),
    [
        (Skip(), 10**6, 10**6, True),
        (Skip(most=3), 3, 3, True),
        (Skip(most=3), 4, 10**6, False),
        (Skip(most_fraction=0.25), 99, 99, True),
        (Skip(most_fraction=0.25), 25, 100, True),
        (Skip(most_fraction=0.25), 26, 100, False),
        (Skip(most_fraction=1.0), 500, 500, True),
        (Skip(most=9, most_fraction=0.25), 10, 50, False),
        (Skip(most=99, most_fraction=0.25), 51, 200, False),
    ],
)
def test_limits_of_a_count_and_of_a_share(skip, num_skipped, num_reads, is_allowed):
    assert skip.allows(num_skipped, num_reads) == is_allowed


HUNDREDTH = "Pass 0.01 for one read in a hundred."


@pytest.mark.parametrize(
    ("make", "arguments", "error", "message"),
    [
        (Skip, {"most": 0}, ValueError, "most must be at least 1. Received: 0. Pass 1 or more."),
        (Skip, {"most": 1.5}, TypeError, "most must be an integer. Received: 1.5. Pass 1 or more."),
        (
            Skip,
            {"most_fraction": 0},
            ValueError,
            f"most_fraction must be above 0 and at most 1. Received: 0. {HUNDREDTH}",
        ),
        (
            Skip,
            {"most_fraction": math.nan},
            ValueError,
            f"most_fraction must be above 0 and at most 1. Received: nan. {HUNDREDTH}",
        ),
        (
            Skip,
            {"most_fraction": "1%"},
            TypeError,
            f"most_fraction must be a real number. Received: '1%'. {HUNDREDTH}",
        ),
        (Retry, {"times": 0}, ValueError, "times must be at least 1. Received: 0. Pass 1 or more."),
        (
            Retry,
            {"wait_seconds": -1},
            ValueError,
            "wait_seconds must be finite and at least 0. Received: -1. Pass 0 or more.",
        ),
        (
            Retry,
            {"wait_seconds": math.inf},
            ValueError,
            "wait_seconds must be finite and at least 0. Received: inf. Pass 0 or more.",
        ),
        (
            Retry,
            {"then": "ignore"},
            ValueError,
            "then must be 'raise', 'skip' or a keras_echo.Skip. Received: 'ignore'. The default is "
            "'raise'.",
        ),
    ],
)
def test_wrong_arguments_say_what_to_do(make, arguments, error, message):
    with pytest.raises(error) as caught:
        make(**arguments)
    assert str(caught.value) == message
