"""All that training changes in a model, as arrays in a fixed order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from keras_echo._messages import expected

if TYPE_CHECKING:
    from collections.abc import Sequence


class Described(NamedTuple):
    """What one variable is.

    Attributes:
        path: Its name, for messages: another process may have counted its layers otherwise.
        shape: Its shape.
        dtype: Its dtype, as Keras calls it.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str


class Values:
    """The values of some variables.

    Args:
        variables: The variables; the same one may come twice.
    """

    def __init__(self, *variables: keras.Variable) -> None:
        self._variables = list({id(variable): variable for variable in variables}.values())

    def described(self) -> list[Described]:
        """What the variables are."""
        return [
            Described(variable.path, tuple(variable.shape), str(variable.dtype))
            for variable in self._variables
        ]

    def read(self) -> list[np.ndarray]:
        """Copies of their values, in the same order."""
        return [np.array(keras.ops.convert_to_numpy(variable)) for variable in self._variables]

    def check(self, described: Sequence[Sequence[Any]]) -> None:
        """Compares with the variables whose values are to be restored, as JSON has them.

        Raises:
            ValueError: If they aren't the same, but for their names.
        """
        own = self.described()
        theirs = [Described(path, tuple(shape), dtype) for path, shape, dtype in described]
        for mine, other in zip(own, theirs, strict=False):
            if mine[1:] != other[1:]:
                raise ValueError(_other_model(mine, other))
        if len(own) != len(theirs):
            raise ValueError(_other_model(f"{len(own)} variables", f"{len(theirs)} variables"))

    def restore(self, values: Sequence[np.ndarray]) -> None:
        """Gives all variables these values, once they were checked."""
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)


def trained(model: keras.Model) -> Values:
    """What lasts from epoch to epoch: weights, the optimizer's, and the seeds of random layers.

    Args:
        model: A compiled model that is built.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return Values(*model.variables, *model.optimizer.variables)


def metrics(model: keras.Model) -> Values:
    """What lasts until the end of an epoch."""
    return Values(*model.metrics_variables)


def build(model: keras.Model, batch: Any) -> None:
    """Has a model make all its variables, and those of its metrics, by a batch.

    Nothing else of it changes, if a call with `training=False` changes nothing.
    """
    tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, batch)
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(tensors)
    y_pred = model(x, training=False)
    model.compute_metrics(x, y, y_pred, sample_weight)
    model.reset_metrics()


def _other_model(mine: Any, theirs: Any) -> str:
    return expected(
        "The backup",
        f"be of this model, which has {mine}",
        theirs,
        "Build and compile the model as before, or delete the backup to train from the beginning",
    )
