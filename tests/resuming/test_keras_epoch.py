"""The names of Keras that resuming relies on: if one of these fails, Keras has changed."""

import inspect
import warnings

import keras
import pytest

from keras_echo.resuming.keras_epoch import ShortEpoch, begin_at_epoch


def test_keras_looks_for_the_first_epoch_after_on_train_begin():
    model = keras.Sequential([keras.Input((1,))])
    assert model._initial_epoch is None
    begin_at_epoch(model, 3)
    assert model._initial_epoch == 3
    source = inspect.getsource(inspect.unwrap(keras.Model.fit))
    assert source.index("callbacks.on_train_begin()") < source.index("self._initial_epoch")


def test_keras_says_that_data_ran_out_in_the_words_that_are_left_out():
    from keras.src.trainers.epoch_iterator import EpochIterator

    with pytest.warns(UserWarning, match="^Your input ran out of data"):
        EpochIterator._interrupted_warning(None)


def test_a_short_epoch_ends_without_that_warning():
    short = ShortEpoch()
    short.begins(range(1), 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("Your input ran out of data", stacklevel=1)
        assert len(caught) == 1
    short.begins(range(1, 2), 2)
    warnings.warn("Your input ran out of data", stacklevel=1)
    with pytest.raises(StopIteration):
        short.begins(range(2, 3), 2)
    short.has_ended()
    short.has_ended()
    with pytest.warns(UserWarning, match="ran out"):
        warnings.warn("Your input ran out of data", stacklevel=1)
