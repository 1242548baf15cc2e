"""A source's state as JSON, and back.

What JSON knows stays as it is, but for dicts, whose keys may be of any kind. Everything else stands
in an object of one member that names its type. Nothing is ever pickled.
"""

from __future__ import annotations

import base64
import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_echo._messages import expected

if TYPE_CHECKING:
    from collections.abc import Callable

_KINDS = "biufcMmSU"  # of NumPy's dtypes that are raw bytes
_AS_THEY_ARE = (type(None), bool, int, str)


def to_json(state: Any) -> Any:
    """Turns a state into types that JSON knows; a copy, of which the source changes nothing.

    Args:
        state: None, bool, int, float, str, bytes, NumPy's arrays and scalars of a fixed width,
            PyTorch's dense tensors, and dicts, lists and tuples of those.

    Raises:
        TypeError: If there is anything else in it.
    """
    kind = type(state)
    if kind in _AS_THEY_ARE or (kind is float and math.isfinite(state)):
        return state
    if kind is float:
        return {"float": repr(state)}
    if kind is list:
        return [to_json(each) for each in state]
    if kind is tuple:
        return {"tuple": [to_json(each) for each in state]}
    if kind is dict:
        return {"dict": [[to_json(key), to_json(value)] for key, value in state.items()]}
    if kind is bytes:
        return {"bytes": _text(state)}
    if isinstance(state, (np.generic, np.ndarray)) and state.dtype.kind in _KINDS:
        name = "array" if kind is np.ndarray else "scalar"
        return {name: [state.dtype.str, list(state.shape), _text(state.tobytes())]}
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(state, torch.Tensor) and state.layout == torch.strided:
        data = state.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return {"tensor": [str(state.dtype).removeprefix("torch."), list(state.shape), _text(data)]}
    raise TypeError(
        expected(
            "The state of a source",
            "consist of None, bool, int, float, str, bytes, NumPy arrays and PyTorch tensors, in "
            "dicts, lists and tuples",
            state,
            "Return nothing else from the source's get_state() or state_dict(), so that it can be "
            "saved as JSON",
        )
    )


def from_json(node: Any) -> Any:
    """The reverse of `to_json`.

    Raises:
        ValueError: If `node` doesn't come from there.
    """
    try:
        return _state(node)
    except (TypeError, ValueError, AttributeError, RuntimeError, KeyError) as error:
        raise ValueError(
            expected(
                "The state of a source",
                "be as it was saved",
                node,
                "Save dataset.state_dict() as it is",
            )
        ) from error


def _state(node: Any) -> Any:
    kind = type(node)
    if kind in _AS_THEY_ARE or kind is float:
        return node
    if kind is list:
        return [_state(each) for each in node]
    ((name, content),) = node.items()
    return _MADE[name](content)


def _array(content: Any) -> np.ndarray:
    name, shape, text = content
    dtype = np.dtype(name)
    if dtype.kind not in _KINDS:
        raise ValueError(name)
    return np.frombuffer(bytearray(_bytes(text)), dtype).reshape(shape)


def _tensor(content: Any) -> Any:
    import torch

    name, shape, text = content
    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(name)
    data = bytearray(_bytes(text))
    flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return flat.reshape(shape)


_MADE: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "tuple": lambda nodes: tuple([_state(each) for each in nodes]),
    "dict": lambda items: {_state(key): _state(value) for key, value in items},
    "bytes": lambda text: _bytes(text),
    "array": _array,
    "scalar": lambda content: _array(content)[()],
    "tensor": _tensor,
}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
