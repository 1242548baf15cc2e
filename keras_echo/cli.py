"""The command `keras-echo`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from keras_echo._optional import needing_backend

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="keras-echo", description="Data echoing for Keras 3.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="train a model on real digits from a slow store, without and with echoing",
        description="Trains the same small model on handwritten digits that are read from a local "
        "server of limited bandwidth: without echoing, with DataEchoCallback, and with a factor "
        "picked by hand. Takes under three minutes.",
    )
    demo.add_argument("--backend", choices=("tensorflow", "jax", "torch"), help="default: Keras's")
    demo.add_argument("--output", type=Path, default=Path("keras_echo_demo"), metavar="DIR")
    demo.add_argument("--target", type=float, default=0.97, help="validation accuracy to reach")
    demo.add_argument("--max-seconds", type=float, default=50.0, help="of each of the three runs")
    demo.add_argument(
        "--workers",
        type=_workers,
        help='readers of another run with DataEchoCallback: a number, or "auto"',
    )
    demo.add_argument("--cache", action="store_true", help="give that run a cache")
    demo.set_defaults(run=_demo)

    analyze = commands.add_parser(
        "analyze",
        help="read R, the ratio of reading time to training time, off profiler traces",
        description="Says for every profiler trace below a TensorBoard log directory how long a "
        "step takes, how much of it is waiting for input, and what echoing would bring.",
    )
    analyze.add_argument("logdir", type=Path, metavar="LOGDIR")
    analyze.add_argument("--json", action="store_true", help="print JSON instead of reports")
    analyze.set_defaults(run=_analyze)

    options = parser.parse_args(arguments)
    code: int = options.run(options)
    return code


def _workers(text: str) -> int | Literal["auto"]:
    return "auto" if text == "auto" else int(text)


def _demo(options: argparse.Namespace) -> int:
    if options.backend:
        os.environ["KERAS_BACKEND"] = options.backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Imported here: Keras takes seconds, and must know its backend first.
    try:
        with needing_backend():
            from keras_echo.demo.training import run_demo
    except ImportError as error:
        print(error, file=sys.stderr)
        return 2

    told = run_demo(
        options.output,
        target=options.target,
        max_seconds=options.max_seconds,
        workers=options.workers,
        has_cache=options.cache,
    )
    print(told)
    return 0


def _analyze(options: argparse.Namespace) -> int:
    # Imported here: no other command needs protobuf.
    from keras_echo.analyze_command import main_analyze

    return main_analyze(options.logdir, options.json)


if __name__ == "__main__":
    sys.exit(main())
