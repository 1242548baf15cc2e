import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from keras_echo.demo.slow_store import store

FAST = 1e9


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "served" / "sub").mkdir(parents=True)
    (tmp_path / "served" / "a.bin").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "served" / "sub" / "b c.txt").write_text("below")
    (tmp_path / "served" / "empty").write_bytes(b"")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "served-not").mkdir()
    (tmp_path / "served-not" / "secret").write_text("secret")
    return tmp_path / "served"


def connect(url):
    return closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=10))


def get(connection, target):
    connection.request("GET", target)
    response = connection.getresponse()
    return response.status, response.read()


def test_one_connection_serves_many_files(directory):
    with store.serve(directory, FAST) as url, connect(url) as connection:
        assert get(connection, "/a.bin") == (200, bytes(range(256)) * 100)
        kept = connection.sock
        assert get(connection, "/sub/b%20c.txt?x=1") == (200, b"below")
        assert get(connection, "/missing") == (404, b"")
        assert get(connection, "/empty") == (200, b"")
        assert connection.sock is kept


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/sub",
        "/../secret",
        "/sub/../../secret",
        "/..%2fsecret",
        "/%2e%2e/secret",
        "/../served-not/secret",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/..",
        "/link",
        "/up/secret",
        "/loop",
        "/pipe",
        "/%00",
        "/a.bin%00",
        "/a.bin/b",
        "/" + "a" * 5000,
    ],
)
def test_nothing_but_files_of_the_directory(directory, target):
    (directory / "link").symlink_to(directory.parent / "secret")
    (directory / "up").symlink_to(directory.parent)
    (directory / "loop").symlink_to("loop")
    os.mkfifo(directory / "pipe")
    with store.serve(directory, FAST) as url, connect(url) as connection:
        assert get(connection, target) == (404, b"")


@pytest.mark.parametrize("connections", [1, 3])
def test_all_connections_together_get_the_rate(directory, connections):
    rate, reads = 500_000, 10
    (directory / "big").write_bytes(bytes(60_000 // connections))

    def read(url):
        with connect(url) as connection:
            for _ in range(reads):
                get(connection, "/big")

    with store.serve(directory, rate) as url:
        threads = [threading.Thread(target=read, args=(url,)) for _ in range(connections)]
        begin = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - begin
    assert 0.8 < 60_000 * reads / rate / seconds < 1.05


def test_it_ends_with_the_block(directory):
    with store.serve(directory, FAST) as url:
        pass
    host, port = url.removeprefix("http://").split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port))).close()


def test_it_ends_at_once_while_it_sends(directory):
    with store.serve(directory, 10.0) as url, connect(url) as connection:
        connection.request("GET", "/a.bin")
        response = connection.getresponse()
        begin = time.monotonic()
    response.close()
    assert time.monotonic() - begin < 4


def test_an_exception_in_the_block_ends_it_too(directory):
    with pytest.raises(KeyboardInterrupt), store.serve(directory, FAST) as url:
        raise KeyboardInterrupt
    with connect(url) as connection, pytest.raises(ConnectionRefusedError):
        get(connection, "/a.bin")


def test_it_ends_with_a_parent_that_was_killed(directory):
    program = (
        "import sys, time; from keras_echo.demo.slow_store.store import serve\n"
        "with serve(sys.argv[1], 1e6) as url:\n"
        "    print(url, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, directory], stdout=subprocess.PIPE, text=True
    ) as parent:
        url = parent.stdout.readline().strip()
        with connect(url) as connection:
            assert get(connection, "/a.bin")[0] == 200
        parent.send_signal(signal.SIGKILL)
    host, port = url.removeprefix("http://").split(":")
    for _ in range(100):
        try:
            socket.create_connection((host, int(port))).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.05)
    pytest.fail("the store outlived its parent")


def test_an_interrupt_is_quiet(directory):
    command = [sys.executable, "-m", "keras_echo.demo.slow_store.store", directory]
    with subprocess.Popen(
        [*command, "--bytes-per-second", "1000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.readline()
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
        assert process.stderr.read() == ""


def test_a_client_that_leaves_is_no_error(directory, capfd):
    (directory / "big").write_bytes(bytes(10_000_000))
    with store.serve(directory, 50e6) as url:
        with connect(url) as connection:
            connection.request("GET", "/big")
            connection.getresponse().close()
        time.sleep(0.1)
        with connect(url) as connection:
            assert get(connection, "/a.bin")[0] == 200
    assert capfd.readouterr().err == ""


def test_a_missing_directory(tmp_path):
    with (
        pytest.raises(NotADirectoryError, match="directory must be a directory") as caught,
        store.serve(tmp_path / "none", FAST),
    ):
        pass
    assert str(caught.value).endswith("none'. Make it before serving it.")


@pytest.mark.parametrize("rate", [0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none(directory, rate):
    with (
        pytest.raises(ValueError, match="bytes_per_second must be a positive number") as caught,
        store.serve(directory, rate),
    ):
        pass
    assert f"Received: {rate!r}." in str(caught.value)


def test_bad_arguments_on_the_command_line(capsys):
    with pytest.raises(SystemExit):
        store.main([str(Path(__file__)), "--bytes-per-second", "5"])
    assert "directory must be a directory." in capsys.readouterr().err
