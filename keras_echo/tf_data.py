"""Echoing inside a `tf.data` pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras_echo.factor import EchoFactor

if TYPE_CHECKING:
    from collections.abc import Callable


def echo(
    echo_factor: float | EchoFactor, *, shuffle_buffer: int = 0, seed: int | None = None
) -> Callable[[Any], Any]:
    """Repeats every element of a `tf.data.Dataset`; for `dataset.apply`.

    Before `batch` it echoes examples, after it batches; before `map` each copy is augmented
    anew. Nothing is copied. A fractional factor is exact: floor(n * e) uses after n elements. A
    change of a shared `EchoFactor` shows after the elements that tf.data has fetched ahead.

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
        factor.follow(current.assign)

        def count_uses(credit: Any, *element: Any) -> tuple[Any, tuple[Any, Any]]:
            # The whole part is split off first: the rest of the sum is then an exact float.
            whole = tf.floor(current)
            rest = credit + (current - whole)
            num_uses = tf.cast(whole + tf.floor(rest), tf.int64)
            return rest - tf.floor(rest), (num_uses, element)

        def repeat(num_uses: Any, element: tuple[Any, ...]) -> Any:
            return tf.data.Dataset.from_tensors(element).repeat(num_uses)

        def unpack(*element: Any) -> Any:
            return element if len(element) > 1 else element[0]

        echoed = dataset.scan(tf.zeros((), tf.float64), count_uses).flat_map(repeat).map(unpack)
        return echoed.shuffle(shuffle_buffer, seed=seed) if shuffle_buffer > 1 else echoed

    return apply
