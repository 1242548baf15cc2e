import numpy as np
import pytest

from keras_echo.memory.example_storage import Examples, Storage


def batch(num, first=0):
    """A detection batch: images, and boxes and labels that are padded with -1."""
    numbers = np.arange(first, first + num)
    boxes = np.full((num, 3, 4), -1.0, "float32")
    boxes[:, 0] = numbers[:, None]
    return (
        {"images": np.tile(numbers[:, None, None], (1, 2, 2)).astype("uint8"), "masks": None},
        [{"boxes": boxes, "labels": np.repeat(numbers[:, None], 3, axis=1)}],
        numbers.astype(object),
    )


def test_rows_of_all_arrays_stay_together():
    storage = Storage(Examples(batch(4)), 10)
    storage.put(np.array([7, 1, 5]), Examples(batch(4)), slice(1, 4))
    storage.put(np.array([0, 2]), Examples(batch(9, 20)), np.array([8, 3]))
    x, (labels,), numbers = storage.gather(np.array([0, 1, 2, 5, 7]))
    assert numbers.tolist() == [28, 2, 23, 3, 1]
    assert x["masks"] is None
    assert x["images"].dtype == "uint8"
    np.testing.assert_array_equal(x["images"][:, 1, 1], numbers.astype(int))
    np.testing.assert_array_equal(labels["boxes"][:, 0, 2], numbers.astype(int))
    np.testing.assert_array_equal(labels["boxes"][:, 1:], -1)
    np.testing.assert_array_equal(labels["labels"][:, 2], numbers.astype(int))


def test_nothing_is_shared():
    stored = batch(4)
    storage = Storage(Examples(stored), 4)
    storage.put(np.arange(4), Examples(stored), slice(0, 4))
    stored[0]["images"][...] = 99
    gathered = storage.gather(np.arange(4))
    gathered[0]["images"][...] = 99
    gathered[1].clear()
    again = storage.gather(np.arange(4))
    assert again[0]["images"][:, 0, 0].tolist() == [0, 1, 2, 3]
    assert len(again[1]) == 1


@pytest.mark.parametrize(
    ("arrays", "received"),
    [
        ((np.zeros((4, 2)), np.zeros(3)), "[(4, 2), (3,)]"),
        ((np.zeros((4, 2)), np.float32(1)), "[(4, 2), ()]"),
        ((np.zeros((0, 2)), np.zeros(0)), "[(0, 2), (0,)]"),
        ((None,), "[]"),
    ],
)
def test_batches_without_rows_are_refused(arrays, received):
    with pytest.raises(ValueError, match=r"^The arrays of a batch") as caught:
        Examples(arrays)
    assert str(caught.value) == (
        "The arrays of a batch, for echo='example', must have the same first dimension, the number "
        f"of examples, and at least one. Received: {received}. Give every array of the batch one "
        "row for each example, or pass echo='batch'."
    )


@pytest.mark.parametrize(
    "other",
    [
        (np.zeros((4, 3), "float32"),),
        (np.zeros((4, 2), "float64"),),
        (np.zeros((4, 2), "float32"), np.zeros(4)),
        {"x": np.zeros((4, 2), "float32")},
        (None, np.zeros((4, 2), "float32")),
    ],
)
def test_examples_of_another_kind_are_refused(other):
    storage = Storage(Examples((np.zeros((4, 2), "float32"),)), 4)
    with pytest.raises(ValueError, match=r"^The examples of the source") as caught:
        storage.put(np.arange(4), Examples(other), slice(0, 4))
    assert "must all be like the first ones, ('float32 [2]',). Received: " in str(caught.value)
    assert str(caught.value).endswith(
        "Pad them to one shape (unused labels with -1, for instance), or pass echo='batch'."
    )


@pytest.mark.parametrize("kind", ["U", "S"])
def test_longer_strings_are_kept_whole(kind):
    short, long = (np.array(words).astype(kind) for words in (["a", "bb"], ["cccc", "d"]))
    storage = Storage(Examples((short,)), 4)
    storage.put(np.arange(2), Examples((short,)), slice(0, 2))
    storage.put(np.arange(2, 4), Examples((long,)), slice(0, 2))
    (gathered,) = storage.gather(np.arange(4))
    assert gathered.tolist() == [*short, *long]
    storage.put(np.arange(2), Examples((short,)), slice(0, 2))
    assert storage.gather(np.arange(4))[0].tolist() == [*short, *long]
