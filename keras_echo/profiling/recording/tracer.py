"""Records windows of training for any backend, in the place where TensorBoard looks for them."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import secrets
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_echo._messages import expected
from keras_echo.profiling import names
from keras_echo.profiling.recording.sessions import ProfilerError, Session, busy, session
from keras_echo.profiling.recording.uninterrupted import uninterrupted
from keras_echo.profiling.traces import xspace

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    Stats = dict[str, float | str]

_NOTHING: AbstractContextManager[Any] = contextlib.nullcontext()
_INPUT = {names.INPUT_STAGE: "keras_echo"}


class Tracer:
    """One interface over the profilers of TensorFlow, JAX and PyTorch.

    `annotate` may be called on any thread, at any time, and costs next to nothing while no window
    is open. All else is called on the training thread::

        tracer.start("logs")
        for number in range(10, 20):
            with tracer.step(number):
                ...  # a batch is fetched, and trained on
        tracer.stop()
        path = tracer.write()

    Args:
        backend: "tensorflow", "jax" or "torch"; default: the Keras backend. Nothing of it is
            imported before the first window.
    """

    def __init__(self, backend: str | None = None) -> None:
        self._backend = backend
        self._session: Session | None = None
        self._active = False
        self._lock = threading.Lock()
        self._logdir = Path()
        self._scratch: Path | None = None
        self._process = os.getpid()
        self._clocks = (0, 0.0)

    @property
    def active(self) -> bool:
        """Whether a window is open."""
        return self._active

    @uninterrupted()
    def start(self, logdir: str | os.PathLike[str]) -> None:
        """Opens a window.

        Args:
            logdir: The TensorBoard log directory; made where there is none.

        Raises:
            ProfilerBusyError: A profiler session is already running, ours or another one.
            ProfilerError: The profiler cannot start, or the directory cannot be written to.
        """
        with self._lock:
            opened = self._opened()
            if self._active:
                raise busy(opened.backend)
            self._clean()  # of a window that was stopped and never written
            self._logdir = Path(logdir)
            self._process = os.getpid()
            # A directory of its own: profilers name a run by the second, and two windows in one
            # second would overwrite each other. Ctrl-C may come anywhere, so who cleans up knows of
            # it before it is there.
            self._scratch = self._logdir / f"{names.WINDOW}{secrets.token_hex(8)}"
            # A session that outlives the interpreter crashes it (PyTorch), and its files stay.
            atexit.register(self.discard)
            try:
                self._scratch.mkdir(mode=0o700, parents=True)
                opened.start(self._scratch)
                self._clocks = (time.time_ns(), time.perf_counter())
                self._active = True
            except OSError as error:
                self._clean()
                raise _unwritable(self._logdir, error) from error
            except BaseException as error:
                if not isinstance(error, ProfilerError):
                    opened.abandon()  # it may have started
                self._clean()
                raise

    def step(self, number: int) -> AbstractContextManager[Any]:
        """Returns a context manager that records a training step, from one batch to the next.

        Args:
            number: The step's number.
        """
        return self.annotate(names.STEP, **{names.STEP_NUM: number, names.ROOT: 1})

    def annotate(self, name: str, **stats: int | str) -> AbstractContextManager[Any]:
        """Returns a context manager that records a span on the thread that enters it.

        Args:
            name: The span's name, best one of `keras_echo.profiling.names`.
            **stats: What is noted with it.

        Returns:
            The context manager, to be entered at once and once.
        """
        if not self._active or self._session is None:
            return _NOTHING
        return self._session.span(name, {**_INPUT, **stats} if name == names.WAIT else stats)

    def synchronize(self, values: Any) -> None:
        """Waits until the device has computed the values, such as a step's logs.

        To be called right before the first step begins and right before the last one ends: a host
        that runs ahead would otherwise close the window long before the device is done.

        Args:
            values: A structure of arrays; other things in it are ignored.
        """
        self._opened().synchronize(values)

    @uninterrupted()
    def stop(self) -> None:
        """Closes the window; what was recorded waits to be written.

        Raises:
            ProfilerError: No window is open, or the profiler cannot stop.
            TraceError: What the profiler left cannot be read.
        """
        with self._lock:
            if not self._active or self._session is None:
                raise ProfilerError(
                    expected("The window", "be open", "no open window", "Call start first")
                )
            self._active = False
            try:
                self._session.stop()
            except OSError as error:
                raise _unwritable(self._logdir, error) from error
            except ProfilerError as error:
                # The scratch directory has another name each time, and what it holds too.
                hidden = rf"{re.escape(str(self._scratch))}\S*"
                raise ProfilerError(re.sub(hidden, str(self._logdir), str(error))) from error

    @uninterrupted()
    def write(
        self,
        reads: Iterable[tuple[float, float]] = (),
        *,
        readers: int | None = None,
        notes: Iterable[tuple[str, Stats]] = (),
    ) -> Path:
        """Writes what was recorded, with what no profiler sees.

        Args:
            reads: Upstream reads that the dataset timed itself, as (start, seconds) with the start
                by `time.perf_counter`: those that ended in the window or shortly before it. They
                are needed where the profiler sees none (worker processes) or only parts (reads
                that take longer than the window), and count instead of those that it sees.
            readers: How many reads can run at the same time.
            notes: What else is known, each with its name and stats; see
                `keras_echo.profiling.names`.

        Returns:
            The file, `<logdir>/plugins/profile/<run>/<host>.xplane.pb`.

        Raises:
            ProfilerError: Nothing was recorded.
            TraceError: What was recorded cannot be read.
        """
        with self._lock:
            if self._active or self._scratch is None:
                must, received = "be closed, and not yet written", "no such window"
                raise ProfilerError(expected("The window", must, received, "Call stop first"))
            try:
                found = sorted(self._scratch.rglob("*.xplane.pb"))
                if not found:
                    must, remedy = "write a trace", "Look for its own messages in the log"
                    raise ProfilerError(expected("The profiler", must, "no file", remedy))
                timed, noted = list(reads), list(notes)
                if timed or noted:
                    self._add(found[0], timed, readers, noted)
                return self._publish(found[0])
            except OSError as error:
                raise _unwritable(self._logdir, error) from error
            finally:
                self._clean()

    @uninterrupted()
    def discard(self) -> None:
        """Closes the window, if one is open, and forgets what was recorded and not written."""
        if self._process != os.getpid():
            return  # a fork: the window is that of its parent
        with self._lock:
            if self._active and self._session is not None:
                self._active = False
                self._session.abandon()
            self._clean()

    def _opened(self) -> Session:
        if self._session is None:
            self._session = session(self._backend or _keras_backend())
        return self._session

    def _clean(self) -> None:
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None
        atexit.unregister(self.discard)  # only now: if Ctrl-C comes before, it still has to be done

    def _publish(self, recorded: Path) -> Path:
        runs = self._logdir / "plugins" / "profile"
        runs.mkdir(parents=True, exist_ok=True)
        name = time.strftime("%Y_%m_%d_%H_%M_%S")
        for attempt in range(10_000):
            run = runs / (f"{name}_{attempt}" if attempt else name)
            with contextlib.suppress(FileExistsError):
                run.mkdir()
                target = run / recorded.name
                recorded.replace(target)
                return target
        raise FileExistsError(f"{runs / name}")

    def _add(
        self,
        path: Path,
        reads: list[tuple[float, float]],
        readers: int | None,
        notes: list[tuple[str, Stats]],
    ) -> None:
        # Not by its path, which is a scratch directory's, of another name each time.
        space = xspace.parse(xspace.contents(path), "The recorded trace")
        # Time 0 of the trace, as the profiler noted it; else the time at which it was started.
        zero = self._clocks[0]
        for plane in space.planes:
            if plane.name == names.ENVIRONMENT_PLANE:
                noted = xspace.stats_of(plane, plane.stats).get(names.START_TIME)
                zero = noted if isinstance(noted, int) else zero
        plane = xspace.plane(space, names.HOST_PLANE)
        builder = xspace.PlaneBuilder(plane)
        ids = {line.id for line in plane.lines}
        free = (number for number in range(1, len(ids) + len(reads) + 3) if number not in ids)
        lanes: list[tuple[float, Any]] = []
        stats = {} if readers is None else {names.READERS: readers}
        for start, seconds in sorted(reads):
            since = (self._clocks[0] - zero) * 1e-9 + (start - self._clocks[1])
            lane = next((n for n, (end, _) in enumerate(lanes) if end <= since), len(lanes))
            if lane == len(lanes):
                lanes.append((0.0, builder.line(next(free), f"keras_echo reads/{lane + 1}")))
            line = lanes[lane][1]
            lanes[lane] = (since + seconds, line)
            # What lies before the window cannot be drawn; the full duration is kept as a stat.
            begin, end = max(since, 0.0), max(since + seconds, 0.0)
            builder.event(
                line,
                names.READ,
                round(begin * 1e12),
                round((end - begin) * 1e12),
                **{names.SECONDS: float(seconds)},
                **stats,
            )
        if notes:
            beside = builder.line(next(free), "keras_echo beside the window")
            for name, known in notes:
                builder.event(beside, name, 0, 0, **known)
        xspace.write(space, path)


def _keras_backend() -> str:
    import keras

    backend: str = keras.backend.backend()
    return backend


def _unwritable(logdir: Path, error: OSError) -> ProfilerError:
    reason = error.strerror or str(error)
    remedy = "Give a log directory that can be written to"
    return ProfilerError(expected(f"log_dir {logdir}", "take a trace", reason, remedy))
