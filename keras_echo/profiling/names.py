"""The names that spans and their stats carry in a trace, the one place where they are written."""

from __future__ import annotations

READ = "keras_echo.read"
"""One upstream read, on the thread that makes it. Stats: `READERS`, where the caller knows it."""

WAIT = "keras_echo.wait"
"""The thread that asks for a batch waits until it has one."""

STEP = "keras_echo.step"
"""One call of the train function, from one batch to the next. Stats: `STEP_NUM`, `ROOT`."""

READY_STEPS = "keras_echo.ready_steps"
"""Optimizer steps outside of the window, while batches lay ready, timed without the profiler.
Stats: `NUM_STEPS`, `SECONDS`."""

UPSTREAM = "keras_echo.upstream"
"""What a fresh batch costs, as the dataset knows it. Stats: `SECONDS`, `BOUND`,
`HELD_FRACTION`."""

READING = "keras_echo.reading"
"""Why a read takes as long as it does. Stats: those of
`keras_echo.profiling.measuring.reading.Reading.as_stats`."""

BOUND = "bound"
"""Stat of `UPSTREAM`: "exact" or "lower"; see `keras_echo.profiling.measuring.result.Upstream`."""

HELD_FRACTION = "held_fraction"
"""Stat of `UPSTREAM`: the share of the time in which readers had nothing to do."""

NUM_STEPS = "steps"
"""Stat of `READY_STEPS`: how many they were."""

READERS = "readers"
"""Stat of `READ`: how many reads can run at the same time."""

SECONDS = "seconds"
"""Stat of `READ`, `READY_STEPS` and `UPSTREAM`: the full duration, of which the window
may show a part only."""

STEP_NUM = "step_num"
"""Stat that makes XProf see a step, together with `ROOT`."""

ROOT = "_r"
"""Stat that makes an event the root of a group, which is what XProf calls a step."""

INPUT_STAGE = "_ipl_stage_name"
"""Stat that makes XProf (2.21 and newer) count an event inside a step as input time."""

HOST_PLANE = "/host:CPU"
METADATA_PLANE = "/host:metadata"
ENVIRONMENT_PLANE = "Task Environment"
START_TIME = "profile_start_time"
"""Stat of `ENVIRONMENT_PLANE`: when time 0 of the trace was, in nanoseconds since 1970."""

STOP_TIME = "profile_stop_time"
TORCH_VERSION = "torch_version"
JAX_VERSION = "jax_version"

WINDOW = ".window-"
"""How the names of directories begin in which a window is being recorded."""
