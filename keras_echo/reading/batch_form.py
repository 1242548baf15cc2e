"""What all batches of a source must have in common: structure, dtypes and ranks."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_echo._messages import expected
from keras_echo.memory.batch import is_sparse_or_ragged

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_echo.memory.batch import Batch

_Form = Any
"""Of a leaf (kind, dtype, rank), of lists and tuples a list, of dicts a dict."""


class BatchForm:
    """Compares the batches of a source with the first one.

    Sizes may vary, and so may the width and the kind of text.
    """

    def __init__(self) -> None:
        self._first: _Form = None

    def fits(self, batch: Batch) -> bool:
        """Whether a batch is like the first one."""
        return bool(_form(batch) == self._first)

    def check(self, batch: Batch, index: Callable[[], int]) -> None:
        """Compares one batch; to be called for the first one first.

        Args:
            batch: The batch.
            index: Returns by which number the source knows it.

        Raises:
            ValueError: If it differs.
        """
        form = _form(batch)
        if self._first is None:
            self._first = form
        elif form != self._first:
            place, first, other = _difference(self._first, form, "")
            raise ValueError(
                expected(
                    f"Batch {index()} of the source",
                    f"have {_shown(first)}{place and f' at {place}'}, as the first batch has",
                    _Shown(_shown(other)),
                    "Have the source return all batches in one form, or pass on_error='skip' to "
                    "leave out those of another form",
                )
            )


class _Shown(str):
    """A text that is shown without quotes."""

    def __repr__(self) -> str:
        return str(self)


def _form(node: Any) -> _Form:
    kind = type(node)
    if kind is np.ndarray:
        return "array", _name(node.dtype), node.ndim
    if kind is tuple or kind is list:
        return [_form(inner) for inner in node]
    if kind is dict:
        return {key: _form(inner) for key, inner in node.items()}
    if hasattr(node, "shape"):
        is_special = is_sparse_or_ragged(node)
        return kind.__name__ if is_special else "array", _name(node.dtype), len(node.shape)
    if keras.tree.is_nested(node):
        return [_form(inner) for inner in keras.tree.flatten(node)]
    return kind.__name__, "", 0


@cache
def _name(dtype: Any) -> str:
    is_text = isinstance(dtype, np.dtype) and dtype.kind in "SUO"
    name = str(getattr(dtype, "name", dtype)).removeprefix("torch.")
    return "text" if is_text or name == "string" else name


def _difference(first: _Form, other: _Form, place: str) -> tuple[str, _Form, _Form]:
    """Where two forms differ first, and how."""
    if type(first) is type(other) and len(first) == len(other) and not isinstance(first, tuple):
        keys = first if isinstance(first, dict) else range(len(first))
        for key in keys:
            if isinstance(other, dict) and key not in other:
                break
            if first[key] != other[key]:
                return _difference(first[key], other[key], f"{place}[{key!r}]")
    return place, first, other


def _shown(form: _Form) -> str:
    if isinstance(form, list):
        return f"{len(form)} part{'s' * (len(form) != 1)}"
    if isinstance(form, dict):
        return f"the keys {', '.join(map(repr, form))}"
    kind, dtype, rank = form
    if not dtype:
        return str(kind)
    return f"{dtype} of rank {rank}" if kind == "array" else f"a {kind} of {dtype} of rank {rank}"
