"""Whose memory is it? What is handed out is seen by nobody else, wherever it waits."""

import numpy as np
import pytest

from keras_echo.echoing.state import State
from keras_echo.memory.host import HostBatch
from keras_echo.serving.pipeline import Served


def served(is_only, is_ours):
    batch = (np.arange(3.0), None)
    waiting = HostBatch(batch, is_ours)
    state = State(seed=0)
    return batch, Served(waiting, is_only, state, state, 1.0, None)


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
