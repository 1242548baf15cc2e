"""Where a stream of batches stands, as an object and as JSON.

What concerns one kind of echo alone stands beside that echo, as an `EchoState`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

import numpy as np

from keras_echo._messages import expected
from keras_echo.factor import check_factor
from keras_echo.metering import SkippedRead
from keras_echo.reading.landmarks import NO_LANDMARKS, Fingerprint, Landmarks
from keras_echo.reading.skipped import NONE_SKIPPED, Skipped
from keras_echo.reading.state_json import from_json
from keras_echo.reading.stream import START, Bookmark, Position

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_VERSION = 5

_MOST_PASSES = 2**26
"""A source's own hooks are called for each pass that is over: a minute's work, for so many."""

_MOST_ENTRIES = 2**17
"""Entries of a list in a state, as far as it is believed, such as batches to be read again."""

_MOST_COUNTS = 2**24
"""The same of a list of counts: examples in a shuffle buffer."""


class EchoState(Protocol):
    """Where one kind of echo stands."""

    @property
    def positions_held(self) -> tuple[Position, ...]:
        """The fresh batches up to the stream's position that the echo holds, ascending."""

    def without_batches(self) -> Self:
        """The same state without batches, which are read again."""

    def as_json(self) -> dict[str, Any]:
        """The state in types that JSON knows, with its `"kind"`; batches, by their positions."""


@dataclass(frozen=True)
class State:
    """Where a stream of batches stands.

    Attributes:
        seed: Seed of all that is random in the stream.
        position: The fresh batch to read next, or the one in use if its uses aren't over.
        num_steps: Batches served.
        num_fresh: Fresh batches among them; with example echoing, the fresh examples that were
            used, in batches.
        num_extra: Batches among them that were served while no fresh one was there.
        echo: Where the echo stands; None before its first use.
        factors_ahead: The echoing factors of the next uses, made ahead before the factor changed;
            after them, the factor in force acts.
        skipped: The reads before `position` that failed and were skipped.
        landmarks: What is known of the places from which going on reads.
    """

    seed: int
    position: Position = START
    num_steps: int = 0
    num_fresh: int = 0
    num_extra: int = 0
    echo: EchoState | None = None
    factors_ahead: tuple[float, ...] = ()
    skipped: Skipped = NONE_SKIPPED
    landmarks: Landmarks = NO_LANDMARKS

    @property
    def positions_held(self) -> tuple[Position, ...]:
        """The fresh batches up to `position` that going on from here needs, ascending."""
        return self.echo.positions_held if self.echo else ()

    @property
    def next_position(self) -> Position:
        """The fresh batch to read after those: the one in use may be held, too."""
        is_held = self.position in self.positions_held[-1:]
        return self.position.next if is_held else self.position

    @property
    def needed(self) -> tuple[Position, ...]:
        """The fresh batches that going on from here needs first, ascending; `position` is last."""
        return (*self.positions_held, self.position)

    def without_batches(self) -> State:
        """The same state, without the batches that the echo holds, which are read again."""
        return replace(self, echo=self.echo and self.echo.without_batches())

    def as_json(self, echo_factor: float) -> dict[str, Any]:
        """The state in types that JSON knows.

        Args:
            echo_factor: The factor in force.
        """
        factors_ahead = list(self.factors_ahead)
        while factors_ahead and factors_ahead[-1] == echo_factor:
            factors_ahead.pop()  # it acts there in any case
        return {
            "version": _VERSION,
            "seed": self.seed,
            "position": list(self.position),
            "num_steps": self.num_steps,
            "num_fresh": self.num_fresh,
            "num_extra": self.num_extra,
            "echo": self.echo and self.echo.as_json(),
            "factors_ahead": factors_ahead,
            "echo_factor": echo_factor,
            "skipped": {
                "num": self.skipped.num,
                "last": [[read.index, read.error] for read in self.skipped.last],
            },
            **_json_of_landmarks(self.landmarks),
        }

    @classmethod
    def from_json(
        cls, state: dict[str, Any], kind: str, echo_from_json: Callable[[dict[str, Any]], EchoState]
    ) -> State:
        """The reverse of `as_json`; the batches that the echo held are missing, to be read again.

        Args:
            state: What `as_json` returned, in this version of keras_echo or an earlier one.
            kind: The kind of echo that is to go on from it.
            echo_from_json: The reverse of `EchoState.as_json` for that kind.

        Raises:
            ValueError: If `state` doesn't come from `as_json`, or from another kind of echo.
        """
        try:
            state = _upgraded(state)
            echo = state["echo"]
            check(echo is None or isinstance(echo["kind"], str), "kind")
            is_of_kind = echo is None or echo["kind"] == kind
            loaded = cls(
                seed=count(state["seed"], most=2**128),
                position=position_of(*state["position"]),
                num_steps=count(state["num_steps"]),
                num_fresh=count(state["num_fresh"]),
                num_extra=count(state["num_extra"]),
                echo=echo_from_json(echo) if echo and is_of_kind else None,
                factors_ahead=tuple(
                    check_factor("factors_ahead", each) for each in entries(state["factors_ahead"])
                ),
                skipped=_skipped(**state["skipped"]),
                landmarks=_landmarks_of(state),
            )
            check(max(loaded.positions_held, default=START) <= loaded.position, "held")
            bookmarks, fingerprint = loaded.landmarks
            check(all(each.position <= loaded.position for each in bookmarks), "bookmarks")
            is_early = fingerprint is None or fingerprint.position <= loaded.needed[0]
            check(is_early, "fingerprint")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(foreign(state)) from error
        if is_of_kind:
            return loaded
        raise ValueError(
            expected(
                "state",
                f"come from a dataset with echo={kind!r}",
                state,
                "Build the dataset with the arguments of the one whose state it is",
            )
        )


def factor_of(state: dict[str, Any]) -> float:
    """The echoing factor in what `state_dict` returned.

    Raises:
        ValueError: If there is none.
    """
    try:
        return check_factor("echo_factor", state["echo_factor"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(foreign(state)) from error


def _upgraded(state: dict[str, Any]) -> dict[str, Any]:
    """A state in the form of this version."""
    if state["version"] == _VERSION:
        return state
    if state["version"] != 4:
        state = _of_version_4(state)
    # It didn't say what was skipped, and knew nothing of the source.
    return {**state, "skipped": {"num": 0, "last": []}, "bookmarks": [], "fingerprint": None}


def _of_version_4(state: dict[str, Any]) -> dict[str, Any]:
    """A state of versions 1 to 3 in the form of version 4."""
    if state["version"] != 3:
        state = _of_version_3(state)
    echo = state["echo"]
    if echo and echo["kind"] == "batch":  # it didn't say which uses these are
        echo = {**echo, "held": [[*use, 0] for use in entries(echo["held"])]}
    return {**state, "echo": echo}


def _of_version_3(state: dict[str, Any]) -> dict[str, Any]:
    """A state of versions 1 and 2, which knew no echoes apart, in the form of version 3."""
    check(state["version"] in (1, 2), "version")
    echo = {"num_drawn": state["num_drawn"]}
    if state["examples"] is not None:
        check(state["held"] == [], "held")
        echo = {**echo, **state["examples"], "kind": "example"}
    elif state["num_steps"]:
        own = {name: state[name] for name in ("num_uses", "credit", "held")}
        echo = {**echo, **own, "kind": "batch"}
    ahead = state["factors_ahead"] if state["version"] == 2 else []
    upgraded = {"echo": echo if "kind" in echo else None, "factors_ahead": ahead, "num_extra": 0}
    return {**state, **upgraded}


def _json_of_landmarks(landmarks: Landmarks) -> dict[str, Any]:
    bookmarks, fingerprint = landmarks
    return {
        "bookmarks": [[*position, of_source] for position, of_source in bookmarks],
        "fingerprint": fingerprint and [*fingerprint.position, fingerprint.digest],
    }


def _landmarks_of(state: dict[str, Any]) -> Landmarks:
    bookmarks = tuple(
        Bookmark(position_of(number, ordinal), of_source)
        for number, ordinal, of_source in entries(state["bookmarks"])
    )
    for bookmark in bookmarks:
        from_json(bookmark.state)  # now, so that a mistake is heard at once
    fingerprint = state["fingerprint"]
    if fingerprint is not None:
        number, ordinal, digest = fingerprint
        check(isinstance(digest, str), "fingerprint")
        fingerprint = Fingerprint(position_of(number, ordinal), digest, is_loaded=True)
    return Landmarks(bookmarks, fingerprint)


def foreign(state: object) -> str:
    """The message for a state that `state_dict()` didn't return."""
    return expected(
        "state",
        f"be what state_dict() returned, version {_VERSION}",
        state,
        "Save dataset.state_dict() as it is, and load it with the same keras_echo",
    )


def _skipped(num: object, last: object) -> Skipped:
    """What was skipped, from JSON."""
    reads = []
    for index, error in entries(last):
        check(isinstance(error, str), "skipped")
        reads.append(SkippedRead(count(index), str(error)))
    check(len(reads) <= count(num), "skipped")
    return Skipped(count(num), tuple(reads))


def check(is_right: bool, name: str) -> None:
    """Raises ValueError if what is loaded contradicts itself."""
    if not is_right:
        raise ValueError(f"{name} contradicts the rest of the state, or is out of range")


def count(value: object, most: int = 2**62) -> int:
    """The value, if it is a count; raises ValueError if not."""
    check(type(value) is int and 0 <= value < most, "a count")
    return cast("int", value)


def counts(values: object) -> np.ndarray:
    """The values, (num,) int64, if they are a list of counts; raises ValueError if not."""
    listed = entries(values, _MOST_COUNTS)
    check(set(map(type, listed)) <= {int}, "a count")
    found = np.array(listed, np.int64)
    check(bool(((found >= 0) & (found < 2**62)).all()), "a count")
    return found


def entries(values: object, most: int = _MOST_ENTRIES) -> Sequence[Any]:
    """The values, if they are a list that isn't absurdly long; raises ValueError if not."""
    check(isinstance(values, (list, tuple)) and len(values) < most, "a list")
    return cast("Sequence[Any]", values)


def flag(value: object) -> bool:
    """The value, if it is a flag; raises ValueError if not."""
    check(isinstance(value, bool), "a flag")
    return cast("bool", value)


def position_of(number: object, ordinal: object) -> Position:
    """A position, if these are counts; raises ValueError if not."""
    return Position(count(number, _MOST_PASSES), count(ordinal))
