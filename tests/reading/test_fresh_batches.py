"""Of the reads that fail, some are skipped; what isn't a batch is refused."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_echo import Skip, SkippedRead
from keras_echo.metering import Meter
from keras_echo.reading.batch_form import BatchForm
from keras_echo.reading.fresh_batches import FreshBatches
from keras_echo.reading.prefetcher import StoppedError
from keras_echo.reading.skipped import NONE_SKIPPED, Skipped
from keras_echo.reading.stream import EmptyPassError, Fresh, Position


class Source:
    """Knows the batch at ordinal n as n + 100; reads are their positions."""

    def position_of(self, read):
        return read

    def index_of(self, position, seed):
        return position.ordinal + 100


class Upstream:
    """Batches from the outcomes of reads: an exception, or a batch."""

    def __init__(self, outcomes):
        self.outcomes = enumerate(outcomes)
        self.last_task = None

    def __next__(self):
        self.last_task = None
        ordinal, outcome = next(self.outcomes)
        self.last_task = Position(0, ordinal)
        if isinstance(outcome, Exception):
            raise outcome
        return Fresh(self.last_task, outcome)


def fresh_batches(outcomes, skip=None, most_failures=10**6, num_fresh=0, skipped=NONE_SKIPPED):
    meter = Meter()
    batches = FreshBatches(
        Upstream(outcomes),
        Source(),
        seed=0,
        form=BatchForm(),
        skip=skip,
        most_failures=most_failures,
        num_fresh=num_fresh,
        skipped=skipped,
        meter=meter,
    )
    return batches, meter


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
    outcomes = [error, error, BATCH, error, error, error]
    batches, meter = fresh_batches(outcomes, Skip(), most_failures=3)
    with pytest.warns(RuntimeWarning, match="A read failed and was skipped"):
        assert next(batches).position == (0, 2)
    with pytest.raises(OSError, match="gone"):
        next(batches)
    assert meter.num_skipped == 4


def test_what_a_state_holds_and_cannot_be_read_again_is_left_out():
    batches, meter = fresh_batches([BATCH, OSError("gone"), BATCH], Skip())
    assert batches.again().position == (0, 0)
    with pytest.warns(RuntimeWarning, match="skipped"):
        assert batches.again() is None
    assert batches.position is None  # of those that are fresh
    assert next(batches).position == (0, 2)
    assert meter.num_skipped == 1


@pytest.mark.parametrize("error", [StoppedError("closed"), EmptyPassError("no batch")])
def test_what_is_no_failure_of_a_read_is_not_skipped(error):
    for ask in (lambda batches: next(batches), lambda batches: batches.again()):
        batches, meter = fresh_batches([error, BATCH], Skip())
        with pytest.raises(type(error)):
            ask(batches)
        assert meter.num_skipped == 0


def test_what_is_no_batch_is_refused():
    batches, _ = fresh_batches([7])
    with pytest.raises(ValueError, match="A batch of the source must be a tuple") as caught:
        next(batches)
    assert caught.value.__notes__ == ["keras_echo was reading batch 100 of the source."]


X = np.zeros((2, 1), "float32")


@pytest.mark.parametrize(
    ("first", "other", "must", "received"),
    [
        ((X,), (X, X), "1 part", "2 parts"),
        ((X, X), (X, X.astype(int)), "float32 of rank 2 at [1]", "int64 of rank 2"),
        ((X, X), (X, X[0]), "float32 of rank 2 at [1]", "float32 of rank 1"),
        ((X, None), (X, X), "NoneType at [1]", "float32 of rank 2"),
        (
            ({"a": X, "b": X},),
            ({"a": X},),
            "the keys 'a', 'b' at [0]",
            "the keys 'a'",
        ),
        (
            ({"a": [X, X]},),
            ({"a": [X, X.astype("S3")]},),
            "float32 of rank 2 at [0]['a'][1]",
            "text of rank 2",
        ),
        ((X,), {"a": X}, "1 part", "the keys 'a'"),
    ],
)
def test_a_batch_of_another_form_names_its_index_and_what_differs(first, other, must, received):
    batches, _ = fresh_batches([first, other, first, other])
    next(batches)
    with pytest.raises(ValueError, match=r"^Batch 101 of the source must have ") as caught:
        next(batches)
    assert str(caught.value) == (
        f"Batch 101 of the source must have {must}, as the first batch has. Received: {received}. "
        "Have the source return all batches in one form, or pass on_error='skip' to leave out "
        "those of another form."
    )
    assert next(batches).position == (0, 2)
    batches, _ = fresh_batches([first, other, first], Skip())
    next(batches)
    with pytest.warns(RuntimeWarning, match="Batch 101 of the source"):
        assert next(batches).position == (0, 2)
    assert [read.index for read in batches.skipped_before(Position(1, 0)).last] == [101]


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ((X,), (np.zeros((7, 5), "float32"),)),
        ((np.array(["a"]),), (np.array([b"bcd"]),)),
        ((np.array(["a"]),), (np.array(["a", "b"], object),)),
        (({"a": X, "b": X[0]},), ({"b": X[0], "a": X},)),
        (([X, X],), ((X, X),)),
    ],
    ids=["sizes", "bytes", "objects", "order of keys", "lists and tuples"],
)
def test_what_may_vary_from_batch_to_batch(first, other):
    batches, _ = fresh_batches([first, other])
    assert next(batches).batch is first
    assert next(batches).batch is other


def test_the_first_batch_stays_the_first_in_another_pipeline():
    form = BatchForm()
    form.check((X,), lambda: 0)
    assert form.fits((X[:1],))
    assert not form.fits((X[0],))
    for _ in range(2):  # else it would pass where it is tried again
        with pytest.raises(ValueError, match="Batch 7 of"):
            form.check((X[0],), lambda: 7)


@pytest.mark.filterwarnings("ignore:A read failed and was skipped:RuntimeWarning")
def test_what_was_skipped_is_told_up_to_a_position():
    gone, broken = OSError("gone"), ValueError("broken")
    outcomes = [BATCH, gone, BATCH, broken, gone, BATCH]
    before = Skipped(5, (SkippedRead(42, "KeyError: 'x'"),))
    batches, _ = fresh_batches(outcomes, Skip(), skipped=before)
    next(batches)
    assert batches.skipped_before(Position(0, 1)) == before
    assert next(batches).position == (0, 2)
    assert batches.skipped_before(Position(0, 1)) == before
    once = Skipped(6, (*before.last, SkippedRead(101, "OSError: gone")))
    assert batches.skipped_before(Position(0, 2)) == once
    assert next(batches).position == (0, 5)
    assert batches.skipped_before(Position(0, 3)) == once
    assert batches.skipped_before(Position(1, 0)) == Skipped(
        8, (*once.last, SkippedRead(103, "ValueError: broken"), SkippedRead(104, "OSError: gone"))
    )


def test_the_last_hundred_are_listed():
    reads = [SkippedRead(index, "OSError: gone") for index in range(250)]
    skipped = NONE_SKIPPED.plus(reads[:90]).plus(reads[90:])
    assert skipped.num == 250
    assert skipped.last == tuple(reads[150:])


@pytest.mark.filterwarnings("ignore:A read failed and was skipped:RuntimeWarning")
@given(
    outcomes=st.lists(st.booleans(), max_size=30),
    most=st.none() | st.integers(1, 9),
    most_fraction=st.none() | st.floats(0.01, 1),
    num_fresh=st.integers(0, 200),
    num_before=st.integers(0, 9),
)
def test_no_more_are_skipped_than_may_be(outcomes, most, most_fraction, num_fresh, num_before):
    """Those before count, too; where one more may not be skipped, its error says how many were."""
    skip = Skip(most=most, most_fraction=most_fraction)
    reads = [BATCH if is_right else OSError("gone") for is_right in outcomes]
    batches, _ = fresh_batches(reads, skip, num_fresh=num_fresh, skipped=Skipped(num_before))
    num_skipped, num_reads, has_raised = num_before, num_fresh + num_before, False
    for is_right in outcomes:
        share = (num_skipped + 1) / (num_reads + 1)
        is_over = (most is not None and num_skipped + 1 > most) or (
            most_fraction is not None and num_reads + 1 >= 100 and share > most_fraction
        )
        if not is_right and is_over:
            has_raised = True
            break
        num_skipped, num_reads = num_skipped + (not is_right), num_reads + 1
    if has_raised:
        with pytest.raises(OSError, match="gone") as caught:
            deque(batches)
        assert caught.value.__notes__[-1] == (
            f"keras_echo has skipped {num_skipped} of {num_reads} reads, and may skip no more: "
            f"Skip(most={most}, most_fraction={most_fraction})."
        )
    else:
        deque(batches)
    assert batches.skipped_before(Position(1, 0)).num == num_skipped


def test_what_fails_and_is_no_read_raises():
    class Hook(Upstream):
        def __next__(self):
            raise ZeroDivisionError("on_epoch_end")

    batches, _ = fresh_batches([], Skip())
    batches._upstream = Hook([])
    with pytest.raises(ZeroDivisionError):
        next(batches)
