"""Where a stream of batches stands, as an object and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, cast

import numpy as np

from keras_echo._messages import expected
from keras_echo.echoing import Use
from keras_echo.examples import NOTHING_HELD, Block, Held
from keras_echo.factor import check_factor
from keras_echo.stream import START, Fresh, Position

_VERSION = 2
_VERSION_WITHOUT_FACTORS_AHEAD = 1  # is loaded too


@dataclass(frozen=True, eq=False)
class ExampleState:
    """Where example echoing stands.

    Attributes:
        batch_size: Examples in each batch that is served; 0 before the first one.
        num_taken: Examples that were taken into the buffer.
        blocks: The fresh batches of which examples are in the buffer or still to come there.
        held: What the buffer holds.
    """

    batch_size: int = 0
    num_taken: int = 0
    blocks: tuple[Block, ...] = ()
    held: Held = NOTHING_HELD

    def as_json(self) -> dict[str, Any]:
        """The state in types that JSON knows; the ascending numbers as steps, which are short."""
        return {
            "batch_size": self.batch_size,
            "num_taken": self.num_taken,
            "blocks": [[*block.position, block.first, block.num] for block in self.blocks],
            "steps": np.diff(self.held.numbers, prepend=0).tolist(),
            "num_uses": self.held.num_uses.tolist(),
        }

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> ExampleState:
        """The reverse of `as_json`.

        Raises:
            ValueError: If `state` doesn't come from `as_json`.
        """
        numbers = np.cumsum([_count(step) for step in state["steps"]], dtype=np.int64)
        num_uses = np.array([_count(num) for num in state["num_uses"]], np.int64)
        blocks = tuple(
            Block(_position(number, ordinal), _count(first), _count(num))
            for number, ordinal, first, num in state["blocks"]
        )
        batch_size, num_taken = _count(state["batch_size"]), _count(state["num_taken"])
        _check(batch_size <= num_taken, "batch_size")
        _check(all(a.end <= b.first for a, b in pairwise(blocks)), "blocks")
        _check(all(a.position < b.position for a, b in pairwise(blocks)), "blocks")
        _check(len(numbers) == len(num_uses), "num_uses")
        _check(bool((np.diff(numbers) > 0).all()), "steps")
        _check(not len(numbers) or int(numbers[-1]) < num_taken, "num_taken")
        of_blocks = [(block.first <= numbers) & (numbers < block.end) for block in blocks]
        _check(bool(np.any(of_blocks, axis=0).all()) if of_blocks else not len(numbers), "blocks")
        return cls(batch_size, num_taken, blocks, Held(numbers, num_uses))


@dataclass(frozen=True)
class State:
    """Where a stream of batches stands.

    Attributes:
        seed: Seed of all that is random in the stream.
        position: The fresh batch to read next, or the one in use if its uses aren't over (with
            example echoing, always the one to read next).
        num_uses: How often the batch at `position` was used.
        credit: Fraction of a use that the batches before it still owe.
        num_drawn: Draws of the shuffle buffer.
        held: What the shuffle buffer holds.
        num_steps: Batches served.
        num_fresh: Fresh batches among them; with example echoing, the fresh examples that were
            used, in batches.
        examples: Where example echoing stands; None for batch echoing.
        factors_ahead: The echoing factors of the next uses, made ahead before the factor changed;
            after them, the factor in force acts.
    """

    seed: int
    position: Position = START
    num_uses: int = 0
    credit: float = 0.0
    num_drawn: int = 0
    held: tuple[Use[Fresh], ...] = ()
    num_steps: int = 0
    num_fresh: int = 0
    examples: ExampleState | None = None
    factors_ahead: tuple[float, ...] = ()

    @property
    def positions_held(self) -> tuple[Position, ...]:
        """The fresh batches before `position` that going on from here needs, ascending."""
        blocks = self.examples.blocks if self.examples else ()
        return tuple(
            sorted({use.item.position for use in self.held} | {block.position for block in blocks})
        )

    def without_batches(self) -> State:
        """The same state, without the batches in the shuffle buffer, which are read again."""
        held = tuple(Use(use.item._replace(batch=None), use.is_only) for use in self.held)
        return replace(self, held=held)

    def as_json(self, echo_factor: float) -> dict[str, Any]:
        """The state in types that JSON knows; what the buffer holds, by its positions.

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
            "num_uses": self.num_uses,
            "credit": self.credit,
            "num_drawn": self.num_drawn,
            "held": [[*use.item.position, use.is_only] for use in self.held],
            "num_steps": self.num_steps,
            "num_fresh": self.num_fresh,
            "examples": None if self.examples is None else self.examples.as_json(),
            "factors_ahead": factors_ahead,
            "echo_factor": echo_factor,
        }

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> State:
        """The reverse of `as_json`; the batches of the buffer are missing, to be read again.

        Raises:
            ValueError: If `state` doesn't come from `as_json`.
        """
        try:
            if state["version"] not in (_VERSION, _VERSION_WITHOUT_FACTORS_AHEAD):
                raise ValueError(f"version {state['version']}")
            factors_ahead = state["factors_ahead"] if state["version"] == _VERSION else []
            position, credit = _position(*state["position"]), state["credit"]
            _check(isinstance(credit, (int, float)) and 0 <= credit < 1, "credit")
            held = tuple(
                Use(Fresh(_position(number, ordinal), None), _flag(is_only))
                for number, ordinal, is_only in state["held"]
            )
            examples = state["examples"]
            loaded = cls(
                seed=_count(state["seed"], most=2**128),
                position=position,
                num_uses=_count(state["num_uses"]),
                credit=float(credit),
                num_drawn=_count(state["num_drawn"]),
                held=held,
                num_steps=_count(state["num_steps"]),
                num_fresh=_count(state["num_fresh"]),
                examples=None if examples is None else ExampleState.from_json(examples),
                factors_ahead=tuple(check_factor("factors_ahead", each) for each in factors_ahead),
            )
            _check(loaded.num_uses <= loaded.num_drawn + len(held), "num_uses")
            _check(not (held and examples), "held")
            _check(max(loaded.positions_held, default=START) <= position, "held")
            return loaded
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(_foreign(state)) from error


def factor_of(state: dict[str, Any]) -> float:
    """The echoing factor in what `state_dict` returned.

    Raises:
        ValueError: If there is none.
    """
    try:
        return check_factor("echo_factor", state["echo_factor"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(_foreign(state)) from error


def _foreign(state: object) -> str:
    return expected(
        "state",
        f"be what state_dict() returned, version {_VERSION}",
        state,
        "Save dataset.state_dict() as it is, and load it with the same keras_echo",
    )


def _check(is_right: bool, name: str) -> None:
    if not is_right:
        raise ValueError(f"{name} contradicts the rest of the state, or is out of range")


def _count(value: object, most: int = 2**62) -> int:
    _check(type(value) is int and 0 <= value < most, "a count")
    return cast("int", value)


def _flag(value: object) -> bool:
    _check(isinstance(value, bool), "a flag")
    return cast("bool", value)


def _position(number: object, ordinal: object) -> Position:
    return Position(_count(number), _count(ordinal))
