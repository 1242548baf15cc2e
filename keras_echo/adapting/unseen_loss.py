"""What a model loses on a batch that it doesn't train on, without a trace of having been asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

from keras_echo.memory.batch import leaves_of, map_leaves

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_echo.memory.batch import Batch


class UnseenLoss:
    """The loss of a batch under the weights that a model has now.

    That is what `compute_loss` returns with `training=False`. All that a call of the model assigns
    (metrics, the states of random generators, moving averages) is dropped with the
    `keras.StatelessScope` in which it is made.

    Args:
        model: A compiled model.
    """

    def __init__(self, model: keras.Model) -> None:
        self._loss = _LOSSES[keras.backend.backend()](model)
        self._shapes: list[Any] | None = None

    def __call__(self, batch: Batch) -> float:
        """The loss.

        Raises:
            Exception: Whatever the model or its loss raises for such a batch.
        """
        loss = self._loss(map_leaves(_as_tensor, batch))
        return float(keras.ops.convert_to_numpy(loss))

    def takes(self, batch: Batch) -> bool:
        """Whether the batch has the shapes of the first one that was asked for."""
        shapes = [getattr(leaf, "shape", None) for leaf in leaves_of(batch)]
        self._shapes = self._shapes or shapes
        return shapes == self._shapes


def problem_of(model: Any) -> str | None:
    """Why the steps of a model can't be told apart, if they can't."""
    if model.steps_per_execution != 1:
        return "with steps_per_execution above 1, nobody sees the weights between two steps"
    if (getattr(model.optimizer, "gradient_accumulation_steps", None) or 1) > 1:
        return "with gradient_accumulation_steps, one step in several changes the weights"
    return None


def _as_tensor(leaf: Any) -> Any:
    return None if leaf is None else keras.ops.convert_to_tensor(leaf)


def _compute(model: Any, values: list[Any], batch: Batch) -> Any:
    """The loss of a batch with these values of `model.variables`."""
    mapping = list(zip(model.variables, values, strict=True))
    with keras.StatelessScope(state_mapping=mapping, collect_losses=True):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        y_pred = model(x, training=False)
        return model.compute_loss(
            x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=False
        )


def _values(model: Any) -> list[Any]:
    return [variable.value for variable in model.variables]


def _with_jax(model: Any) -> Callable[[Batch], Any]:
    import jax

    loss = jax.jit(lambda values, batch: _compute(model, values, batch))
    return lambda batch: loss(_values(model), batch)


def _with_tensorflow(model: Any) -> Callable[[Batch], Any]:
    import tensorflow as tf

    compiled: Callable[[Batch], Any] = tf.function(
        lambda batch: _compute(model, _values(model), batch), reduce_retracing=True
    )
    return compiled


def _with_torch(model: Any) -> Callable[[Batch], Any]:
    import torch

    def loss(batch: Batch) -> Any:
        with torch.no_grad():
            return _compute(model, _values(model), batch)

    return loss


_LOSSES = {"jax": _with_jax, "tensorflow": _with_tensorflow, "torch": _with_torch}
