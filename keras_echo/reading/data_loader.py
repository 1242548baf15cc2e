"""PyTorch's `DataLoader`: what it is told, and what its state is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keras_echo.memory.batch import Batch


def passes_of(loader: Any) -> Callable[[], Iterator[Batch]]:
    """What opens a pass over a loader; its iterators have a state where the loader has one."""
    generators = _generators(loader)
    if _is_stateful(loader):
        return partial(_StatefulPass, loader, generators)
    if generators:
        return _SeededPasses(loader, generators)
    passes: Callable[[], Iterator[Batch]] = loader.__iter__
    return passes


def unseeded_sampler(loader: Any) -> object | None:
    """The sampler whose order nobody can have again, as it comes from PyTorch's global generator.

    Those that draw at random have a `generator`, which is None if they weren't given one.
    """
    if _is_stateful(loader):
        return None
    samplers = [part for part in _parts(loader) if getattr(part, "generator", part) is None]
    return samplers[0] if samplers else None


def set_epoch(loader: Any) -> Callable[[int], None]:
    """Tells the parts of a loader that ask for it of the number of a pass.

    A `DistributedSampler`, for one, draws the same order in each pass if nobody calls its
    `set_epoch`.
    """
    told = [part for part in _parts(loader) if hasattr(part, "set_epoch")]

    def before_pass(number: int) -> None:
        for part in told:
            part.set_epoch(number)

    return before_pass


def _parts(loader: Any) -> list[Any]:
    """What chooses the examples of a loader's batches, each part once."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    parts = (loader.sampler, batch_sampler, getattr(batch_sampler, "sampler", None))
    return list({id(part): part for part in parts if part is not None}.values())


def _is_stateful(loader: Any) -> bool:
    """Whether it is a `StatefulDataLoader` of torchdata, or one like it."""
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def _generators(loader: Any) -> list[Any]:
    """The random number generators that a loader was given, each once."""
    given = [getattr(part, "generator", None) for part in (loader, *_parts(loader))]
    return list({id(generator): generator for generator in given if generator is not None}.values())


class _SeededPasses:
    """Opens passes over a loader whose order comes from generators of its own."""

    def __init__(self, loader: Any, generators: list[Any]) -> None:
        self._loader = loader
        self._generators = generators
        self._has_workers = False  # that live on from pass to pass

    def __call__(self) -> Iterator[Batch]:
        """Opens a pass."""
        had_workers, self._has_workers = self._has_workers, self._loader.persistent_workers
        return _SeededPass(self._loader, self._generators, had_workers)


class _Pass:
    """A pass over a loader, which begins with the first batch: until then, its state can be set."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._iterator: Iterator[Batch] | None = None

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = iter(self._loader)
        return next(self._iterator)


class _SeededPass(_Pass):
    """A pass over a loader whose order comes from generators of its own.

    Its state is theirs before the pass: how often they are drawn from in a pass, and when, is the
    loader's business. That it draws once more where it starts its workers counts.
    """

    def __init__(self, loader: Any, generators: list[Any], has_workers: bool) -> None:
        super().__init__(loader)
        self._generators = generators
        self._has_workers = has_workers
        self._state = has_workers, _states(generators)

    def get_state(self) -> Any:
        """The generators' states, before the first batch; None after that."""
        return self._state if self._iterator is None else None

    def set_state(self, state: Any) -> None:
        """Begins the pass as it began when `state` was taken."""
        had_workers, states = self._state = state
        if had_workers and not self._has_workers:
            iter(self._loader)
        _set_states(self._generators, states)


class _StatefulPass(_Pass):
    """A pass over a loader that knows its state.

    Its generators aren't where they were when it has gone back to a state: it has begun a pass
    meanwhile. So the next one would have another order.
    """

    def __init__(self, loader: Any, generators: list[Any]) -> None:
        super().__init__(loader)
        self._generators = generators

    def get_state(self) -> Any:
        """Where the pass stands."""
        return self._loader.state_dict(), _states(self._generators)

    def set_state(self, state: Any) -> None:
        """Has the pass go on from there."""
        of_loader, of_generators = state
        self._loader.load_state_dict(of_loader)
        self._loader.state_dict()  # has it go back at once
        _set_states(self._generators, of_generators)


def _states(generators: list[Any]) -> list[Any]:
    return [generator.get_state() for generator in generators]


def _set_states(generators: list[Any], states: list[Any]) -> None:
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
