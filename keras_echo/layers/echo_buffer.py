"""`EchoBuffer`: example echoing whose buffer lies on the accelerator."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_echo._checks import check_count
from keras_echo._messages import expected
from keras_echo.factor import EchoFactor
from keras_echo.layers.batch_spec import BatchSpec, as_tensors, spec, tensors

_PARTS = 10_000  # of one use: with floats, a long stream would lose uses
_EMPTY = -1  # uses left in a slot that never held an example


@keras.saving.register_keras_serializable(package="keras_echo")
class EchoBuffer(keras.layers.Layer):
    """Example echoing (Choi et al., arXiv 1907.05550, section 2.1) in the accelerator's memory.

    The layer's non-trainable state holds `capacity` examples and how many uses each has left.
    `store` puts a batch in, with floor or ceil of `echo_factor` uses for each example, n * e
    uses rounded down after n examples; `draw` returns a batch of different examples, at random
    among those with uses left, and takes one use from each. Nothing moves from or to the host.

    - An example that is stored takes an empty slot, then one whose uses are spent. If there are
      none, it takes a slot with the fewest uses left, and those are *lost*.
    - A draw that finds fewer examples with uses left than it must return adds spent ones
      (*overused*), and repeats examples if the buffer holds fewer. Empty slots are never returned
      once something has been stored.
    - While fewer than a batch of slots are free for the next batch, draws prefer the examples with
      the fewest uses left. So a loop of one `store` and at least `echo_factor` draws (an integer)
      of the same size loses nothing, whatever the buffer held before, if it began with a batch
      of free slots.

    To mix, the buffer must hold more than one batch: store about `capacity / 2` examples before
    the first draw. Then `echo_factor` draws after each `store` keep it about full: example
    echoing with exact counts, each example being used e times or still held. The examples drawn
    are copies, and no gradient flows back through the buffer.

    `layer(batch, training=True)` stores and draws; `layer(batch)` returns `batch` as it is, so that
    a model which contains the buffer can predict. `layer()` draws.

    Storing rewrites the buffer on TensorFlow and PyTorch, and on JAX where its state isn't
    donated. The state, examples included, is part of what `model.save()` writes.

    Args:
        echo_factor: How often each example is used: a float >= 1, rounded to 1/10,000.
        capacity: How many examples the buffer holds; at least the batch size.
        seed: Seed of the draws, a non-negative integer; by default drawn from Python's `random`.

    Call arguments:
        inputs: A batch: any nested structure of arrays with examples along the first axis, and of
            None (in symbolic calls, of arrays only). Structure, shapes but for the batch size, and
            dtypes must stay the same. A mask is stored if it is one of the arrays. Without inputs
            there is no new batch.
        training: Whether to store and draw, if there are inputs.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument has a wrong value.

    Examples:
        >>> buffer = EchoBuffer(echo_factor=4, capacity=4096, seed=0)
        >>> for batch in itertools.islice(batches, 2048 // 64):
        ...     buffer.store(batch)
        >>> for batch in batches:
        ...     buffer.store(batch)
        ...     for _ in range(4):
        ...         train_step(buffer.draw())
    """

    def __init__(
        self, echo_factor: float, capacity: int, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.echo_factor = EchoFactor(echo_factor).value
        check_count("capacity", capacity, 1)
        if seed is not None:
            check_count("seed", seed, 0)
        self.capacity = capacity
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._spec: BatchSpec | None = None

    def __call__(self, inputs: Any = None, **kwargs: Any) -> Any:
        """See the class."""
        return super().__call__(self._prepared(inputs), **kwargs)

    def build(self, input_shape: Any) -> None:
        """Creates the state. Without a batch seen before, the dtype is Keras's float type."""
        if self._spec is None:
            self._spec = BatchSpec(
                keras.tree.map_shape_structure(
                    lambda shape: keras.KerasTensor(shape, keras.config.floatx()), input_shape
                )
            )
        self._uses = self._state("uses", (self.capacity,), "int32", _EMPTY)
        self._credit = self._state("credit", (), "int32", 0)
        self._slots = [
            self._state(f"slots_{number}", (self.capacity, *leaf.shape[1:]), leaf.dtype, 0)
            for number, leaf in enumerate(self._spec.leaves)
        ]

    def store(self, batch: Any) -> None:
        """Puts a batch into the buffer.

        Raises:
            ValueError: If it isn't like the first one, or has more examples than the buffer holds.
        """
        batch = self._prepared(batch)
        if not self.built:
            self.build(None)
        self._store(batch)

    def draw(self, batch_size: int | None = None) -> Any:
        """Returns a batch drawn from the buffer.

        Args:
            batch_size: How many examples; default: as many as the first batch had.

        Raises:
            ValueError: If nothing was ever stored, or the size is neither given nor known.
        """
        size = self._known_spec.leaves[0].shape[0] if batch_size is None else batch_size
        if size is None:
            raise ValueError(
                expected(
                    "batch_size",
                    "be given for a layer that was built for batches of any size",
                    batch_size,
                    "Pass the number of examples to draw",
                )
            )
        return self._draw(size)

    @property
    def num_uses_left(self) -> int:
        """The uses that the buffer still holds. Waits for the accelerator."""
        return int(ops.sum(ops.maximum(self._uses, 0))) if self.built else 0

    def call(self, inputs: Any = None, training: bool = False) -> Any:
        """See the class."""
        if inputs is None:
            return self.draw()
        if not training:
            return inputs
        self._store(inputs)
        return self._draw(ops.shape(tensors(inputs)[0])[0])

    def compute_output_spec(self, inputs: Any, training: bool = False) -> Any:
        """A batch like the inputs."""
        return keras.tree.map_structure(spec, inputs)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the layer, JSON-serialisable."""
        return {
            **super().get_config(),
            "echo_factor": self.echo_factor,
            "capacity": self.capacity,
            "seed": self.seed,
        }

    def get_build_config(self) -> dict[str, Any] | None:
        """What `build_from_config` needs: shapes and dtypes."""
        if self._spec is None:
            return None
        return {"batch": keras.saving.serialize_keras_object(self._spec.structure)}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Creates the state of a layer that was saved."""
        self._spec = BatchSpec(keras.saving.deserialize_keras_object(config["batch"]))
        self.build(None)

    def save_own_variables(self, store: Any) -> None:
        """Saves all state; Keras would leave the seed generator's out."""
        for number, variable in enumerate(self.variables):
            store[str(number)] = variable

    def load_own_variables(self, store: Any) -> None:
        """Loads what `save_own_variables` saved."""
        for number, variable in enumerate(self.variables):
            variable.assign(store[str(number)])

    @property
    def _known_spec(self) -> BatchSpec:
        if self._spec is None:
            raise ValueError(
                expected(
                    "EchoBuffer",
                    "have seen a batch before it is drawn from",
                    self.name,
                    "Call store(batch) first",
                )
            )
        return self._spec

    def _prepared(self, batch: Any) -> Any:
        """The batch as tensors. The first one is remembered: `build` is told its shapes alone."""
        if batch is None:
            return None
        batch = as_tensors(batch)
        if self._spec is None:
            self._spec = BatchSpec.of(batch)
        return batch

    def _state(self, name: str, shape: tuple[int, ...], dtype: str, value: int) -> Any:
        return self.add_weight(
            shape=shape,
            dtype=dtype,
            initializer=keras.initializers.Constant(value),
            trainable=False,
            autocast=False,
            name=name,
        )

    def _store(self, batch: Any) -> None:
        self._known_spec.check(batch)
        num = ops.shape(tensors(batch)[0])[0]
        self._check_size(num)
        # Empty slots first, then spent ones, then those with the fewest uses left.
        slots = ops.expand_dims(ops.argsort(ops.convert_to_tensor(self._uses))[:num], 1)
        self._uses.assign(ops.scatter_update(self._uses, slots, self._shares(num)))
        for held, leaf in zip(self._slots, tensors(batch), strict=True):
            held.assign(ops.scatter_update(held, slots, ops.stop_gradient(leaf)))

    def _shares(self, num: Any) -> Any:
        """The uses of the next `num` examples: the k-th of a stream gets floor(k * e) in all."""
        whole = math.floor(self.echo_factor)
        parts = round((self.echo_factor - whole) * _PARTS)
        owed = self._credit + parts * ops.arange(num + 1, dtype="int32")
        self._credit.assign(owed[-1] % _PARTS)
        return whole + owed[1:] // _PARTS - owed[:-1] // _PARTS

    def _draw(self, num: Any) -> Any:
        self._check_size(num)
        uses = ops.convert_to_tensor(self._uses)
        num_free = ops.sum(ops.cast(uses <= 0, "int32"))
        num_filled = ops.sum(ops.cast(uses > _EMPTY, "int32"))
        # Examples with uses left come first, then spent ones, then empty slots; else at random.
        last = math.ceil(self.echo_factor) + 1
        rank = ops.where(uses > 0, ops.where(num_free < num, uses, 0), last - uses)
        order = ops.argsort(
            ops.cast(rank, "float32")
            + keras.random.uniform((self.capacity,), dtype="float32", seed=self.seed_generator)
        )
        drawn = ops.take(order, ops.arange(num, dtype="int32") % ops.maximum(num_filled, 1))
        left = ops.take(uses, drawn)
        self._uses.assign(
            ops.scatter_update(uses, ops.expand_dims(drawn, 1), ops.where(left > 0, left - 1, left))
        )
        return self._known_spec.packed([ops.take(held, drawn, axis=0) for held in self._slots])

    def _check_size(self, num: Any) -> None:
        if isinstance(num, int) and num > self.capacity:
            raise ValueError(
                expected(
                    "capacity",
                    "be at least the number of examples in a batch",
                    (self.capacity, num),
                    "Build the layer with a larger capacity",
                )
            )
