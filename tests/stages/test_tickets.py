"""The sequences of calls are those that Keras 3.15.1 makes; tests/keras_fit makes it make them."""

import itertools

import pytest

from keras_echo.tickets import Tickets


def play(script):
    """Plays a script of indices, B and E; returns what each index was served."""
    tickets = Tickets(itertools.count().__next__)
    served = []
    for call in script.split():
        if call == "B":
            tickets.on_epoch_begin()
        elif call == "E":
            tickets.on_epoch_end()
        elif call != "|":
            served.append(tickets.serve(int(call))[0])
    return served


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        # TensorFlow: two batches before the first epoch, in every fit()
        ("0 1 E B 2 0 1 E B 1 0 2 E", [0, 1, 0, 1, 2, 3, 4, 5]),
        ("0 1 E B 2 0 1 E | 0 1 E B 1 2 0 E", [0, 1, 0, 1, 2, 3, 4, 3, 4, 5]),
        ("0 E B 0 E B 0 E | 0 E B 0 E", [0, 0, 1, 2, 2]),
        # and in predict()
        ("0 1 B 0 1 2 E", [0, 1, 0, 1, 2]),
        # JAX and PyTorch: one batch in an epoch of its own, for a model that isn't built
        ("B 2 E B 2 0 1 E B 1 0 2 E", [0, 0, 1, 2, 3, 4, 5]),
        ("B 0 E B 0 E B 0 E | E B 0 E B 0 E", [0, 0, 1, 2, 3]),
        ("B 2 E B 2 0 1 E | E B 0 1 2 E", [0, 0, 1, 2, 3, 4, 5]),
        ("B 2 E B 2 0 1 E | B 1 E B 1 0 2 E", [0, 0, 1, 2, 3, 3, 4, 5]),
        # epochs of one step are epochs
        ("E B 3 E B 1 E B 2 E", [0, 1, 2]),
        ("B 3 E B 3 E B 1 E B 2 E", [0, 0, 1, 2]),
        # TensorFlow fetches ahead between short epochs: not a look
        ("0 1 E B 3 1 2 E 4 B 0 E", [0, 1, 0, 1, 2, 3, 4]),
        # the user's own look at the first batch
        ("0 E B 1 0 E", [0, 0, 1]),
        ("0 B 1 E B 1 0 2 E", [0, 0, 0, 1, 2]),
        # the user's own loop is served batch after batch
        ("0 0 0 0 0", [0, 1, 2, 3, 4]),
        ("0 1 2 3 0 1 2 3", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("0 1 2 E 0 1 2 E", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_serves_looks_again(script, expected):
    assert play(script) == expected


def test_a_tiny_loop_of_the_users_own_gets_on():
    """Two batches and an E can't be told from a look of TensorFlow's; but it never hangs."""
    assert max(play("0 1 E " * 30)) >= 15


def test_says_what_may_come_again():
    tickets = Tickets(itertools.count().__next__)
    assert [tickets.serve(index) for index in (0, 1, 2)] == [(0, True), (1, True), (2, False)]
    tickets.on_epoch_begin()
    tickets.on_epoch_end()
    assert tickets.pending == ()
    tickets.serve(0)
    tickets.on_epoch_end()
    assert tickets.pending == (3,)
