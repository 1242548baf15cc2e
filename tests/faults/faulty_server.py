"""A server of numbered batches that answers some of them wrongly, for the demo's client."""

import math
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import keras
import numpy as np

from keras_echo.demo.slow_store.client import Client

BATCH_SHAPE = (4, 1)


def content(index):
    """The bytes of batch `index`: it is full of its index."""
    return np.full(BATCH_SHAPE, index, "float32").tobytes()


class FaultyServer(ThreadingHTTPServer):
    """Answers `GET /<index>` with a batch, or as its fault says. A context manager.

    Args:
        faults: By index, "missing" (404), "cut" (the connection closes in the midst of the answer)
            or "short" (a shorter file, as a writer leaves it that was killed).
        num_faults: How often each of them shows before the batch is there; None for always.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, faults, num_faults=None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self._faults = faults
        self._num_left = dict.fromkeys(faults, math.inf if num_faults is None else num_faults)

    def fault(self, index):
        """What the next answer for this batch is to be like; None for as it should be."""
        left = self._num_left.get(index, 0)  # a batch is asked for by one reader at a time
        if left <= 0:
            return None
        self._num_left[index] = left - 1
        return self._faults[index]

    def __enter__(self):
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self._thread.join()
        self.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        index = int(self.path.lstrip("/"))
        fault, body = self.server.fault(index), content(index)
        if fault == "missing":
            self._head(HTTPStatus.NOT_FOUND, 0)
            return
        sent = body if fault is None else body[: len(body) // 2]
        self._head(HTTPStatus.OK, len(body) if fault == "cut" else len(sent))
        self.wfile.write(sent)
        self.close_connection = fault == "cut"

    def _head(self, status, length):
        self.send_response_only(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_):
        pass


class Remote(keras.utils.PyDataset):
    """Reads numbered batches from a server with the demo's client."""

    def __init__(self, url, length, timeout=60.0, **kwargs):
        super().__init__(**kwargs)
        self.client = Client(url, timeout)
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        x = np.frombuffer(self.client.get(str(index)), "float32").reshape(BATCH_SHAPE)
        return x, np.zeros(BATCH_SHAPE, "float32")
