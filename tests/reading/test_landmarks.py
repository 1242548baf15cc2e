"""Of what was read, the last landmarks before what is needed are known, however much is read."""

from hypothesis import given
from hypothesis import strategies as st

from keras_echo.reading.landmarks import NO_LANDMARKS, Fingerprint, Record
from keras_echo.reading.stream import Bookmark, Fresh, Position

LENGTH = 4


def position(number):
    return Position(*divmod(number, LENGTH))


def last(places, most):
    """The last of the places in the pass of `most`, up to and with it."""
    return max((each for each in places if (most.number, 0) <= each <= most), default=None)


@given(
    num_read=st.integers(0, 20),
    skipped=st.sets(st.integers(0, 20)),
    without_bookmark=st.sets(st.integers(0, 20)),
    windows=st.lists(st.tuples(st.integers(0, 21), st.integers(0, 6)), max_size=6),
    known=st.just(NO_LANDMARKS)
    | st.just(NO_LANDMARKS._replace(bookmarks=(Bookmark(Position(0, 0), "b"),))),
)
def test_the_last_ones_before_what_is_needed_are_known(
    num_read, skipped, without_bookmark, windows, known
):
    record = Record(known)
    read, marked = [], [each.position for each in known.bookmarks]
    for number in sorted({*range(num_read)} - skipped):
        at = position(number)
        has_bookmark = number not in without_bookmark
        record.add(Fresh(at, None, bookmark=Bookmark(at, "b") if has_bookmark else None))
        read.append(at)
        marked += [at] * has_bookmark
    for first, num_more in sorted(windows):
        needed = tuple(position(number) for number in range(first, first + num_more + 1))
        bookmarks, fingerprint = record.of(needed)
        compared = last(read, needed[0])
        assert fingerprint == (compared and Fingerprint(compared, ""))
        begins = {place.number: place for place in (*reversed(needed), compared or needed[0])}
        expected = {last(marked, begin) for begin in begins.values()} - {None}
        assert {each.position for each in bookmarks} == expected
        assert [*bookmarks] == sorted(bookmarks)
