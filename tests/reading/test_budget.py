import threading

from hypothesis import given
from hypothesis import strategies as st

from keras_echo.reading.budget import Budget

holders = st.integers(0, 5)


@given(
    most=st.integers(0, 30),
    actions=st.lists(st.tuples(holders, st.integers(0, 20) | st.none()), max_size=40),
)
def test_bytes_are_given_where_they_are_left_and_taken_back_once(most, actions):
    budget, held = Budget(most), {}
    for holder, num_bytes in actions:
        if num_bytes is None:
            budget.give_back(holder)
            held.pop(holder, None)
        else:
            fits = holder not in held and sum(held.values()) + num_bytes <= most
            assert budget.reserve(holder, num_bytes) == fits
            if fits:
                held[holder] = num_bytes
        assert budget.num_bytes == sum(held.values()) <= most


def test_what_is_held_before_counts():
    budget = Budget(10, {"a": 8, "b": 6})
    assert budget.num_bytes == 14
    assert not budget.reserve("c", 0)
    budget.give_back("a")
    assert budget.reserve("c", 4)
    assert not budget.reserve("d", 1)


def test_two_threads_do_not_get_the_same_byte():
    """The second one asks while the first one is between its look at what is left and its share."""
    budget, got = Budget(1), {}
    second = threading.Thread(target=lambda: got.update(second=budget.reserve("second", 1)))

    class First:
        num_looks = 0

        def __hash__(self):
            self.num_looks += 1
            if self.num_looks == 2:
                second.start()
                second.join(0.1)  # it waits for the first one
            return 1

    got["first"] = budget.reserve(First(), 1)
    second.join()
    assert got == {"first": True, "second": False}
    assert budget.num_bytes == 1
