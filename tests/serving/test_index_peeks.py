"""Which elements of a stream are served, in Keras's sequences of calls and in any other.

The sequences are those of `keras_echo.serving.keras_calls`; tests/keras_fit makes Keras make them.
"""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_echo.serving.index_peeks import IndexPeeks


class Element:
    """An element of a stream, and what it is a use of."""

    def __init__(self, number, output):
        self.number = self.before = number
        self.after = number + 1
        self.output = output


def stream(num_uses=1):
    outputs = (object() for _ in itertools.count())
    uses = (output for output in outputs for _ in range(num_uses))
    elements = (Element(number, output) for number, output in enumerate(uses))
    return IndexPeeks(elements.__next__, standing=0)


def serve(tickets):
    served = tickets.next()
    assert tickets.next() is served
    tickets.moved_on()
    return served


def play(script, num_uses=1):
    """Plays a script: `p0` peeks at 0, `(` and `B` begin a peek and an epoch, `E` ends either."""
    tickets, served = stream(num_uses), []
    for call in script.split():
        if call in "(B":
            tickets.on_epoch_begin(is_peek=call == "(")
        elif call == "E":
            tickets.on_epoch_end()
        elif call.startswith("p"):
            served.append(tickets.peek(int(call[1:])).number)
        else:
            served.append(serve(tickets).number)
    return served


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        # TensorFlow: two batches before the first epoch, in every fit()
        ("p0 p1 E B s s s E p0 p1 E B s E", [0, 1, 0, 1, 2, 3, 4, 3]),
        # and, with a strategy, as many as are fetched ahead, whatever that is
        ("p0 p1 ( s s s s s s E B s s s E", [0, 1, 0, 1, 2, 3, 4, 5, 0, 1, 2]),
        ("p0 p1 ( s s E B s s E B s s E", [0, 1, 0, 1, 0, 1, 2, 3]),
        # JAX and PyTorch: one batch in an epoch of its own, for a model that isn't built
        ("( s E B s s s E B s s E", [0, 0, 1, 2, 3, 4]),
        ("( s E B s E B s E ( s E B s E", [0, 0, 1, 2, 2]),
        # a peek that an exception ended
        ("( s s ( s E B s s s E", [0, 1, 0, 0, 1, 2]),
        ("( s s B s s s E", [0, 1, 0, 1, 2]),
        # TensorFlow fetches ahead between short epochs
        ("p0 p1 E B s s s E s B s E", [0, 1, 0, 1, 2, 3, 4]),
        # the user's own loop
        ("s s s B s s E s", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_serves_again_what_was_peeked_at(script, expected):
    assert play(script) == expected


@pytest.mark.parametrize(
    ("num_uses", "peeked"), [(1, [0, 1, 2]), (2, [0, 2, 4]), (5, [0, 5, 10]), (1000, [0, 31, 31])]
)
def test_peeks_are_at_different_outputs_as_far_as_that_is_seen(num_uses, peeked):
    assert play("p0 p1 p2 B s s s", num_uses) == [*peeked, 0, 1, 2]
    assert play("p0 p1 p2 s s p0", num_uses)[3:] == [0, 1, 2]


@given(
    num_uses=st.integers(1, 4),
    calls=st.lists(st.sampled_from(["s", "p0", "p1", "B s E", "( s s E", "( s (", "E"])),
)
def test_what_is_not_peeked_at_is_the_stream(num_uses, calls):
    tickets, served = stream(num_uses), []
    for call in " ".join(calls).split():
        if call in "(B":
            tickets.on_epoch_begin(is_peek=call == "(")
        elif call == "E":
            tickets.on_epoch_end()
        elif call.startswith("p"):
            tickets.peek(int(call[1:]))
        else:
            element, standing = serve(tickets), tickets.standing
            if tickets.is_peek:
                assert standing == len(served)
                assert element in tickets.ahead
            else:
                served.append(element.number)
                assert standing == len(served)
    assert served == [*range(len(served))]


def test_says_what_comes_again():
    tickets = stream()
    tickets.on_epoch_begin(is_peek=True)
    first, second = serve(tickets), serve(tickets)
    assert (tickets.ahead, tickets.standing) == ((first, second), 0)
    tickets.on_epoch_begin(is_peek=False)
    assert serve(tickets) is first
    assert (tickets.ahead, tickets.standing) == ((second,), 1)
    tickets.put_back([first])
    assert (tickets.ahead, tickets.standing) == ((first, second), 0)
    tickets.go_on_from(5)
    assert (tickets.ahead, tickets.standing) == ((), 5)
    assert tickets.is_in_epoch
