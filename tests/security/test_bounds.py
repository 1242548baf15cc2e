"""Files that are made to be small on a disk and endless in memory or time: each is one line."""

import gzip
import json
import os
import time
import tracemalloc

import numpy as np
import pytest
from xxhash import xxh3_64_intdigest

from keras_echo import EchoFactor, EchoingPyDataset
from keras_echo._messages import expected, printable
from keras_echo.adapting.remedies import remedies
from keras_echo.analyze_command import main_analyze
from keras_echo.profiling import names
from keras_echo.profiling.analyze import analyze_file
from keras_echo.profiling.measuring.extract import extract
from keras_echo.profiling.measuring.reading import Reading
from keras_echo.profiling.traces import kineto, limits, xspace
from keras_echo.reading import batch_file
from keras_echo.reading.cache_directory import InFiles

MB = 10**6
SMALL = MB // 64  # bombs, and the limits with them, are so much smaller here
X = np.arange(80.0).reshape(40, 2)


def length(num):
    encoded = b""
    while num > 127:
        encoded += bytes([num & 127 | 128])
        num >>= 7
    return encoded + bytes([num])


def field(tag, body):
    return bytes([tag]) + length(len(body)) + body


HOST = field(0x12, names.HOST_PLANE.encode())
SPACES = {
    "events": lambda: field(0x0A, HOST + field(0x1A, b"\x22\x00" * (40 * SMALL))),
    "with longer tags": lambda: field(0x0A, HOST + field(0x1A, b"\xa2\x00\x00" * (40 * SMALL))),
    "stats": lambda: field(0x0A, HOST + field(0x1A, field(0x22, b"\x22\x00" * (40 * SMALL)))),
    "lines": lambda: field(0x0A, HOST + b"\x1a\x00" * (40 * SMALL)),
    "few lines, but too many": lambda: field(0x0A, HOST + b"\x1a\x00" * (limits.MAX_LINES + 1)),
    "planes": lambda: b"\x0a\x00" * (40 * SMALL),
    "a length": lambda: field(0x0A, HOST) + b"\x0a" + b"\xff" * 8 + b"\x7f",
    "groups": lambda: field(0x0A, HOST) + b"\x0b" * SMALL,
}
JSONS = {
    "dicts": lambda: b"[" + b"{}," * (30 * SMALL) + b"{}]",
    "numbers": lambda: b"[" + b"1," * (60 * SMALL) + b"1]",
    "depth": lambda: b"[" * (20 * SMALL),
    "a number": lambda: b"[" + b"9" * (50 * SMALL) + b"]",
    "zeros": lambda: b"\0" * (limits.MAX_BYTES + 1),
    "NaN": lambda: (
        b'{"traceEvents": [{"ph": "X", "name": "a", "cat": "cpu_op", "ts": NaN, '
        b'"dur": Infinity, "tid": ' + b"[" * 500 + b"]" * 500 + b"}]}"
    ),
}
FILES = {
    **{f"{kind}.xplane.pb": made for kind, made in SPACES.items()},
    **{f"{kind}.pt.trace.json": made for kind, made in JSONS.items()},
    **{
        f"{kind}.pt.trace.json.gz": lambda made=made: gzip.compress(made(), 1)
        for kind, made in JSONS.items()
    },
}


@pytest.mark.parametrize("name", FILES)
def test_a_bomb_is_one_line_and_takes_no_memory(tmp_path, capsys, monkeypatch, name):
    for limit in ("MAX_BYTES", "MAX_MEMORY_BYTES"):
        monkeypatch.setattr(limits, limit, getattr(limits, limit) // 64)
    path = tmp_path / name
    path.write_bytes(FILES[name]())
    xspace.new()  # imports protobuf
    began = time.process_time()
    tracemalloc.start()
    assert main_analyze(path) == 2
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 4 * path.stat().st_size + 3 * MB
    assert time.process_time() - began < 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert " must " in err
    assert "Received: " in err


def test_no_more_is_read_than_what_is_allowed(tmp_path):
    path = tmp_path / "huge.xplane.pb"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(limits.TraceError, match=r"at most \d+ bytes. Received: 1099511627776"):
        analyze_file(path)


def test_real_traces_of_a_hundred_megabytes_are_allowed():
    event = {"ph": "X", "cat": "cpu_op", "name": "aten::addmm", "pid": 1234, "tid": 1234,
             "ts": 1e12 + 0.25, "dur": 2.125, "args": {"External id": 77, "Ev Idx": 1}}  # fmt: skip
    text = json.dumps(event).encode() + b","
    per_byte = limits.json_memory(text) / len(text)
    assert 150 * MB * per_byte < limits.MAX_MEMORY_BYTES
    space = xspace.new()
    plane = space.planes.add(name=names.HOST_PLANE)
    builder = xspace.PlaneBuilder(plane)
    line = builder.line(1, "python")
    for number in range(1000):
        start = 10**10 + number * 10**6
        builder.event(line, f"op {number % 50}", start, 10**5, id=number, group=number)
    data = space.SerializeToString()
    assert 100 * MB * limits.xspace_memory(data) / len(data) < limits.MAX_MEMORY_BYTES


def test_names_without_end_are_not_taken_apart():
    name = "a#" + "b=1," * 100_000 + "c=1#"
    assert kineto.decode(name) == (name, {})


def test_as_many_names_as_events_take_time_in_proportion():
    space = xspace.new()
    builder = xspace.PlaneBuilder(xspace.plane(space, names.HOST_PLANE))
    for thread in range(2):
        line = builder.line(thread, "python")
        for number in range(20_000):
            builder.event(line, f"PjitFunction(f{number})", number, 1)
    began = time.process_time()
    extract(xspace.parse(space.SerializeToString()))
    assert time.process_time() - began < 2


def test_as_many_threads_as_events_are_refused_at_once():
    event = {"ph": "X", "cat": "cpu_op", "name": "a", "ts": 1, "dur": 1}
    trace = {"traceEvents": [event | {"tid": number} for number in range(20_000)]}
    with pytest.raises(limits.TraceError, match="at most 10000 threads"):
        kineto.convert(trace)


@pytest.mark.parametrize("cores", [0.0, -1.0, 1e15, float("inf"), float("nan")])
def test_an_absurd_number_of_processors_is_not_believed(cores):
    known = dict.fromkeys(
        ("num_readers", "queue_size", "is_sequential", "is_auto", "uses_processes",
         "can_be_cached", "read_seconds", "compute_seconds"), 1.0
    )  # fmt: skip
    assert Reading.from_stats({**known, "num_cores": 2.0}) is not None
    assert Reading.from_stats({**known, "num_cores": cores}) is None


ESCAPES = "\x1b]0;owned\x07\x9b2J\r\u202e\n"


def test_what_a_terminal_obeys_is_spelled_out(tmp_path, capsys):
    space = xspace.new()
    host = xspace.PlaneBuilder(xspace.plane(space, names.HOST_PLANE))
    line = host.line(1, "python")
    for number in range(4):
        stats = {names.STEP_NUM: number, names.ROOT: 1}
        host.event(line, names.STEP, number * 10**9, 10**9, **stats)
    device = xspace.PlaneBuilder(xspace.plane(space, "/device:GPU:0"))
    device.stat("device_type_string", f"GPU{ESCAPES}" + "x" * 10_000)
    device.event(device.line(1, "Stream"), "kernel", 0, 10**8)
    (tmp_path / ESCAPES).mkdir()
    xspace.write(space, tmp_path / ESCAPES / "a.xplane.pb")
    (tmp_path / ESCAPES / "b.xplane.pb").write_bytes(b"")
    assert main_analyze(tmp_path) == 0
    out, err = capsys.readouterr()
    assert r"1 x GPU\x1b]0;owned\x07" in out
    assert len(out) < 2000
    assert all(line.isprintable() for line in [*out.splitlines(), *err.splitlines()])
    assert r"\x1b]0;owned\x07\x9b2J\r\u202e\n/b.xplane.pb must be a profiler trace" in err


def test_printable_text_stays_as_it_is():
    for text in ("R = 2.00", "größer ✓ 猫", "", "  indented"):
        assert printable(text) == text


def test_a_message_never_fails_for_what_it_shows():
    class Broken:
        def __repr__(self):
            raise RuntimeError

    nested = []
    for _ in range(100_000):
        nested = [nested]
    for received in (Broken(), nested, 10**5000):
        shown = expected("x", "be small", received, "Shrink it")
        assert f"Received: a {type(received).__name__} that can't be shown." in shown


def sealed(path, header, data=b""):
    """Writes a file with checksums that fit."""
    header = json.dumps(header).encode() if isinstance(header, dict) else header
    prefix = batch_file._PREFIX.pack(
        batch_file.MAGIC, len(header), xxh3_64_intdigest(header), xxh3_64_intdigest(b"")
    )
    path.write_bytes(prefix + header + data)


def of_array(**node):
    return {"label": 0, "batch": node, "data_size": 0}


@pytest.mark.parametrize(
    "header",
    [
        of_array(dtype="<f4", shape=[2**40]),
        of_array(dtype="<f4", shape=[0, 2**62]),
        of_array(dtype="<f4", shape=[-1]),
        of_array(dtype="<f4", shape=[1.0]),
        of_array(dtype="<f4", shape=[10**400]),
        of_array(dtype="<f4", shape=[1] * 10_000),
        of_array(dtype="O", shape=[1]),
        of_array(dtype="object", shape=[1]),
        of_array(dtype="f4,O", shape=[1]),
        of_array(dtype=["<f4"], shape=[1]),
        of_array(dtype="(9999,9999)f8", shape=[1]),
        of_array(dtype="V999999999", shape=[9]),
        of_array(dtype="a1", shape=[1]),
        of_array(shape=[1]),
        {"label": 0},
        b"[" * 100_000,
        b"{" + b" " * batch_file.MAX_HEADER_BYTES + b"}",
    ],
    ids=lambda header: str(header)[:40],
)
def test_a_header_that_promises_too_much_is_damage(tmp_path, header):
    sealed(tmp_path / "0.batch", header)
    tracemalloc.start()
    with pytest.raises(batch_file.DamagedError):
        batch_file.read(tmp_path / "0.batch", 0)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 100 * MB


def test_pipes_in_a_cache_are_left_alone(tmp_path):
    (tmp_path / "key").mkdir()
    os.mkfifo(tmp_path / "key" / "0.batch")
    os.mkfifo(tmp_path / "key" / "manifest.json")
    files = InFiles(tmp_path, 1000, 8, "key")
    assert files.get(0) is None


def state_of(echo, num_served=9):
    with EchoingPyDataset((X, X), echo=echo, echo_factor=2.5, batch_size=4, seed=3) as dataset:
        for index in range(num_served):
            dataset[index]
        return json.loads(json.dumps(dataset.state_dict()))


def grown(state, **changes):
    return {**state, "echo": {**state["echo"], **changes}}


BATCH, EXAMPLE = state_of("batch"), state_of("example")
MANY = 300_000
HOSTILE = {
    "passes": ("batch", {**BATCH, "position": [2**61, 0]}),
    "a long list of factors": ("batch", {**BATCH, "factors_ahead": [1.0] * 2**24}),
    "a factor that is no float": ("batch", {**BATCH, "echo_factor": 10**400}),
    "batches to read again": (
        "batch",
        grown({**BATCH, "position": [1, 0]}, held=[[0, n, False, 1] for n in range(MANY)]),
    ),
    "batches of examples to read again": (
        "example",
        grown(EXAMPLE, blocks=[[0, n, 10**6 + n, 1] for n in range(MANY)]),
    ),
    "blocks times examples": (
        "example",
        grown(
            {**EXAMPLE, "position": [0, MANY]},
            blocks=[[0, n, n, 1] for n in range(MANY)],
            steps=[0] + [1] * (MANY - 1),
            num_uses=[2**62] * MANY,
            num_taken=MANY,
        ),
    ),
    "sums that overflow": (
        "example",
        grown(EXAMPLE, steps=[2**62 - 1] * 5, num_uses=[0] * 5, num_taken=2**62 - 1),
    ),
    "nothing in a batch": ("example", grown(EXAMPLE, batch_size=0, blocks=[], steps=[])),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_state_is_refused_at_once(kind):
    echo, state = HOSTILE[kind]
    with EchoingPyDataset((X, X), echo=echo, batch_size=4, seed=3) as dataset:
        before = dataset.state_dict()
        began = time.process_time()
        with pytest.raises(ValueError, match=r"^state must be what state_dict\(\) returned"):
            dataset.load_state_dict(state)
        assert time.process_time() - began < 2
        assert dataset.state_dict() == before


def test_a_state_of_absurdly_large_batches_is_refused_once_the_source_is_read():
    state = grown(EXAMPLE, batch_size=2**40, num_taken=2**41, blocks=[], steps=[], num_uses=[])
    with EchoingPyDataset((X, X), echo="example", batch_size=4, seed=3) as dataset:
        dataset.load_state_dict(state)
        with pytest.raises(ValueError, match="The batch size of a state must be that of this"):
            dataset[0]


@pytest.mark.parametrize("echo", ["batch", "example"])
@pytest.mark.parametrize("factor", [1e300, 1.7e308])
def test_the_largest_factors_serve_batches(echo, factor):
    with EchoingPyDataset((X, X), echo=echo, echo_factor=factor, batch_size=4) as dataset:
        for index in range(20):
            assert len(dataset[index][0]) == 4


def test_a_factor_that_no_float_holds_is_refused():
    with pytest.raises(ValueError, match="be finite and at least 1"):
        EchoFactor(10**400)


def test_remedies_have_none_for_a_breakdown_of_nothing(tmp_path):
    space = xspace.new()
    builder = xspace.PlaneBuilder(xspace.plane(space, names.HOST_PLANE))
    builder.event(builder.line(1, "a"), "x", 2**62, 2**62)
    xspace.write(space, tmp_path / "a.xplane.pb")
    assert remedies(analyze_file(tmp_path / "a.xplane.pb")) == []
