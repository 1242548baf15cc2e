"""Of the reads that fail, some are skipped; what isn't a batch is refused."""

import numpy as np
import pytest

from keras_echo.metering import Meter
from keras_echo.reading.fresh_batches import FreshBatches
from keras_echo.reading.prefetcher import StoppedError
from keras_echo.reading.stream import EmptyPassError, Fresh, Position


def fresh_batches(outcomes, most_failures=1):
    """Batches from the outcomes of reads: an exception, or a batch."""

    class Upstream:
        def __init__(self):
            self.ordinals = iter(range(len(outcomes)))

        def __iter__(self):
            return self

        def __next__(self):
            ordinal = next(self.ordinals)
            if isinstance(outcomes[ordinal], Exception):
                raise outcomes[ordinal]
            return Fresh(Position(0, ordinal), outcomes[ordinal])

    meter = Meter()
    return FreshBatches(Upstream(), most_failures=most_failures, meter=meter), meter


BATCH = (np.zeros((2, 1)),)


def test_without_skipping_every_failure_raises_and_the_next_read_follows():
    batches, meter = fresh_batches([BATCH, OSError("gone"), BATCH])
    assert next(batches).position == batches.position == (0, 0)
    with pytest.raises(OSError, match="gone"):
        next(batches)
    assert batches.position == (0, 0)
    assert next(batches).position == batches.position == (0, 2)
    assert meter.num_skipped == 0


def test_failures_in_a_row_are_skipped_up_to_the_last():
    error = OSError("gone")
    batches, meter = fresh_batches([error, error, BATCH, error, error, error], most_failures=3)
    with pytest.warns(RuntimeWarning, match="A read failed and was skipped"):
        assert next(batches).position == (0, 2)
    with pytest.raises(OSError, match="gone"):
        next(batches)
    assert meter.num_skipped == 4


def test_what_a_state_holds_and_cannot_be_read_again_is_left_out():
    batches, meter = fresh_batches([BATCH, OSError("gone"), BATCH], most_failures=5)
    assert batches.again().position == (0, 0)
    with pytest.warns(RuntimeWarning, match="skipped"):
        assert batches.again() is None
    assert batches.position is None  # of those that are fresh
    assert next(batches).position == (0, 2)
    assert meter.num_skipped == 1


@pytest.mark.parametrize("error", [StoppedError("closed"), EmptyPassError("no batch")])
def test_what_is_no_failure_of_a_read_is_not_skipped(error):
    for ask in (lambda batches: next(batches), lambda batches: batches.again()):
        batches, meter = fresh_batches([error, BATCH], most_failures=9)
        with pytest.raises(type(error)):
            ask(batches)
        assert meter.num_skipped == 0


def test_what_is_no_batch_is_refused():
    batches, _ = fresh_batches([7])
    with pytest.raises(ValueError, match="A batch of the source must be a tuple"):
        next(batches)
