"""`DataEchoCallback`: the only place that touches training."""

from __future__ import annotations

import copy
import math
import threading
import time
import weakref
from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

import keras

from keras_echo._checks import check_choice, check_count
from keras_echo._messages import expected
from keras_echo.adapting import report
from keras_echo.adapting.controller_state import ControllerState
from keras_echo.adapting.log_dir import LogDir
from keras_echo.adapting.remedies import Remedy, remedies
from keras_echo.adapting.schedule import FEWEST_CALLS, Balance, Look, Schedule
from keras_echo.adapting.tuner import BRIDGING, WAITING, Choice, EchoDecision, NextWindow, decide
from keras_echo.adapting.unseen_loss import UnseenLoss, problem_of
from keras_echo.adapting.why_slow import why_slow
from keras_echo.adapting.window import Measurement, Window
from keras_echo.adapting.worth_meter import WorthMeter
from keras_echo.dataset import EchoingPyDataset, probe_of
from keras_echo.factor import EchoFactor, check_factor
from keras_echo.probe import Probe
from keras_echo.profiling.recording.tracer import Tracer

if TYPE_CHECKING:
    import os
    from collections.abc import Generator

    from keras_echo.profiling.measuring.result import StepBreakdown

    Logs = dict[str, Any] | None

_CHECK_STEPS = 100  # between two checks of the dataset's counters
_MOST_COMPARING_STEPS = 1000  # for which no window opens, since fewer readers are being tried

# By thread: the callbacks whose windows may be open. A process has one profiler session.
_recording: weakref.WeakValueDictionary[int, DataEchoCallback] = weakref.WeakValueDictionary()


class DataEchoCallback(keras.callbacks.Callback):
    """Measures R = t_upstream / t_downstream during `fit()` and sets the echoing factor to it.

    Every so often a few steps are recorded with the backend's own profiler. What the trace says of
    reading and of training decides on the factor; see `keras_echo.adapting.tuner`. The last five
    traces stay in `log_dir`, where TensorBoard's Profile tab shows them. Where no trace can be
    had, the dataset's own counters serve, and the decision says so. Between windows the callback
    costs a comparison per step, and never waits for the device.

    At the end of `fit()`, one line says what would have brought more fresh batches, if anything
    would; see `remedies`. Where each batch is used several times and several threads or processes
    read, half of them rest for a few reads, once, to see whether more of them would help.

    With `worth`, windows of another kind tell what each use of a batch brings: how much it lowers
    the loss on fresh batches that still wait in the queue; see `keras_echo.adapting.worth`. The
    loss is that of `compute_loss` with `training=False`, and asking for it changes nothing of the
    training. It takes hundreds of measured steps until something can be said, so long trainings
    profit. Where steps can't be told apart (`echo="example"`, `steps_per_execution` above 1) or no
    loss can be had, `report()` says so, and with `"follow"` a warning.

    The logs of each epoch get `echo_factor` and `echo_ratio` (NaN while R is unknown), so that
    `History` and callbacks after this one in the list have them.

    A deep copy, as KerasTuner makes one for each trial, shares the dataset's factor and has made
    no decision yet.

    Args:
        dataset_or_factor: The `EchoingPyDataset` that is trained on, or the `EchoFactor` of a
            pipeline with `keras_echo.echo`.
        log_dir: A TensorBoard log directory; default: none, and no trace is kept.
        min_factor: The least factor.
        max_factor: The most. A higher one is of little use where copies are alike. While training
            waits and no fresh batch is there, a batch is used up to so many times; see `max_uses`
            of `EchoingPyDataset`, which has precedence.
        profile_steps: Optimizer steps in a window.
        profile_freq: `"epoch"`, or the optimizer steps from one window to the next. Windows that
            would take more than 0.5 % of the time are left out while nothing changes.
        warmup_steps: Optimizer steps before the first window, for compilation and for filling
            the pipeline.
        adapt: False to measure and report only.
        worth: `"report"` to measure what each use of a batch is worth, for `report()` and
            TensorBoard. `"follow"` to also use no batch more often than helps: where the last use
            raises the loss on unseen data, by two standard errors, it is left out, and comes back
            where the one before it lowers the loss. Measuring takes 5 % of the time then, as long
            as that isn't clear, and 0.5 % otherwise. None: not measured.
        verbose: 1 for a line per decision, 0 for none.

    Attributes:
        decisions: What was decided so far, a list of `EchoDecision`.
        dataset: The dataset that is trained on; None where only its factor is known.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument has a wrong value; in `fit()`, before the first decision: if
            `fit()` trains on another dataset.

    Examples:
        >>> dataset = keras_echo.EchoingPyDataset(source)
        >>> model.fit(dataset, callbacks=[keras_echo.DataEchoCallback(dataset, "logs")])
    """

    def __init__(
        self,
        dataset_or_factor: EchoingPyDataset | EchoFactor,
        log_dir: str | os.PathLike[str] | None = None,
        *,
        min_factor: float = 1.0,
        max_factor: float = 8.0,
        profile_steps: int = 10,
        profile_freq: int | Literal["epoch"] = "epoch",
        warmup_steps: int = 10,
        adapt: bool = True,
        worth: Literal["report", "follow"] | None = "report",
        verbose: int = 1,
    ) -> None:
        self._min_factor = check_factor("min_factor", min_factor)
        self._max_factor = check_factor("max_factor", max_factor)
        if max_factor < min_factor:
            raise ValueError(
                expected(
                    "max_factor", f"be at least min_factor {min_factor}", max_factor, "Raise it"
                )
            )
        check_count("profile_steps", profile_steps, FEWEST_CALLS)
        check_count("warmup_steps", warmup_steps, 0)
        if profile_freq != "epoch":
            _check_freq(profile_freq)
        if isinstance(dataset_or_factor, EchoingPyDataset):
            self._probe = probe_of(dataset_or_factor)
        elif isinstance(dataset_or_factor, EchoFactor):
            self._probe = Probe.without_dataset(dataset_or_factor)
        else:
            raise TypeError(
                expected(
                    "dataset_or_factor",
                    "be an EchoingPyDataset or an EchoFactor",
                    dataset_or_factor,
                    "Wrap the data in keras_echo.EchoingPyDataset",
                )
            )
        check_choice("worth", worth, ("report", "follow", None))
        self.dataset = (
            dataset_or_factor if isinstance(dataset_or_factor, EchoingPyDataset) else None
        )
        self._factor = self._probe.factor
        self._adapt = adapt
        self._follows = worth == "follow" and adapt
        self._measures_worth = worth is not None
        self._verbose = verbose
        self._log_dir = log_dir
        self._make_schedule = partial(
            Schedule,
            warmup_steps,
            profile_steps,
            None if profile_freq == "epoch" else int(profile_freq),
        )
        self._begin()

    def _begin(self) -> None:
        """Sets all that training changes to what it is before the first `fit()`."""
        super().__init__()
        self.decisions: list[EchoDecision] = []
        self._log = LogDir(self._log_dir)
        self._tracer = Tracer()
        self._schedule = self._make_schedule()
        self._history: list[StepBreakdown] = []
        self._problems: set[str] = set()
        self._window: Generator[None, None, Measurement | None] | None = None
        self._worth = WorthMeter(self._probe.unseen, follows=self._follows)
        self._stream_step = 0  # of the dataset, when the epoch began
        self._locked_fraction = math.nan
        self._has_compared = self._is_comparing = False
        self._compared_by = 0  # the step; a source may stall
        self._is_settled = False
        self._is_beginning = self._is_resumed = False
        self._is_urgent = False  # R has changed, and no window has seen it yet
        self._balance = Balance()
        self._paused_since: float | None = None
        self._paused_seconds = 0.0
        self._since = -math.inf  # see `Window.since`
        self._checked_seconds = deque([self._since], maxlen=2)  # the last checks
        self._epoch = 0
        self._first_step = 0  # of the epoch, counted over all calls of fit()
        self._last_batch = -1
        self._next_check: float = math.inf
        self._begun_seconds = time.perf_counter()
        self._num_served = 0  # by the dataset, when fit() began
        self._has_set_max_uses = self._has_set_min_uses = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        made = copy.copy(self)
        made._begin()
        return made

    def on_train_begin(self, logs: Logs = None) -> None:
        """Keras calls this."""
        # One that an exception or Ctrl-C left open would keep every profiler from starting.
        if left_open := _recording.pop(threading.get_ident(), None):
            left_open._abandon()
        self._end_epoch()  # where the last fit() broke off
        self._pause()
        self._is_beginning = True
        self._begun_seconds = time.perf_counter()
        self._num_served = self._probe.num_served()
        self._log.begin(self._probe.stats())
        if self._measures_worth:
            self._begin_worth()
        if self._adapt and self._factor.max_uses is None:
            self._factor.max_uses = self._most
            self._has_set_max_uses = True
        if self._adapt and self._factor.min_uses is None:
            self._factor.min_uses = self._min_factor
            self._has_set_min_uses = True

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Keras calls this."""
        self._epoch = epoch
        self._stream_step = self._probe.stats().steps
        if self._is_beginning:
            self._begin_steps()
        self._schedule.begin_epoch(self._first_step, self._num_steps())

    def _begin_steps(self) -> None:
        """The first epoch of a `fit()` begins: by now, a backup has been restored."""
        if not self._is_resumed:
            self._history.clear()
        self._is_beginning = self._is_resumed = False
        self._schedule.begin_fit(self._first_step, self._steps_per_call())
        self._next_check = self._first_step + _CHECK_STEPS

    # Not `on_train_batch_end`: for a callback that has one, Keras waits for the device at every
    # step to hand it the logs (keras/src/callbacks/callback_list.py). From one begin to the next
    # lie one fetch and one step on every backend.
    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Keras calls this."""
        self._last_batch = batch
        self._resume()
        if self._window is not None:
            self._advance(self._window)
        elif self._first_step + batch >= min(self._schedule.next_step, self._next_check):
            self._check(self._first_step + batch)

    def on_test_begin(self, logs: Logs = None) -> None:
        """Keras calls this."""
        self._abandon()
        self._pause()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Keras calls this."""
        self._end_epoch()
        self._pause()
        if logs is not None:
            logs["echo_factor"] = self._factor.value
            logs["echo_ratio"] = self.decisions[-1].ratio if self.decisions else math.nan
        self._log.progress(self._first_step, self._factor.value, self._probe.stats())

    def on_train_end(self, logs: Logs = None) -> None:
        """Keras calls this."""
        self._abandon()
        self._worth.end()
        self._log.close()
        self._advise()
        if self._has_set_max_uses:
            self._factor.max_uses = None
        if self._has_set_min_uses:
            self._factor.min_uses = None
        self._has_set_max_uses = self._has_set_min_uses = False

    def state_dict(self) -> dict[str, Any]:
        """What was learnt so far, JSON-serialisable: R, the factor, what uses are worth."""
        return ControllerState(
            step=self._first_step + max(0, self._last_batch),
            factor=self._factor.value,
            history=tuple(self._history),
            decisions=tuple(self.decisions),
            problems=tuple(sorted(self._problems)),
            samples=self._worth.worth.samples,
            limit=self._worth.limit,
            is_settled=self._is_settled,
            has_compared=self._has_compared,
            locked_fraction=self._locked_fraction,
        ).as_json()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with what was learnt elsewhere: before `fit()`, or in `on_train_begin`.

        Raises:
            ValueError: If `state` doesn't come from `state_dict`.
        """
        known = ControllerState.from_json(state)
        self._factor.value = known.factor
        self._history, self.decisions = list(known.history), list(known.decisions)
        self._problems = set(known.problems)
        self._worth.worth.go_on_from(known.samples)
        self._worth.limit = known.limit
        self._is_settled, self._has_compared = known.is_settled, known.has_compared
        self._locked_fraction = known.locked_fraction
        self._first_step = known.step
        if self._has_set_max_uses:
            self._factor.max_uses = self._most
        self._is_resumed = True

    def remedies(self) -> list[Remedy]:
        """What would make training wait less, ranked, each with what it would bring.

        Fresh batches come first: more readers, processes, a cache, a longer queue; then echoing,
        for what is left. None where nothing is to be gained, or nothing is known.
        """
        if not self.decisions:
            return []
        found = self.decisions[-1].breakdown
        known = why_slow(self._probe, self._locked_fraction, found.downstream_seconds)
        return remedies(replace(found, reading=known), max_factor=self._max_factor)

    def report(self) -> str:
        """What was measured and decided, and what would help, as a short text."""
        estimates = self._worth.worth.estimates()
        return report.report(self.decisions, self.remedies(), estimates, self._worth.problem)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws R and the factor over the optimizer steps into a PNG file; needs matplotlib."""
        report.plot(self.decisions, path)

    def _advise(self) -> None:
        """Says at the end of training what would have brought more fresh batches."""
        best = next((remedy for remedy in self.remedies() if remedy.kind != "echo"), None)
        if best is not None and self._verbose:
            print(f"\nDataEchoCallback: {report.advice(self.decisions[-1], best)}")

    def _abandon(self) -> None:
        """Closes the window that is open, if one is, and forgets it."""
        window, self._window = self._window, None
        if window is not None:
            window.close()

    def _pause(self) -> None:
        """Nobody trains: what rests meanwhile says nothing of the factor."""
        if self._paused_since is None:
            self._paused_since = time.perf_counter()
            self._probe.pause()

    def _resume(self) -> None:
        if self._paused_since is not None:
            self._paused_seconds += time.perf_counter() - self._paused_since
            self._paused_since = None
            self._probe.resume()

    def _end_epoch(self) -> None:
        self._abandon()
        if self._last_batch >= 0:
            calls_end = self._last_batch + self._steps_per_call()
            self._first_step += int(min(calls_end, self._num_steps()))
            self._last_batch = -1

    def _check(self, step: int) -> None:
        """Opens a window, if one is due or reading has changed."""
        if self._probe.is_comparing and step < self._compared_by:
            return
        if self._is_comparing:  # no longer
            self._is_comparing = False
            self._schedule.repeat(step)
        self._next_check = step + _CHECK_STEPS
        has_changed = self._has_balance_changed() and bool(self.decisions)
        self._checked_seconds.append(time.perf_counter())
        if has_changed:
            self._is_urgent = True
            self._since = self._checked_seconds[0]
            self._history.clear()  # it tells of what was before
        running_seconds = time.perf_counter() - self._begun_seconds
        if step < self._schedule.next_step and not self._is_urgent:
            self._measure_worth(running_seconds)
            return
        is_urgent = self._is_urgent or not self._is_settled
        calls = self._schedule.begin_window(step, running_seconds, is_urgent)
        if calls is None:
            return
        self._is_urgent = False
        _recording[threading.get_ident()] = self
        self._window = Window(
            self._tracer,
            self._log.directory,
            self._probe,
            self._factor,
            self._synchronize,
            step,
            calls,
            self._steps_per_call(),
            self._decide_early,
            self._since,
        ).record()
        self._advance(self._window)

    def _advance(self, window: Generator[None, None, Measurement | None]) -> None:
        try:
            next(window)
        except StopIteration as done:
            self._window = None
            if done.value is None:
                self._learn_worth()
            else:
                self._decide(done.value)

    def _begin_worth(self) -> None:
        problem = None
        if not self._probe.sees_dataset:
            problem = "keras_echo.echo doesn't say which use of an element a step gets"
        self._worth.begin(
            UnseenLoss(self.model), self._synchronize, problem or problem_of(self.model)
        )

    def _measure_worth(self, running_seconds: float) -> None:
        """Opens a window on what uses are worth, if one is due."""
        if self.decisions and self._worth.is_due(running_seconds, self._factor.value):
            read_seconds = self.decisions[-1].breakdown.upstream_seconds
            self._window = self._worth.window(self._stream_step + self._last_batch, read_seconds)
            self._advance(self._window)

    def _learn_worth(self) -> None:
        """Takes in what a window said of the uses, and follows it."""
        self._log.worth(self._first_step + self._last_batch, self._worth.worth.estimates())
        reason = self._worth.follow(self._factor.value)
        if reason is None:
            return
        if self._has_set_max_uses:
            self._factor.max_uses = self._most
        latest = self.decisions[-1]
        wanted = self._choose(self._history).factor if self._history else self._factor.value
        self._set(min(wanted, self._most), latest.breakdown, reason, latest.ratio)

    @property
    def _most(self) -> float:
        """The highest factor."""
        return max(self._min_factor, min(self._max_factor, self._worth.limit))

    def _decide(self, measured: Measurement) -> None:
        self._check_dataset()
        breakdown, problem, self._locked_fraction, held_seconds = measured
        self._schedule.spent(held_seconds)
        self._history.append(breakdown)
        factor, ratio, reason, next_window = self._choose(self._history)
        if not self._adapt:
            factor, reason = self._factor.value, f"{reason}; adapt=False"
        elif next_window is NextWindow.AT_ONCE:
            self._schedule.repeat(self._first_step + self._last_batch)
        if problem is not None:
            # Once in full.
            reason += (
                " (from counters)" if problem in self._problems else f". From counters: {problem}"
            )
            self._problems.add(problem)
        self._is_settled = next_window is NextWindow.IF_CHEAP
        self._set(factor, breakdown, reason, ratio)
        if self._bridges() and breakdown.input_bound and not self._has_compared:
            self._probe.compare_readers()
            self._has_compared, self._is_comparing = True, self._probe.is_comparing
            self._compared_by = self._first_step + self._last_batch + _MOST_COMPARING_STEPS

    def _decide_early(self, breakdown: StepBreakdown) -> None:
        """Raises the factor by what is known before the first trace."""
        choice = self._choose([*self._history, breakdown])
        if self._adapt and choice.factor > self._factor.value:
            reason = f"By the first steps, {choice.reason}"
            self._set(choice.factor, breakdown, reason, choice.ratio)

    def _choose(self, breakdowns: list[StepBreakdown]) -> Choice:
        return decide(
            breakdowns,
            self._factor.value,
            min_factor=self._min_factor,
            max_factor=self._most,
            policy=BRIDGING if self._bridges() else WAITING,
            limited_by="max_factor" if self._most == self._max_factor else "what uses are worth,",
        )

    def _set(self, factor: float, breakdown: StepBreakdown, reason: str, ratio: float) -> None:
        previous, step = self._factor.value, self._first_step + self._last_batch
        self._factor.value = factor
        decision = EchoDecision(step, breakdown, factor, previous, reason, ratio)
        self.decisions.append(decision)
        if self._verbose:
            print(f"\nEpoch {self._epoch + 1}: {report.line(decision)}")
        self._log.decision(decision)

    def _bridges(self) -> bool:
        """Whether a batch is used once more while no fresh one is there."""
        return self._probe.sees_dataset and (self._factor.max_uses or 1.0) > 1.0

    def _check_dataset(self) -> None:
        """Raises where training has gone through a window without asking the dataset once."""
        if self._probe.sees_dataset and self._probe.num_served() == self._num_served:
            raise ValueError(
                expected(
                    "DataEchoCallback's dataset",
                    "be the one that fit() trains on",
                    "an EchoingPyDataset that served no batch to this fit()",
                    "Pass the same object to both: "
                    "model.fit(dataset, callbacks=[DataEchoCallback(dataset)])",
                )
            )

    def _num_steps(self) -> float:
        """Optimizer steps of an epoch; infinity where nobody knows."""
        if self.dataset is not None and self.dataset.num_batches < len(self.dataset):
            return self.dataset.num_batches  # it goes on with an epoch that was interrupted
        # A `CallbackList` that was made without parameters sets none.
        return (self.params or {}).get("steps") or math.inf

    def _steps_per_call(self) -> int:
        return int(self.model.steps_per_execution)

    def _synchronize(self) -> None:
        # The smallest weight: TensorFlow has no other way to wait for it than to fetch it.
        weights = self.model.trainable_variables
        if weights:
            smallest = min(weights, key=lambda weight: math.prod(weight.shape))
            self._tracer.synchronize(smallest.value)

    def _has_balance_changed(self) -> bool:
        """Whether, since the last check, the factor was far from what it should be."""
        stats, factor = self._probe.stats(), self._factor.value
        look = Look(
            stats.steps,
            stats.fresh_batches,
            time.perf_counter() - self._paused_seconds,
            stats.wait_seconds if self._probe.sees_waits else 0.0,
            stats.held_seconds,
        )
        has_changed = self._balance.has_changed(
            look, factor, is_least=factor <= self._min_factor, is_most=factor >= self._most
        )
        return has_changed and self._adapt


def _check_freq(profile_freq: object) -> None:
    try:
        check_count("profile_freq", profile_freq, 1)
    except (TypeError, ValueError) as error:
        must, remedy = 'be "epoch" or a number of optimizer steps', "Pass 100, or leave it out"
        raise type(error)(expected("profile_freq", must, profile_freq, remedy)) from None
