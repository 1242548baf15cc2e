"""How many readers pay. Pure: no clock, no I/O, no threads.

The number of readers follows what more of them bring, as measured: what a batch takes with so many
of them (a `Trial`) says how many to try next. Only readers that are never held show what they can
deliver, and only for a training that waits for them is it worth while to ask.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keras_echo.metering import Read

MOST_WAITING = 32
"""The most readers, where their reads wait for a disk or for a network."""

MOST_BYTES = 2**30
"""What the batches may take that so many readers hold: one each."""

_GAIN = 1.1  # of the rate, for which it pays to double the readers
_ENOUGH = 0.97  # of the best rate
_COMPUTES = 0.5  # from this share of its time on, a read computes more than it waits
_CHANGE = 1.25  # of what a batch takes, after which it is asked anew
_HARDLY_HELD = 0.05
_PATIENCE, _MOST_PATIENCE = 8, 64  # trials after which more readers are tried again
_MOST_FAILED = 3  # trials, after which nothing is compared
_FEWEST_READS = 8  # of a trial
_NUM_ROUNDS = 2  # of the readers, in a trial
_FEWEST_SECONDS = 0.05
_MOST_READS = 512


class Trial(NamedTuple):
    """What some readers delivered.

    Attributes:
        num_readers: How many they were.
        seconds: From one fresh batch to the next.
    """

    num_readers: int
    seconds: float


class Plan(Protocol):
    """Which number of readers to try."""

    number: int

    @property
    def is_done(self) -> bool:
        """Whether nobody asks for a further trial."""

    def tried(self, seconds: float, most: int) -> None:
        """Notes what a batch took with `number` readers; chooses the next number, up to `most`."""

    def failed(self) -> None:
        """Notes that a trial told nothing: readers rested, or nobody trained."""

    def trials(self) -> Sequence[Trial]:
        """What was found, by the number."""

    def go_on_from(self, number: int, trials: Sequence[Trial]) -> None:
        """Takes what was found elsewhere, where the number was this, for what is known."""


class Search:
    """Doubles the readers while that brings a tenth, then looks for the fewest that do as well.

    Now and then, and where what a batch takes has changed, more are tried again.

    Args:
        first: The number to begin with.
    """

    is_done = False

    def __init__(self, first: int) -> None:
        self.number = first
        self._seconds: dict[int, float] = {}
        self._num_same = 0  # trials since it came to rest
        self._patience = _PATIENCE

    def tried(self, seconds: float, most: int) -> None:
        """See `Plan`."""
        known = self._seconds.get(self.number, seconds)
        if max(seconds / known, known / seconds) > _CHANGE:
            self._seconds.clear()
            self._patience = _PATIENCE
        self._seconds[self.number] = seconds
        following = self._following(most)
        self._num_same = self._num_same + 1 if following == self.number else 0
        if self._num_same > self._patience and following < most:
            self._num_same, self._patience = 0, min(2 * self._patience, _MOST_PATIENCE)
            self._seconds = {n: s for n, s in self._seconds.items() if n <= following}
            following = min(2 * following, most)
        self.number = following

    def failed(self) -> None:
        """See `Plan`. The number stays."""

    def trials(self) -> Sequence[Trial]:
        """See `Plan`."""
        return [Trial(*known) for known in sorted(self._seconds.items())]

    def go_on_from(self, number: int, trials: Sequence[Trial]) -> None:
        """See `Plan`."""
        self.number, self._seconds = number, dict(trials)

    def _following(self, most: int) -> int:
        known = self._seconds
        best = min(known.values())
        enough = min(number for number in known if _ENOUGH * known[number] <= best)
        highest = max(known)
        before = max((number for number in known if number < highest), default=None)
        pays = before is None or known[before] >= _GAIN * known[highest]
        if pays and enough == highest < most:
            return min(2 * highest, most)
        too_few = max((number for number in known if number < enough), default=None)
        if too_few is None:
            return max(1, enough // 2)
        # As many as it takes, if each brings as much as those before.
        wanted = math.ceil(too_few * known[too_few] / known[enough] - 0.1)
        return min(max(wanted, too_few + 1), enough)


class Fixed:
    """Always so many, but for one trial with half of them, if somebody asks what they bring."""

    def __init__(self, number: int) -> None:
        self.number = self._usual = number
        self._seconds: dict[int, float] = {}
        self._num_failed = 0
        self._is_asked = False

    @property
    def is_done(self) -> bool:
        """See `Plan`."""
        return not self._is_asked

    def compare(self) -> None:
        """Asks for a trial with all of them, and for one with half of them."""
        self._seconds.clear()
        self._num_failed = 0
        self._is_asked = self._usual > 1

    def tried(self, seconds: float, most: int) -> None:
        """See `Plan`."""
        self._seconds[self.number] = seconds
        is_usual = self.number == self._usual
        self._is_asked = is_usual
        self.number = self._usual // 2 if is_usual else self._usual

    def failed(self) -> None:
        """See `Plan`. Nothing is compared where reading doesn't limit training any more."""
        self._num_failed += 1
        if self._num_failed == _MOST_FAILED:
            self.number, self._is_asked = self._usual, False

    def trials(self) -> Sequence[Trial]:
        """See `Plan`."""
        return [Trial(*known) for known in sorted(self._seconds.items())]

    def go_on_from(self, number: int, trials: Sequence[Trial]) -> None:
        """See `Plan`. The number stays; what was found with another one doesn't count."""
        if number == self._usual:
            self._seconds = dict(trials)


class Reads(Protocol):
    """What is known of the reads so far."""

    num_reads: int

    @property
    def batch_bytes(self) -> float:
        """Bytes of a fresh batch; 0 while that is unknown."""

    def recent_reads(self) -> Sequence[Read]:
        """The last ones, by their end."""


class ReaderCount:
    """The number of readers now: asked for after each read, it has trials made as a plan wants.

    A trial begins when all readers that there were have done the reads at which they were, and all
    new ones their first. It counts only if readers were hardly ever held, and if more fresh batches
    are of use: training waited for them, or uses each several times. Until then the number stays as
    it is.

    Args:
        plan: Which number to try.
        reads: What is known of the reads so far.
        num_cores: How many processors there are.
        is_echoing: Says whether each batch is used several times.

    Attributes:
        since: When the readers, after the last change of their number, had done the reads at which
            they were, by the clock of the reads.
    """

    def __init__(
        self, plan: Plan, reads: Reads, num_cores: int, is_echoing: Callable[[], bool]
    ) -> None:
        self.plan = plan
        self._is_echoing = is_echoing
        self._reads = reads
        self._num_cores = num_cores
        self._is_changing = self._is_comparing = False
        self.since = -math.inf
        self._begin(num_before=0)

    @property
    def number(self) -> int:
        """How many there are now."""
        return self.plan.number

    def __call__(self) -> int:
        """How many are to read from here on. Called by one thread at a time, after each read."""
        if self._is_changing and self._reads.num_reads >= self._num_begun + self._num_skipped:
            self._is_changing, self.since = False, self._reads.recent_reads()[-1].end
        if not self.plan.is_done and self._reads.num_reads >= self._due:
            self._look()
        return self.plan.number

    def compare(self) -> None:
        """Asks what half of the readers deliver, where their number is fixed."""
        if isinstance(self.plan, Fixed):
            self._begin(num_before=0)
            self.plan.compare()
            self._is_comparing = not self.plan.is_done

    def as_json(self) -> dict[str, Any]:
        """How many there are, and what different numbers delivered, in types that JSON knows."""
        return {"number": self.number, "trials": [list(trial) for trial in self.plan.trials()]}

    def go_on_from(self, state: dict[str, Any]) -> None:
        """Goes on with what `as_json` returned elsewhere.

        Raises:
            KeyError, TypeError, ValueError: If `state` doesn't come from there.
        """
        number, trials = state["number"], [Trial(*trial) for trial in state["trials"]]
        for trial in (Trial(number, 1.0), *trials):
            if not (type(trial.num_readers) is int and trial.num_readers >= 1):
                raise ValueError(trial)
            if not (type(trial.seconds) is float and 0 < trial.seconds < math.inf):
                raise ValueError(trial)
        self.plan.go_on_from(min(number, MOST_WAITING), trials)
        self._begin(num_before=0)

    @property
    def is_comparing(self) -> bool:
        """Whether that is being tried, or too few reads have been done since."""
        self._is_comparing &= not self.plan.is_done or self._reads.num_reads < self._due
        return self._is_comparing

    def _look(self) -> None:
        num_reads = self._reads.num_reads
        reads = self._reads.recent_reads()[-(num_reads - self._num_begun) :]
        num_first = max((place for place, read in enumerate(reads, 1) if read.is_first), default=0)
        reads = reads[max(self._num_skipped, num_first) :]
        # They may end together: whole rounds of them.
        reads = reads[-(1 + (len(reads) - 1) // self.plan.number * self.plan.number) :]
        if (missing := 1 + self._num_wanted - len(reads)) > 0:
            self._due = num_reads + missing
            return
        seconds = reads[-1].end - reads[0].end
        if seconds < _FEWEST_SECONDS and len(reads) < _MOST_READS:
            self._due = num_reads + len(reads)
            return
        before = self.plan.number
        if not _are_held(reads) and (self._is_echoing() or _are_awaited(reads, before)):
            self.plan.tried(seconds / (len(reads) - 1), self._most(reads))
        else:
            self.plan.failed()
        self._is_changing = self.plan.number != before
        self._begin(before)

    def _begin(self, num_before: int) -> None:
        self._num_begun = self._reads.num_reads
        self._num_skipped = max(num_before, self.plan.number)
        self._due = self._num_begun + self._num_skipped + self._num_wanted + 1

    @property
    def _num_wanted(self) -> int:
        return max(_FEWEST_READS, _NUM_ROUNDS * self.plan.number)

    def _most(self, reads: Sequence[Read]) -> int:
        computes = sum(read.compute_seconds for read in reads) > _COMPUTES * sum(
            read.seconds for read in reads
        )
        fitting = int(MOST_BYTES // max(self._reads.batch_bytes, 1.0))
        return max(1, min(self._num_cores if computes else MOST_WAITING, fitting))


def _are_held(reads: Sequence[Read]) -> bool:
    """Whether readers had nothing to do for more than a moment, or nobody trained."""
    first, last = reads[0], reads[-1]
    held_seconds = last.held_seconds - first.held_seconds
    has_paused = last.paused_seconds > first.paused_seconds
    return has_paused or held_seconds > _HARDLY_HELD * (last.end - first.end)


def _are_awaited(reads: Sequence[Read], num_readers: int) -> bool:
    """Whether training waited in each of their rounds, on average."""
    return sum(read.is_awaited for read in reads[1:]) * num_readers >= len(reads) - 1
