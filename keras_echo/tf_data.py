"""Echoing inside a `tf.data` pipeline."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from keras_echo.factor import EchoFactor
from keras_echo.metering import Read

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NUM_AHEAD = 2
"""Elements that are read ahead of the echo."""

_NUM_KNOWN = 256  # elements of which it is known when they came


def echo(
    echo_factor: float | EchoFactor, *, shuffle_buffer: int = 0, seed: int | None = None
) -> Callable[[Any], Any]:
    """Repeats every element of a `tf.data.Dataset`; for `dataset.apply`.

    Before `batch` it echoes examples, after it batches; before `map` each copy is augmented
    anew. Nothing is copied, and two elements are read ahead. A fractional factor is exact:
    floor(n * e) uses after n elements. A change of a shared `EchoFactor` shows after the elements
    that tf.data has fetched ahead; in workers of the tf.data service, in the next iteration.

    Args:
        echo_factor: How often each element is used: a float >= 1, or an `EchoFactor` to share.
        shuffle_buffer: Elements in a shuffle buffer after the echo; 0 keeps the order.
        seed: Seed of the shuffle buffer.

    Returns:
        A function from a dataset to the echoed dataset.

    Raises:
        TypeError: If the factor isn't a real number.
        ValueError: If it is below 1, infinite or not a number.

    Examples:
        >>> factor = EchoFactor(4.0)
        >>> dataset = dataset.repeat().apply(keras_echo.echo(factor, shuffle_buffer=1000))
        >>> model.fit(dataset.batch(32), steps_per_epoch=500)  # the echo hides the length
    """
    factor = echo_factor if isinstance(echo_factor, EchoFactor) else EchoFactor(echo_factor)

    def apply(dataset: Any) -> Any:
        import tensorflow as tf

        with tf.device("cpu"):
            current = tf.Variable(factor.value, dtype=tf.float64, trainable=False)
        times = _Times(tf)
        factor.follow(current.assign)
        factor.upstreams.append(times)

        def stamp(*element: Any) -> tuple[Any, tuple[Any, ...]]:
            return tf.timestamp(), element

        def count_uses(state: tuple[Any, Any], stamped: tuple[Any, Any]) -> tuple[Any, Any]:
            (credit, number), (done, element) = state, stamped
            # The whole part is split off first: the rest of the sum is then an exact float.
            whole = tf.floor(current)
            rest = credit + (current - whole)
            num_uses = tf.cast(whole + tf.floor(rest), tf.int64)
            with tf.control_dependencies([times.taken(done, number)]):
                return (rest - tf.floor(rest), number + 1), (tf.identity(num_uses), element)

        def repeat(num_uses: Any, element: tuple[Any, ...]) -> Any:
            return tf.data.Dataset.from_tensors(element).repeat(num_uses)

        def unpack(*element: Any) -> Any:
            with tf.control_dependencies([times.used()]):
                element = tf.nest.map_structure(tf.identity, element)
            return element if len(element) > 1 else element[0]

        ahead = dataset.map(stamp).prefetch(NUM_AHEAD)
        begin = (tf.zeros((), tf.float64), tf.zeros((), tf.float64))
        echoed = ahead.scan(begin, count_uses).flat_map(repeat).map(unpack)
        return echoed.shuffle(shuffle_buffer, seed=seed) if shuffle_buffer > 1 else echoed

    return apply


class _Times:
    """When the elements of a pipeline came and were taken; an `Upstream` of `EchoFactor`.

    It lies in variables of TensorFlow, which the pipeline's own threads write.

    Args:
        tf: TensorFlow.
    """

    def __init__(self, tf: Any) -> None:
        self._tf = tf
        with tf.device("cpu"):
            # Of each element: when it was done, when it was taken, and its number.
            self._rows = tf.Variable(tf.zeros((_NUM_KNOWN, 3), tf.float64), trainable=False)
            self._num_taken = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._num_used = tf.Variable(0, dtype=tf.int64, trainable=False)

    def taken(self, done: Any, number: Any) -> Any:
        """Notes, in a pipeline, that an element was taken which was done at `done`."""
        row = self._tf.stack([done, self._tf.timestamp(), number])
        place = (self._num_taken.assign_add(1) - 1) % _NUM_KNOWN
        return self._rows.scatter_nd_update([[place]], [row])

    def used(self) -> Any:
        """Counts, in a pipeline, a use of an element."""
        return self._num_used.assign_add(1)

    def num_uses(self) -> int:
        """See `Upstream`."""
        return int(self._num_used.numpy())

    def reads(self) -> list[Read]:
        """See `Upstream`."""
        num = int(self._num_taken.numpy())
        rows = self._rows.numpy()[[*map(_place, range(max(0, num - _NUM_KNOWN + 2), num))]]
        rows[:, :2] += time.perf_counter() - time.time()
        return _as_reads(rows.tolist())


def _place(number: int) -> int:
    return number % _NUM_KNOWN


def _as_reads(rows: Sequence[Sequence[float]]) -> list[Read]:
    """Reads, from when elements were done and taken, and their numbers in an iteration.

    An element is begun when the one before is done, and there is room: as soon as the one that is
    `NUM_AHEAD` before it was taken.
    """
    reads, held_seconds = [], 0.0
    for row, before, freed in zip(rows[NUM_AHEAD:], rows[NUM_AHEAD - 1 :], rows, strict=False):
        (done, _, number), (begun, _, _), (_, taken, _) = row, before, freed
        if number < NUM_AHEAD:  # an iteration begins: nobody knows when
            reads.append(Read(done, 0.0, held_seconds, is_first=True))
            continue
        held_seconds += max(0.0, taken - begun)
        start = max(begun, taken)
        reads.append(Read(start, max(0.0, done - start), held_seconds))
    return reads
