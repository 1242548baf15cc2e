"""The first batch that is read is compared with what a saved state knows of it."""

import warnings

import numpy as np
import pytest

from keras_echo.metering import Meter
from keras_echo.reading.batch_form import BatchForm
from keras_echo.reading.fresh_batches import FreshBatches
from keras_echo.reading.landmarks import NO_LANDMARKS, Fingerprint
from keras_echo.reading.on_error import Skip
from keras_echo.reading.prefetcher import StoppedError
from keras_echo.reading.recognition import Recognition
from keras_echo.reading.skipped import NONE_SKIPPED
from keras_echo.reading.stream import Fresh, Position

BATCH = (np.zeros((2, 1)),)
SOUGHT = Fingerprint(Position(1, 3), "as before")


def fresh(ordinal, fingerprint="", number=1):
    return Fresh(Position(number, ordinal), BATCH, fingerprint=fingerprint)


def recognition(*outcomes, sought=SOUGHT):
    """What is read, from the outcomes of reads: an exception, or a batch."""

    left = list(outcomes)

    class Upstream:
        last_task = "the read"

        def __next__(self):
            outcome = left.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

    return Recognition(Upstream(), NO_LANDMARKS, sought)


def test_the_batch_that_it_was_is_recognised():
    batches = recognition(fresh(3, "as before"), fresh(4, "whatever"))
    assert [next(batches).position.ordinal for _ in range(2)] == [3, 4]
    position = Position(1, 4)
    assert batches.landmarks((position.next,)).fingerprint == Fingerprint(position, "whatever")


@pytest.mark.parametrize("other", [fresh(3, "another"), fresh(0, "as before", number=2)])
def test_another_one_is_told_of_once(other):
    batches = recognition(other, fresh(5, "another"))
    with pytest.warns(RuntimeWarning, match=r"^Batch 3 of pass 1 of the source must be the one"):
        assert next(batches) is other
    next(batches)


def test_nothing_is_compared_where_nothing_is_known_or_the_read_fails():
    next(recognition(fresh(3, "another"), sought=None))
    batches = recognition(OSError("gone"), fresh(4, "another"))
    with pytest.raises(OSError, match="gone"):
        next(batches)
    next(batches)


def test_a_batch_that_nobody_waited_for_is_still_compared():
    batches = recognition(StoppedError("closed"), fresh(3, "another"))
    with pytest.raises(StoppedError):
        next(batches)
    with pytest.warns(RuntimeWarning, match="must be the one that it was"):
        next(batches)


class Source:
    def position_of(self, read):
        return Position(1, 3)

    def index_of(self, position, seed):
        return position.ordinal


def batches_of(*outcomes, skip=None):
    """Fresh batches, of which the first is read only to be compared."""
    meter = Meter()
    batches = FreshBatches(
        recognition(*outcomes),
        Source(),
        seed=0,
        form=BatchForm(),
        skip=skip,
        most_failures=5,
        num_fresh=0,
        skipped=NONE_SKIPPED,
        meter=meter,
        num_unneeded=1,
    )
    return batches, meter


@pytest.mark.parametrize("ask", [next, FreshBatches.again])
def test_what_is_read_only_to_be_compared_is_not_used(ask):
    batches, meter = batches_of(fresh(3, "as before"), fresh(4))
    assert ask(batches).position == (1, 4)
    assert meter.num_skipped == 0


@pytest.mark.parametrize("ask", [next, FreshBatches.again])
def test_it_may_fail_where_others_may(ask):
    batches, _ = batches_of(OSError("gone"), fresh(4))
    with pytest.raises(OSError, match="gone"):
        ask(batches)
    batches, meter = batches_of(OSError("gone"), fresh(4), skip=Skip())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert ask(batches).position == (1, 4)
    assert meter.num_skipped == 1
