"""What is done to every copy of a batch: functions and Keras layers, on any thread.

Keras layers keep the state of their random numbers in variables, which threads would read and
write at the same time. Here a layer reads it from a `keras.StatelessScope` instead, which belongs
to one call on one thread: the layer itself is never changed, and what it draws depends on nothing
but the random generator of the copy. That takes no lock and no copy of the layer.
"""

from __future__ import annotations

import copy
import inspect
import threading
from typing import TYPE_CHECKING, Any

import keras

from keras_echo._messages import expected
from keras_echo.memory.batch import Batch, copied

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    Augment = Callable[[Batch, np.random.Generator], Batch]

_building = threading.Lock()


def augmenter(augment: object) -> Augment:
    """Gives all kinds of augmentation one form: a function of a batch and a random generator.

    Args:
        augment: A function `augment(batch)` or, if it has a parameter of that name,
            `augment(batch, rng=...)`; or a Keras layer. A layer gets the whole batch if that is a
            dict or an array, and x alone if it is a tuple `(x, ...)`.

    Raises:
        TypeError: If it is neither, or can't be called so.
    """
    if isinstance(augment, keras.layers.Layer):
        return lambda batch, rng: _with_layer(augment, batch, rng)
    if not callable(augment):
        raise TypeError(
            expected(
                "augment",
                "be a function of a batch or a Keras layer",
                augment,
                "Pass None to leave it out",
            )
        )
    takes_rng = "rng" in _parameters(augment)
    _check_call(augment, {"rng": None} if takes_rng else {})
    if takes_rng:
        return lambda batch, rng: augment(batch, rng=rng)
    return lambda batch, rng: augment(batch)


def call_seeded(layer: keras.layers.Layer, inputs: Any, rng: np.random.Generator) -> Any:
    """Calls a layer with training=True and random numbers that depend on `rng` alone.

    That holds for layers that draw with `keras.random` from generators of their own, as Keras's
    preprocessing layers do, and for those that take an `rng`, as KerasHub's augmentation of text
    does. Others draw from elsewhere (KerasCV from TensorFlow's generators, Keras's `AugMix` also
    from Python's): anew for every call, but not the same for the same `rng`.

    Thread-safe; runs on the CPU, whatever the backend. For functions that augment labels or boxes
    together with the images:

        def augment(batch, rng):
            images, boxes = batch
            data = call_seeded(layer, {"images": images, "bounding_boxes": boxes}, rng)
            return data["images"], data["bounding_boxes"]

    Args:
        layer: A preprocessing layer, a `keras.layers.Pipeline` or a model of such layers.
        inputs: What the layer takes. It may change dicts in place.
        rng: Seeds all random generators of the layer; the layer's own seeds are ignored.

    Returns:
        The layer's outputs as NumPy arrays.
    """
    with keras.device("cpu"):
        with _building:
            if not layer.built:  # variables can't be made in a stateless scope
                layer(copied(inputs), **_arguments(layer, copy.deepcopy(rng)))
        with keras.StatelessScope(state_mapping=_seeds(layer, rng)):
            outputs = layer(inputs, **_arguments(layer, rng))
        return keras.tree.map_structure(_as_array, outputs)


def _arguments(layer: keras.layers.Layer, rng: np.random.Generator) -> dict[str, Any]:
    taken = _parameters(layer.call)
    return {name: value for name, value in (("training", True), ("rng", rng)) if name in taken}


def _as_array(leaf: Any) -> Any:
    return keras.ops.convert_to_numpy(leaf) if hasattr(leaf, "shape") else leaf


def _with_layer(layer: keras.layers.Layer, batch: Batch, rng: np.random.Generator) -> Batch:
    if isinstance(batch, (tuple, list)):
        x, *rest = batch
        return (call_seeded(layer, x, rng), *rest)
    return call_seeded(layer, batch, rng)


def _seeds(layer: keras.layers.Layer, rng: np.random.Generator) -> list[tuple[Any, Any]]:
    """The state of each random generator of the layer, and what it is to be in this call.

    A Keras layer's variables are its weights, its metrics and the states of its generators, which
    are pairs of integers. They are drawn far apart from each other: on PyTorch, a seed and its
    successor yield the same numbers, one call later.
    """
    weights = {id(weight) for weight in layer.weights}
    states = [
        variable
        for variable in layer.variables
        if id(variable) not in weights and tuple(variable.shape) == (2,)
    ]
    return [
        (state, keras.ops.convert_to_tensor([int(rng.integers(2**31)), 0], dtype=state.dtype))
        for state in states
    ]


def _check_call(augment: Callable[..., Any], keywords: dict[str, Any]) -> None:
    """Raises TypeError if `augment` can't be called with a batch and these keywords."""
    try:
        signature = inspect.signature(augment)
    except ValueError:  # some functions written in C have none
        return
    try:
        signature.bind(None, **keywords)
    except TypeError as error:
        raise TypeError(
            expected(
                "augment",
                "be a function of one argument, the batch as the source returns it",
                f"augment{signature}",
                "Take the batch apart inside, as in: def augment(batch): x, y = batch",
            )
        ) from error


def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(function).parameters)
    except ValueError:  # some functions written in C have none
        return ()
