"""Where a stream of batches stands, as an object and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras_echo._messages import expected
from keras_echo.echoing import Use
from keras_echo.stream import START, Fresh, Position

_VERSION = 1


@dataclass(frozen=True)
class State:
    """Where a stream of batches stands.

    Attributes:
        seed: Seed of all that is random in the stream.
        position: The fresh batch to read next, or the one in use if its uses aren't over.
        num_uses: How often the batch at `position` was used.
        credit: Fraction of a use that the batches before it still owe.
        num_drawn: Draws of the shuffle buffer.
        held: What the shuffle buffer holds.
        num_steps: Batches served.
        num_fresh: Fresh batches among them.
    """

    seed: int
    position: Position = START
    num_uses: int = 0
    credit: float = 0.0
    num_drawn: int = 0
    held: tuple[Use[Fresh], ...] = ()
    num_steps: int = 0
    num_fresh: int = 0

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
