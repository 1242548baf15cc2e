import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_echo import EchoFactor


@given(value=st.floats(1, 1e6) | st.integers(1, 1000))
def test_keeps_valid_values(value):
    factor = EchoFactor()
    factor.value = value
    assert factor.value == value
    assert isinstance(factor.value, float)


@pytest.mark.parametrize("value", [0.5, 0, -1, math.nan, math.inf, 1 - 1e-12])
def test_refuses_values_below_one(value):
    factor = EchoFactor(3.0)
    message = (
        f"echo_factor must be finite and at least 1. Received: {value!r}. "
        "1.0 means no echoing, 4.0 uses every upstream output four times."
    )
    for attempt in (lambda: EchoFactor(value), lambda: setattr(factor, "value", value)):
        with pytest.raises(ValueError, match=r"^echo_factor") as caught:
            attempt()
        assert str(caught.value) == message
    assert factor.value == 3.0


@pytest.mark.parametrize("value", ["2", None, True, 2j, [2.0]])
def test_refuses_other_types(value):
    with pytest.raises(TypeError) as caught:
        EchoFactor(value)
    assert str(caught.value) == (
        f"echo_factor must be a real number. Received: {value!r}. "
        "1.0 means no echoing, 4.0 uses every upstream output four times."
    )


def test_followers_end_with_the_latest_value():
    factor, told = EchoFactor(2.0), []
    factor.follow(told.append)
    setters = [
        threading.Thread(target=setattr, args=(factor, "value", value)) for value in range(3, 30)
    ]
    for setter in setters:
        setter.start()
    for setter in setters:
        setter.join()
    assert told[0] == 2.0
    assert told[-1] == factor.value
    assert sorted(told) == [float(value) for value in range(2, 30)]


def test_says_what_it_is():
    assert repr(EchoFactor(2.5)) == "EchoFactor(2.5)"
