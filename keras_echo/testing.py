"""For the tests of your own input pipeline: does it resume exactly?"""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_echo._checks import check_count
from keras_echo._messages import expected
from keras_echo.memory.batch import copied

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_echo.dataset import EchoingPyDataset
    from keras_echo.memory.batch import Batch

_REMEDY = (
    "Seed all that is random in the source and in augment=, draw it anew from the index or give it "
    "get_state() and set_state(), and pass seed= to the dataset"
)


def assert_resumes_exactly(
    make_dataset: Callable[[], EchoingPyDataset],
    *,
    steps: int,
    every: int = 1,
    compared: int = 8,
) -> None:
    """Asserts that training could be interrupted after any of the first steps and lose nothing.

    One dataset serves batches without an interruption. For each of its states, saved as JSON,
    another one is built, as in a new process, loads it, and must serve the same batches, bit for
    bit. Those are `steps / every` datasets of `compared` batches each.

    Give it enough steps to reach the second pass: with echoing factor e, a pass is e times as long
    as the source.

    Args:
        make_dataset: Builds the dataset and its source anew, as a new process would; nothing may
            be shared from call to call.
        steps: The last step after which to interrupt.
        every: To interrupt after each so many steps.
        compared: How many batches to compare after each interruption.

    Raises:
        AssertionError: If a batch differs. It says after which step, in which batch, and where.

    Examples:
        >>> def make_dataset():
        ...     return keras_echo.EchoingPyDataset(MySource(seed=0), echo_factor=2, seed=0)
        >>> keras_echo.testing.assert_resumes_exactly(make_dataset, steps=50, every=7)
    """
    steps = check_count("steps", steps, 1)
    every = check_count("every", every, 1)
    compared = check_count("compared", compared, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what they say is found out here
        states, batches = _served(make_dataset, steps + compared)
        for step in range(every, steps + 1, every):
            with make_dataset() as dataset:
                dataset.load_state_dict(json.loads(states[step]))
                for place in range(step, step + compared):
                    _compare(batches[place], dataset[0], f"Batch {place}", f"after step {step}")


def _served(
    make_dataset: Callable[[], EchoingPyDataset], num: int
) -> tuple[list[str], list[Batch]]:
    """So many batches, and the states before each of them and after the last, as JSON."""
    batches = []
    with make_dataset() as dataset:
        states = [json.dumps(dataset.state_dict())]
        for _ in range(num):
            batches.append(copied(dataset[0]))
            states.append(json.dumps(dataset.state_dict()))
    return states, batches


def _compare(uninterrupted: Batch, resumed: Batch, subject: str, when: str) -> None:
    """Raises AssertionError where two batches differ in structure, dtype, shape or a value."""
    leaves, others = (dict(keras.tree.flatten_with_path(each)) for each in (uninterrupted, resumed))
    if list(leaves) != list(others):
        raise AssertionError(_different(subject, when, f"have leaves at {[*leaves]}", [*others]))
    for path, leaf in leaves.items():
        where = "".join(f"[{key!r}]" for key in path) or "the array"
        array, other = _array(leaf), _array(others[path])
        kind, other_kind = (f"{each.dtype}{list(each.shape)}" for each in (array, other))
        if kind != other_kind:
            raise AssertionError(_different(subject, when, f"be {kind} at {where}", other_kind))
        if num_different := _num_different(array, other):
            received = f"{num_different} of {array.size} values are others"
            raise AssertionError(_different(subject, when, f"be the same at {where}", received))


def _different(subject: str, when: str, must: str, received: object) -> str:
    return expected(f"{subject} of training that was resumed {when}", must, received, _REMEDY)


def _array(leaf: Any) -> np.ndarray:
    if hasattr(leaf, "toarray"):  # SciPy's
        leaf = leaf.toarray()
    array: np.ndarray = (
        keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else np.asarray(leaf)
    )
    return array


def _num_different(one: np.ndarray, other: np.ndarray) -> int:
    if one.dtype.hasobject:
        return sum(a != b for a, b in zip(one.flat, other.flat, strict=True))
    bytes_of_one, bytes_of_other = (
        np.frombuffer(each.tobytes(), np.uint8).reshape(each.size, each.itemsize)
        for each in (one, other)
    )
    return int((bytes_of_one != bytes_of_other).any(axis=1).sum())
