import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_echo.echoing.state import State
from keras_echo.serving.trail import Trail


def state(num_steps):
    return State(seed=0, num_steps=num_steps)


@given(st.integers(0, 5), st.lists(st.integers(0, 9), max_size=30))
def test_where_training_is_while_the_stream_runs_ahead(first, leads):
    """`leads`: how many batches are fetched ahead of each step."""
    trail = Trail()
    trail.begin(state(first))
    served, factors = first, {}
    for num_trained, lead in enumerate([*leads, 0], first):
        trail.trained(num_trained)
        while served < num_trained + lead:
            served += 1
            factors[served] = float(served)
            trail.served(state(served), factors[served])
        if served < num_trained:
            with pytest.raises(LookupError):
                trail.after(num_trained)
            return
        found = trail.after(num_trained)
        assert found.state == state(num_trained)
        assert found.factors == tuple(factors[n] for n in range(num_trained + 1, served + 1))


def test_what_was_put_back_is_served_again():
    trail = Trail()
    trail.begin(state(0))
    for num_steps, factor in ((1, 1.0), (2, 2.0), (3, 3.0), (2, 5.0)):
        trail.served(state(num_steps), factor)
    with pytest.raises(LookupError):
        trail.after(3)
    assert trail.after(1).factors == (5.0,)


def test_nothing_is_kept_for_nobody():
    trail = Trail()
    trail.served(state(1), 1.0)
    with pytest.raises(LookupError):
        trail.after(1)
    trail.begin(state(1))
    trail.end()
    trail.served(state(2), 1.0)
    with pytest.raises(LookupError):
        trail.after(2)
