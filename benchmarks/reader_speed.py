"""How fast and in how much memory a trace of a million events is read.

    python benchmarks/reader_speed.py [TRACE] [--json FILE]

With TRACE, what that file takes is printed as well.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from workload import markdown, write_json

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
    """Reads and analyses a trace; returns what that took."""
    start = time.perf_counter()
    result = breakdown(extract(xspace.read(path)))
    seconds = time.perf_counter() - start
    peak_megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"steps": result.steps, "seconds": seconds, "peak_megabytes": peak_megabytes}


def million_events(results):
    """What a trace of a million events took."""
    rows = [
        [f"{one['steps']}", f"{one['seconds']:.2f}", f"{one['peak_megabytes']:.0f}"]
        for one in results
    ]
    return markdown(["steps", "seconds", "peak memory, MB"], rows, num_texts=0)


def main():
    """Measures each trace in a process of its own: the peak is that of the whole process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace", nargs="?")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.trace)))
        return
    with tempfile.TemporaryDirectory() as folder:
        big = Path(folder, "big.xplane.pb")
        write(big)
        results = []
        for path in filter(None, (big, args.trace)):
            command = [sys.executable, __file__, "--measure", str(path)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    write_json(args.json, results[:1])
    print(million_events(results))


if __name__ == "__main__":
    main()
