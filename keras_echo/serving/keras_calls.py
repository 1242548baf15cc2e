"""On whose behalf Keras calls a dataset: what it doesn't say, but the stack shows.

A `PyDataset` gets indices, and is told that an epoch begins or ends. Whether `Model.fit()` trains
on what it reads, or only peeks at it to learn its shape, stands on the stack of the calling thread:
which of Keras's public methods is at work, and whether it has come to the place in its code where
it calls `on_train_begin()` of the callbacks. What it reads before that is a peek.

These are the calls of Keras 3.15.1, recorded with four batches and two epochs. B and E are
`on_epoch_begin` and `on_epoch_end`; | is where `on_train_begin`, `on_test_begin` or
`on_predict_begin` of the callbacks is called:

    fit
        TensorFlow                    0 1 E | B 0 1 2 3 E B 0 1 2 3 E
        the same, MirroredStrategy    0 1 B 0 1 2 3 E | B 0 1 2 3 E B 0 1 2 3 E
        JAX, PyTorch, model is new    B 0 E | B 0 1 2 3 E B 0 1 2 3 E
        the same, trained before      E | B 0 1 2 3 E B 0 1 2 3 E
    evaluate
        as fit, with one epoch
    fit(validation_data=), calls of the dataset for validation
        TensorFlow                    0 1, on behalf of fit, after |; then as evaluate without 0 1
        JAX, PyTorch                  as evaluate
    predict
        TensorFlow, any strategy      0 1 | B 0 1 2 3 E
        JAX, model is new             B 0 E | B 0 1 2 3 E
        JAX, built; PyTorch           | B 0 1 2 3 E

The indices between B and E come from a thread of `tf.data` on TensorFlow, on which no method of
Keras is to be seen; all other calls come from the thread that called the method. Under
`MirroredStrategy`, the epoch before | ends after as many batches as `tf.data` and the iterator
over several devices fetch ahead: 6 of 30 on two devices.
"""

from __future__ import annotations

import dis
import functools
import inspect
from typing import TYPE_CHECKING, NamedTuple

import keras

if TYPE_CHECKING:
    from types import CodeType

# Public methods of a model, and the callback that each calls before its first epoch.
_BEGINS = {
    "fit": "on_train_begin",
    "evaluate": "on_test_begin",
    "predict": "on_predict_begin",
}


class KerasCall(NamedTuple):
    """A method of `keras.Model` that is at work.

    Attributes:
        method: `"fit"`, `"evaluate"` or `"predict"`.
        has_begun: Whether its callbacks were told that training, testing or predicting begins.
    """

    method: str
    has_begun: bool

    @property
    def may_peek(self) -> bool:
        """Whether what it reads outside of an epoch is a peek, and no batch of a training.

        There is a training outside of an epoch where a callback called `fit()` on the same dataset:
        the inner one has ended its epoch. On TensorFlow, `fit()` peeks at data for validation then;
        what it trains on is read by a thread of `tf.data`.
        """
        return not self.has_begun or keras.backend.backend() == "tensorflow"


def current_call() -> KerasCall | None:
    """The innermost method of `keras.Model` under which this thread runs; None if there is none."""
    methods = _methods()
    frame = inspect.currentframe()
    while frame is not None:
        if (found := methods.get(frame.f_code)) is not None:
            method, begin = found
            return KerasCall(method, frame.f_lasti > begin)
        frame = frame.f_back
    return None


@functools.cache
def _methods() -> dict[CodeType, tuple[str, int]]:
    """The code of each method, its name, and where in the code it begins."""
    codes = {method: inspect.unwrap(getattr(keras.Model, method)).__code__ for method in _BEGINS}
    return {code: (method, _begin(code, _BEGINS[method])) for method, code in codes.items()}


def _begin(code: CodeType, callback: str) -> int:
    """Where `callback` is looked up; -1 if nowhere, so that nothing in an epoch is a peek."""
    offsets = (
        instruction.offset
        for instruction in dis.get_instructions(code)
        if instruction.argval == callback
    )
    return next(offsets, -1)
