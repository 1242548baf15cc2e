"""How fast and in how much memory a trace of a million events is read: `reader_speed.py [TRACE]`.

With TRACE, the time to read and analyse that file is printed as well.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from keras_echo.profiling import names
from keras_echo.profiling.measuring.breakdown import breakdown
from keras_echo.profiling.measuring.extract import extract
from keras_echo.profiling.traces import xspace


def write(path, events=1_000_000):
    """Writes a trace with that many events and a hundred steps."""
    space = xspace.new()
    builder = xspace.PlaneBuilder(xspace.plane(space, names.HOST_PLANE))
    steps = builder.line(1, "python")
    for n in range(100):
        builder.event(steps, names.STEP, n * 10**10, 10**10, step_num=n, _r=1)
        builder.event(steps, names.WAIT, n * 10**10, 10**9)
    for number in range(10):
        line = builder.line(number + 2, f"tf_Compute/{number}")
        for n in range(events // 10):
            name = f"operation {n % 500}" if n % 4 else "ExecutorState::Process"
            builder.event(line, name, n * 10**7, 9 * 10**6, id=n, iter_num=0)
    xspace.write(space, path)


def measure(path):
    """Reads and analyses a trace, and prints what that took."""
    start = time.perf_counter()
    result = breakdown(extract(xspace.read(path)))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{result.steps} steps, {seconds:.3f} s, peak {peak:.0f} MB")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--measure":
        measure(sys.argv[2])
    else:
        with tempfile.TemporaryDirectory() as folder:
            big = Path(folder, "big.xplane.pb")
            write(big)
            for path in [big, *sys.argv[1:]]:
                # Each in a process of its own: the peak is that of the whole process.
                subprocess.run([sys.executable, __file__, "--measure", str(path)], check=True)
