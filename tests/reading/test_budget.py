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


def test_threads_get_no_byte_twice():
    budget, start = Budget(1000), threading.Barrier(4)
    got = [0] * 4

    def take(number):
        start.wait(10)
        for n in range(500):
            got[number] += budget.reserve((number, n), 1)
            if budget.reserve((number, "for a moment"), 1):
                budget.give_back((number, "for a moment"))

    threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 996 < sum(got) == budget.num_bytes <= 1000  # a moment may be another's last
