"""What is handed out is seen by nobody else, wherever it waits, and says which use it is."""

import itertools

import numpy as np
import pytest

from keras_echo import EchoingPyDataset
from keras_echo.echoing.state import State
from keras_echo.memory.host import HostBatch
from keras_echo.serving.pipeline import Pipeline, Served


def served(is_only, is_ours):
    batch = (np.arange(3.0), None)
    waiting = HostBatch(batch, is_ours)
    state = State(seed=0)
    return batch, Served(waiting, is_only, 1, None, state, state, 1.0, None)


def is_copied(handed_out, batch):
    np.testing.assert_array_equal(handed_out[0], batch[0])
    assert handed_out[1] is None
    return not np.shares_memory(handed_out[0], batch[0])


@pytest.mark.parametrize("is_ours", [False, True])
@pytest.mark.parametrize("is_only", [False, True])
@pytest.mark.parametrize("may_return", [False, True])
def test_a_use_is_copied_unless_it_is_the_only_one_and_never_returns(is_only, is_ours, may_return):
    batch, use = served(is_only, is_ours)
    must_copy = may_return or not is_only
    assert is_copied(use.hand_out(may_return=may_return), batch) == must_copy
    assert is_copied(use.from_host(may_return=may_return), batch) == must_copy


@pytest.mark.parametrize("is_ours", [False, True])
@pytest.mark.parametrize("is_only", [False, True])
def test_what_may_be_changed_is_a_copy_unless_it_is_ours_and_used_once(is_only, is_ours):
    batch, use = served(is_only, is_ours)
    assert is_copied(use.to_change(), batch) == (not (is_only and is_ours))


def uses(num, pause_after=None, **options):
    """Of each batch served: the place of its fresh batch, and which use of it this is."""
    x = np.arange(24)[:, None]
    with EchoingPyDataset((x, x), batch_size=2, shuffle=False, seed=5, **options) as dataset:
        pipeline = Pipeline(dataset._settings, dataset._feed.state)
        found = list(itertools.islice(pipeline, num if pause_after is None else pause_after))
        pipeline.stop()
        if pause_after is not None:
            pipeline = Pipeline(dataset._settings, found[-1].after.without_batches())
            found += itertools.islice(pipeline, num - pause_after)
            pipeline.stop()
    for served in found:
        if served.position is not None:
            assert served.waiting.batch[0][0, 0] == 2 * served.position.ordinal
    return [(served.position and served.position.ordinal, served.number) for served in found]


@pytest.mark.parametrize("augment", [None, lambda batch: batch])
def test_a_use_says_which_use_of_which_batch_it_is(augment):
    in_order = [(ordinal, number) for ordinal in range(3) for number in (1, 2, 3)]
    assert uses(9, echo_factor=3, shuffle_buffer=0, augment=augment) == in_order


def test_a_use_of_examples_is_of_no_one_batch():
    assert uses(4, echo_factor=3, echo="example") == [(None, 0)] * 4


@pytest.mark.parametrize("pause_after", range(1, 18))
def test_shuffled_and_resumed_each_use_is_made_once(pause_after):
    options = {"echo_factor": 3, "shuffle_buffer": 4}
    whole = uses(18, **options)
    assert uses(18, pause_after=pause_after, **options) == whole
    due = {(ordinal, number) for ordinal in range(8) for number in (1, 2, 3)}
    assert len(set(whole)) == 18
    assert set(whole) <= due
    assert whole != sorted(whole)
