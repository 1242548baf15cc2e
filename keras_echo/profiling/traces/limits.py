"""How large a trace may be: told from its bytes, before anything parses them.

Real traces reach some 100 MB. Foreign files may hold what is small on disk and enormous in memory:
a message of two bytes takes fifty times as much once it is parsed, and a gzipped file a thousand
times. So the bytes that stand for an object are counted, as fast as memory can be read, and what
that comes to is compared with a limit. Chance finds a few more of them in numbers and texts, which
makes real traces look up to half as large again as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_echo._messages import expected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_BYTES = 1 << 28
"""The largest trace that is read, in bytes; of a gzipped one, those that it holds."""

MAX_MEMORY_BYTES = 1 << 31
"""What a trace may take in memory, by `json_memory` or `xspace_memory`: that of real ones with
some 130 MB (XSpace) and 230 MB (JSON). What is made for the purpose may take half as much again."""

MAX_LINES = 10_000
"""Lines of a trace, which stand for threads and streams. Each is looked at some twenty times."""

MAX_NAMES = 1_000_000
"""Names of events and stats in a trace; real ones have some 10,000."""

MAX_EVENTS = 8_000_000
"""Events of a trace, which are looked at as often: a minute's work."""

# By the character that stands for them: a dict, a list, a key, an element. What an object of
# CPython takes, with its place in the one that holds it.
_JSON_OBJECTS = {b"{": 184, b"[": 72, b":": 32, b",": 40}

# By the tag of a field of XSpace: bytes of the message that it holds, in upb's memory.
# 0x0a planes, 0x12 errors, 0x1a lines, 0x22 events, stats and the entries of maps, of which
# 0x08 is the key; 0x2a and 0x32 stats and entries.
_XSPACE_OBJECTS = {0x0A: 88, 0x12: 40, 0x1A: 104, 0x22: 72, 0x08: 48, 0x2A: 72, 0x32: 72}


class TraceError(ValueError):
    """A file or directory that cannot be read as a profiler trace."""


def json_memory(piece: bytes) -> int:
    """Bytes that a piece of JSON takes in memory, decoded, with the text itself."""
    return 2 * len(piece) + sum(size * piece.count(mark) for mark, size in _JSON_OBJECTS.items())


def xspace_memory(piece: bytes) -> int:
    """Bytes that a piece of an XSpace takes in memory, parsed, with the piece itself."""
    # A tag may also be spelled in more bytes than it needs: then its first one has the upper bit.
    return 2 * len(piece) + sum(
        size * (piece.count(tag) + piece.count(tag | 0x80)) for tag, size in _XSPACE_OBJECTS.items()
    )


def check(source: str, pieces: Iterable[bytes], memory: Callable[[bytes], int]) -> None:
    """Goes through the pieces of a trace, none of which is kept.

    Args:
        source: What an error message calls the trace.
        pieces: Its bytes, in their order.
        memory: `json_memory` or `xspace_memory`.

    Raises:
        TraceError: There are too many bytes, or they would take too much memory.
    """
    num_bytes = num_memory_bytes = 0
    for piece in pieces:
        num_bytes += len(piece)
        num_memory_bytes += memory(piece)
        if num_bytes > MAX_BYTES:
            raise too_large(source, f"be at most {MAX_BYTES} bytes", num_bytes)
        if num_memory_bytes > MAX_MEMORY_BYTES:
            must = f"take at most {MAX_MEMORY_BYTES} bytes of memory"
            raise too_large(source, must, num_memory_bytes)


def too_large(source: str, must: str, received: int) -> TraceError:
    """Returns the error for a trace that is too large to be read."""
    return TraceError(expected(source, must, received, "Record fewer steps"))
