import http.client
import multiprocessing
import pickle
import socket
import threading

import pytest

from keras_echo.demo.slow_store.client import Client
from keras_echo.demo.slow_store.store import serve


@pytest.fixture
def store(tmp_path):
    for name in "abcd":
        (tmp_path / name).write_bytes(name.encode() * 10_000)
    with serve(tmp_path, 1e9) as url:
        yield url


@pytest.fixture
def client(store):
    client = Client(store, timeout=10.0)
    yield client
    client.close()


def test_a_connection_is_kept(client):
    assert client.get("a") == b"a" * 10_000
    kept = client._idle[0].sock
    with pytest.raises(FileNotFoundError):
        client.get("missing")
    assert client.get("b") == b"b" * 10_000
    assert [idle.sock for idle in client._idle] == [kept]


def test_threads_read_at_once(client):
    wrong = []

    def read(name):
        for _ in range(50):
            if client.get(name) != name.encode() * 10_000:
                wrong.append(name)

    threads = [threading.Thread(target=read, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 1 <= len(client._idle) <= 4


def test_a_copy_opens_its_own_connections(client):
    client.get("a")
    copy = pickle.loads(pickle.dumps(client))
    assert copy.get("b") == b"b" * 10_000
    assert copy._idle[0].sock is not client._idle[0].sock
    copy.close()


def test_a_spawned_process_reads(client):
    client.get("a")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(client.get, ("b",)) == b"b" * 10_000
        pool.close()
        pool.join()


def test_a_fork_leaves_the_sockets_to_its_parent(client, monkeypatch):
    client.get("a")
    kept = client._idle[0]
    monkeypatch.setattr("os.getpid", lambda: -1)
    client.get("b")
    assert client._idle[0] is not kept


def test_close_closes_and_a_later_read_works(client):
    client.get("a")
    connection = client._idle[0]
    client.close()
    assert connection.sock is None
    assert client.get("b") == b"b" * 10_000


def test_a_forgotten_client_leaves_no_socket_open(store):
    client = Client(store, timeout=10.0)
    client.get("a")
    connection = client._idle[0].sock
    del client
    assert connection.fileno() == -1


def test_a_missing_file(client):
    with pytest.raises(FileNotFoundError) as caught:
        client.get("none")
    assert str(caught.value) == (
        f"{client.url}/none must answer with the file. Received: '404 Not Found'. "
        "Check that the file is in the server's directory."
    )


def test_a_missing_server():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(OSError, match="must answer") as caught:
        Client(f"http://127.0.0.1:{port}/", timeout=10.0).get("a")
    assert str(caught.value) == (
        f"http://127.0.0.1:{port}/a must answer with the file. "
        "Received: '[Errno 111] Connection refused'. "
        "Check that the server runs and can be reached."
    )
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


class Server:
    """Sends each connection one prepared answer, then closes it."""

    def __init__(self, *answers):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.thread = threading.Thread(target=self.run, args=(answers,))

    def run(self, answers):
        for answer in answers:
            connection, _ = self.socket.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.thread.join()
        self.socket.close()


def test_an_idle_connection_that_the_server_closed_is_no_failure():
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"
    with Server(answer + b"1", answer + b"2") as server:
        client = Client(server.url, timeout=10.0)
        assert client.get("a") == b"1"
        assert client.get("a") == b"2"
        client.close()


def test_half_an_answer_is_a_failure():
    with Server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf") as server:
        client = Client(server.url, timeout=10.0)
        with pytest.raises(OSError, match="must answer with the file") as caught:
            client.get("a")
    assert f"{server.url}/a" in str(caught.value)
    assert isinstance(caught.value.__cause__, http.client.IncompleteRead)


def test_a_server_that_fails_is_no_missing_file():
    with Server(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n") as server:
        client = Client(server.url, timeout=10.0)
        with pytest.raises(OSError, match="Received: '503 Busy'") as caught:
            client.get("a")
        client.close()
    assert type(caught.value) is OSError


def test_a_silent_server_times_out():
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = Client(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=0.1)
        with pytest.raises(OSError, match="Received: 'timed out'"):
            client.get("a")
