"""Where a stream of batches stands, as an object and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_echo._messages import expected
from keras_echo.echoing import Use
from keras_echo.examples import NOTHING_HELD, Block, Held
from keras_echo.stream import START, Fresh, Position

_VERSION = 1


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
        """The reverse of `as_json`."""
        return cls(
            batch_size=int(state["batch_size"]),
            num_taken=int(state["num_taken"]),
            blocks=tuple(
                Block(Position(int(number), int(ordinal)), int(first), int(num))
                for number, ordinal, first, num in state["blocks"]
            ),
            held=Held(
                np.cumsum(state["steps"], dtype=np.int64), np.array(state["num_uses"], np.int64)
            ),
        )


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

    @property
    def positions_held(self) -> tuple[Position, ...]:
        """The fresh batches before `position` that going on from here needs, ascending."""
        blocks = self.examples.blocks if self.examples else ()
        return tuple(
            sorted({use.item.position for use in self.held} | {block.position for block in blocks})
        )

    def as_json(self) -> dict[str, Any]:
        """The state in types that JSON knows; what the buffer holds, by its positions."""
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
        }

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> State:
        """The reverse of `as_json`; the batches of the buffer are missing, to be read again.

        Raises:
            ValueError: If `state` doesn't come from `as_json`.
        """
        try:
            if state["version"] != _VERSION:
                raise ValueError(f"version {state['version']}")
            return cls(
                seed=int(state["seed"]),
                position=Position(*map(int, state["position"])),
                num_uses=int(state["num_uses"]),
                credit=float(state["credit"]),
                num_drawn=int(state["num_drawn"]),
                held=tuple(
                    Use(Fresh(Position(int(number), int(ordinal)), None), bool(is_only))
                    for number, ordinal, is_only in state["held"]
                ),
                num_steps=int(state["num_steps"]),
                num_fresh=int(state["num_fresh"]),
                examples=(
                    None if state["examples"] is None else ExampleState.from_json(state["examples"])
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                expected(
                    "state",
                    f"be what state_dict() returned, version {_VERSION}",
                    state,
                    "Save dataset.state_dict() as it is, and load it with the same keras_echo",
                )
            ) from error
