"""The three profilers behind one interface: start, stop, span, synchronize.

A session imports its own framework only, when it is made.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from keras_echo._messages import expected
from keras_echo.profiling.traces import kineto, xspace

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class ProfilerError(RuntimeError):
    """The profiler cannot do what it was asked for; training can go on without it."""


class ProfilerBusyError(ProfilerError):
    """Another profiler session is running in this process."""


def busy(backend: str) -> ProfilerBusyError:
    """Returns the error for a session that was not ours to start."""
    return ProfilerBusyError(
        expected(
            f"The {backend} profiler",
            "be free, since a process has one profiler session at a time",
            "a session that is already running",
            "Stop it, or leave out the other callback that profiles (such as TensorBoard's "
            "profile_batch)",
        )
    )


class Session(Protocol):
    """A profiler of one backend."""

    backend: str

    def start(self, directory: Path) -> None:
        """Starts to record."""

    def stop(self) -> None:
        """Stops, and leaves one `*.xplane.pb` somewhere below the directory."""

    def abandon(self) -> None:
        """Stops and forgets what was recorded."""

    def span(self, name: str, stats: dict[str, Any]) -> AbstractContextManager[Any]:
        """Returns a context manager that records a span on the current thread."""

    def synchronize(self, values: Any) -> None:
        """Waits until the device has computed the values."""


class TensorFlowSession:
    """tf.profiler."""

    backend = "tensorflow"

    def __init__(self) -> None:
        import tensorflow as tf

        self._tf = tf

    def start(self, directory: Path) -> None:
        """Starts to record."""
        options = self._tf.profiler.experimental.ProfilerOptions(
            host_tracer_level=2, python_tracer_level=0, device_tracer_level=1
        )
        try:
            self._tf.profiler.experimental.start(str(directory), options)
        except self._tf.errors.AlreadyExistsError:
            raise busy(self.backend) from None

    def stop(self) -> None:
        """Stops and writes."""
        try:
            self._tf.profiler.experimental.stop()
        except self._tf.errors.OpError as error:
            raise ProfilerError(_failed(self.backend, error)) from error

    def abandon(self) -> None:
        """Stops and forgets."""
        with contextlib.suppress(self._tf.errors.OpError):
            self._tf.profiler.experimental.stop(save=False)

    def span(self, name: str, stats: dict[str, Any]) -> AbstractContextManager[Any]:
        """Returns a span; its clock starts at once."""
        trace: AbstractContextManager[Any] = self._tf.profiler.experimental.Trace(name, **stats)
        return trace

    def synchronize(self, values: Any) -> None:
        """Waits for the values: fetching them is the only way that eager tensors offer."""
        for value in self._tf.nest.flatten(values):
            if hasattr(value, "numpy"):
                value.numpy()


class JaxSession:
    """jax.profiler."""

    backend = "jax"

    def __init__(self) -> None:
        import jax

        self._jax: Any = jax
        self._left_open: Path | None = None  # where a trace couldn't be written

    def start(self, directory: Path) -> None:
        """Starts to record."""
        if self._left_open is not None:
            self.abandon()
        options = self._jax.profiler.ProfileOptions()
        # The Python tracer slows down what it is to measure.
        options.python_tracer_level = 0
        options.host_tracer_level = 2
        # Without it, a session of a profiler server goes unnoticed until the window is over, and
        # then leaves JAX's profiler unusable.
        options.raise_error_on_start_failure = True
        try:
            self._jax.profiler.start_trace(str(directory), profiler_options=options)
        except RuntimeError as error:
            text = str(error).lower()
            if "already" in text or "another profil" in text:
                raise busy(self.backend) from None
            raise ProfilerError(_failed(self.backend, error)) from error
        self._left_open = directory

    def stop(self) -> None:
        """Stops and writes. What can't be written leaves JAX's profiler open."""
        try:
            self._jax.profiler.stop_trace()
        except RuntimeError as error:
            raise ProfilerError(_failed(self.backend, error)) from error
        self._left_open = None

    def abandon(self) -> None:
        """Stops; JAX offers no way to stop without writing."""
        with contextlib.suppress(RuntimeError):
            self._jax.profiler.stop_trace()
        if self._left_open is not None:
            shutil.rmtree(self._left_open, ignore_errors=True)
            self._left_open = None

    def span(self, name: str, stats: dict[str, Any]) -> AbstractContextManager[Any]:
        """Returns a span; its clock starts when it is entered."""
        span: AbstractContextManager[Any] = self._jax.profiler.TraceAnnotation(name, **stats)
        return span

    def synchronize(self, values: Any) -> None:
        """Waits for the values."""
        self._jax.block_until_ready(values)


class TorchSession:
    """torch.profiler."""

    backend = "torch"
    _starting = threading.Lock()
    _latest: weakref.ref[TorchSession] | None = None  # whatever becomes of it, it blocks no other

    def __init__(self) -> None:
        import torch
        import torch.autograd.profiler
        import torch.profiler

        self._torch: Any = torch
        self._profile: Any = None  # until its trace is written: a start meanwhile ends the process
        self._directory = Path()

    def start(self, directory: Path) -> None:
        """Starts to record."""
        self._directory = directory
        with self._starting:
            # A second session doesn't fail, it destroys the first one; and the only sign of one
            # that isn't ours is this private name. Where it's gone, the risk is taken.
            latest = TorchSession._latest and TorchSession._latest()
            if (latest and latest._profile is not None) or getattr(
                self._torch.autograd.profiler, "_is_profiler_enabled", False
            ):
                raise busy(self.backend)
            TorchSession._latest = weakref.ref(self)
            try:
                self._profile = self._new_profile()
                self._profile.__enter__()
            except BaseException as error:
                self._profile = None
                if isinstance(error, RuntimeError):
                    raise ProfilerError(_failed(self.backend, error)) from error
                raise

    def _new_profile(self) -> Any:
        config = getattr(self._torch.profiler, "_ExperimentalConfig", None)
        options = {"experimental_config": config(profile_all_threads=True)} if config else {}
        # What torch.profiler.profile stands on; that one imports torch's compiler at its first
        # start, which takes more than a second in the midst of training.
        return self._torch.autograd.profiler.profile(
            use_kineto=True,
            use_device="cuda" if self._torch.cuda.is_available() else None,
            **options,
        )

    def stop(self) -> None:
        """Stops, converts and writes."""
        try:
            self._profile.__exit__(None, None, None)
            handle, exported = tempfile.mkstemp(dir=self._directory, suffix=".json")
            os.close(handle)
            self._profile.export_chrome_trace(exported)
        except (RuntimeError, AssertionError) as error:
            raise ProfilerError(_failed(self.backend, error)) from error
        finally:
            self._profile = None
        trace = json.loads(Path(exported).read_bytes())
        space = kineto.convert(trace, "the window", str(self._torch.__version__))
        host = space.hostnames[0] if space.hostnames else "localhost"
        xspace.write(space, self._directory / f"{Path(host).name or 'localhost'}.xplane.pb")

    def abandon(self) -> None:
        """Stops and forgets."""
        if self._profile is not None:
            try:
                with contextlib.suppress(RuntimeError, AssertionError):
                    self._profile.__exit__(None, None, None)
            finally:
                self._profile = None

    def span(self, name: str, stats: dict[str, Any]) -> AbstractContextManager[Any]:
        """Returns a span; its clock starts when it is entered."""
        recorded: AbstractContextManager[Any] = self._torch.profiler.record_function(
            kineto.encode(name, stats)
        )
        return recorded

    def synchronize(self, values: Any) -> None:
        """Waits for everything on the GPU: a tensor by itself cannot be waited for."""
        del values
        if self._torch.cuda.is_available() and self._torch.cuda.is_initialized():
            self._torch.cuda.synchronize()


def session(backend: str) -> Session:
    """Returns the profiler of a Keras backend.

    Args:
        backend: "tensorflow", "jax" or "torch".

    Returns:
        The session, not started.

    Raises:
        ProfilerError: The backend has no profiler.
    """
    if backend == "tensorflow":
        return TensorFlowSession()
    if backend == "jax":
        return JaxSession()
    if backend == "torch":
        return TorchSession()
    remedy = "Use another backend, or rely on the dataset's own counters"
    must = 'be "tensorflow", "jax" or "torch", the backends that have a profiler'
    raise ProfilerError(expected("The backend", must, backend, remedy))


def _failed(backend: str, error: Exception) -> str:
    remedy = "Train on without traces; the dataset's own counters serve instead"
    return expected(f"The {backend} profiler", "record a window", str(error), remedy)
