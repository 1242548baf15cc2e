"""The reading side of the demo's store."""

from __future__ import annotations

import collections
import contextlib
import http.client
import os
from urllib.parse import urlsplit

from keras_echo._messages import expected


class _Connection(http.client.HTTPConnection):
    def __del__(self) -> None:
        self.close()  # a socket that is only forgotten warns


class Client:
    """Reads files from one server over connections that are kept.

    Any number of threads may read at once: each takes an idle connection, or opens one. A copy that
    was pickled or forked opens its own.

    Args:
        url: The server, as `http://host:port`.
        timeout: Seconds without a byte after which a read fails.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._forget()

    def __reduce__(self) -> tuple[type[Client], tuple[str, float]]:
        return type(self), (self.url, self._timeout)

    def _forget(self) -> None:
        self._process = os.getpid()
        self._idle: collections.deque[_Connection] = collections.deque()

    def get(self, name: str) -> bytes:
        """Reads one file.

        Args:
            name: Its path in the server's directory.

        Returns:
            Its content.

        Raises:
            OSError: There is no such file or no such server; the message names the URL.
        """
        if self._process != os.getpid():
            self._forget()  # the parent of the fork reads from these sockets
        url, fresh = f"{self.url}/{name}", False
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = _Connection(urlsplit(url).netloc, timeout=self._timeout)
                fresh = True
            try:
                connection.request("GET", urlsplit(url).path)
                response = connection.getresponse()
                body = response.read()
                break
            except (http.client.HTTPException, OSError) as error:
                connection.close()
                # A server may close a connection that lies idle: only a new one tells.
                if fresh or isinstance(error, TimeoutError):
                    remedy = "Check that the server runs and can be reached"
                    raise OSError(_must_answer(url, str(error), remedy)) from error
        self._idle.append(connection)
        if response.status == http.client.OK:
            return body
        answer = f"{response.status} {response.reason}"
        missing = response.status == http.client.NOT_FOUND
        remedy = "Check that the file is in the server's directory"
        raise (FileNotFoundError if missing else OSError)(_must_answer(url, answer, remedy))

    def close(self) -> None:
        """Closes the idle connections; a later read opens new ones."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()


def _must_answer(url: str, received: str, remedy: str) -> str:
    return expected(url, "answer with the file", received, remedy)
