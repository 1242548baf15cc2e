"""A directory behind an HTTP server whose bandwidth is limited: storage that is slow, and is real.

The server is a process of its own, so that reading from it costs the training what reading over a
network does and no more. It ends when its standard input closes, and therefore with its parent,
however the parent ends.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import socketserver
import subprocess
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from keras_echo._messages import expected
from keras_echo.demo.slow_store.pacer import Pacer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        path = self.server.find(self.path)
        try:
            file = path.open("rb") if path else None
        except OSError:
            file = None
        if file is None:
            self._head(HTTPStatus.NOT_FOUND, 0)
            return
        with file:
            size = left = os.fstat(file.fileno()).st_size
            self._head(HTTPStatus.OK, size)
            pacer = self.server.pacer
            while left:
                chunk = file.read(min(left, pacer.chunk))
                if not chunk:
                    self.close_connection = True  # the file shrank: only an end can say so now
                    return
                pacer.wait(len(chunk))
                self.wfile.write(chunk)
                left -= len(chunk)

    def _head(self, status: HTTPStatus, length: int) -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(socketserver.ThreadingTCPServer):
    # Not http.server's: that one asks the name service about its address when it starts.
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, directory: Path, bytes_per_second: float) -> None:
        self.root = directory.resolve()
        self.pacer = Pacer(bytes_per_second)
        super().__init__(("127.0.0.1", 0), _Handler)

    def find(self, target: str) -> Path | None:
        """The file that a request names; None unless it lies in the directory."""
        name = unquote(target.partition("?")[0]).lstrip("/")
        try:
            path = (self.root / name).resolve(strict=True)
            return path if path.is_relative_to(self.root) and path.is_file() else None
        except (OSError, ValueError, RuntimeError):  # no such file, a NUL in it, a loop of links
            return None

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client may leave at any time
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextlib.contextmanager
def serve(directory: str | os.PathLike[str], bytes_per_second: float) -> Iterator[str]:
    """Serves a directory while the `with` block runs.

    Args:
        directory: What to serve, with its subdirectories.
        bytes_per_second: What all connections get together, counted without HTTP headers.

    Yields:
        The server's URL, without a "/" at the end.
    """
    _check(Path(directory), bytes_per_second)
    command = [sys.executable, "-m", "keras_echo.demo.slow_store.store", str(directory)]
    process = subprocess.Popen(
        [*command, "--bytes-per-second", repr(float(bytes_per_second))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,  # a terminal's Ctrl-C is for the training, which then ends the server
    )
    assert process.stdin
    assert process.stdout
    with process:
        try:
            port = process.stdout.readline().strip()
            if not port:
                raise OSError(
                    expected(
                        "The demo's store",
                        "start and name its port",
                        f"exit status {process.wait()}",
                        "Its own error message stands above",
                    )
                )
            yield f"http://127.0.0.1:{port}"
        finally:
            process.stdin.close()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()


def _check(directory: Path, bytes_per_second: float) -> None:
    if not directory.is_dir():
        raise NotADirectoryError(
            expected("directory", "be a directory", str(directory), "Make it before serving it")
        )
    if not (math.isfinite(bytes_per_second) and bytes_per_second > 0):
        raise ValueError(
            expected(
                "bytes_per_second",
                "be a positive number",
                bytes_per_second,
                "Pass the bytes that all connections together may read per second",
            )
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the port and serves until standard input closes."""
    parser = argparse.ArgumentParser(
        prog="python -m keras_echo.demo.slow_store.store", description=__doc__
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--bytes-per-second", type=float, required=True)
    options = parser.parse_args(arguments)
    try:
        _check(options.directory, options.bytes_per_second)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    with _Server(options.directory, options.bytes_per_second) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_address[1], flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
