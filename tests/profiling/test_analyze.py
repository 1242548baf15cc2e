import contextlib
import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keras_echo.analyze_command import main_analyze
from keras_echo.profiling import names
from keras_echo.profiling.analyze import analyze, analyze_file
from keras_echo.profiling.report import render, to_dict
from keras_echo.profiling.traces import kineto, limits, xspace
from keras_echo.profiling.traces.limits import TraceError


def torch_trace(steps=5):
    events = [{"ph": "M", "name": "thread_name", "tid": 7, "args": {"name": "thread 7 (python)"}}]
    for n in range(steps):
        common = {"ph": "X", "cat": "user_annotation", "pid": 1, "tid": 7}
        start = 1e6 + n * 3000
        fetch = "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__"
        events += [
            common | {"name": f"ProfilerStep#{n}", "ts": start, "dur": 3000},
            common | {"name": fetch, "ts": start, "dur": 2000},
            common | {"name": "aten::stack", "cat": "cpu_op", "ts": start + 9, "dur": 5},
        ]
    return {"traceEvents": events, "baseTimeNanoseconds": 10**18, "host_name": "here"}


@pytest.mark.parametrize("zipped", [False, True])
def test_torch_handler_files_are_read(tmp_path, zipped):
    data = json.dumps(torch_trace()).encode()
    name = "here.1.pt.trace.json" + (".gz" if zipped else "")
    (tmp_path / name).write_bytes(gzip.compress(data) if zipped else data)
    (result,) = analyze(tmp_path)
    assert (result.backend, result.steps, result.bound) == ("torch", 5, "exact")
    assert result.step_seconds == pytest.approx(3e-3)
    assert result.ratio == pytest.approx(2.0)


def loader_trace(ends, steps=1, batches=5, trained=True):
    """One step marker around several batches, as one gets who calls `step()` once per epoch."""
    fetch = "enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__"
    kind = "autograd::engine::evaluate_function: MulBackward0" if trained else "aten::mul"
    common = {"ph": "X", "pid": 1, "tid": 7}
    mark = common | {"cat": "user_annotation"}
    events, now = [], 1e6
    for n in range(steps):
        start = now
        for _ in range(batches):
            events += [
                mark | {"name": fetch, "ts": now, "dur": 1000},
                common | {"cat": "cpu_op", "name": kind, "ts": now + 1100, "dur": 900},
            ]
            now += 2000
        if ends:
            events.append(mark | {"name": fetch, "ts": now, "dur": 100})
            if trained:
                item = {"cat": "cpu_op", "name": "aten::item", "ts": now + 110, "dur": 5}
                events.append(common | item)
            now += 200
        events.append(mark | {"name": f"ProfilerStep#{n}", "ts": start, "dur": now - start})
    return {"schemaVersion": 1, "traceEvents": events}


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize(("steps", "batches"), [(1, 5), (1, 1), (3, 1), (3, 4)])
def test_the_fetch_that_ends_a_loader_is_no_step(tmp_path, steps, batches, trained):
    trace = loader_trace(True, steps, batches, trained)
    (tmp_path / "trace.json").write_text(json.dumps(trace))
    (result,) = analyze(tmp_path)
    assert result.steps == steps * batches
    assert result.step_seconds == pytest.approx(2e-3 + 0.2e-3 / batches)
    assert result.wait_seconds == pytest.approx(1e-3)


def test_batches_that_are_fetched_before_they_are_used_all_count(tmp_path):
    trace = loader_trace(False, steps=3, batches=4)
    # Two micro-batches are fetched, then both are computed on.
    for n, event in enumerate(e for e in trace["traceEvents"] if "engine" in e["name"]):
        if n % 2 == 0:
            event["ts"] += 2000
    (tmp_path / "trace.json").write_text(json.dumps(trace))
    assert analyze(tmp_path)[0].steps == 12


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz", "deep/export.json"])
@pytest.mark.parametrize("zipped", [False, True])
def test_exported_torch_traces_are_known_by_their_content(tmp_path, capsys, name, zipped):
    (tmp_path / "deep").mkdir()
    data = json.dumps(torch_trace()).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if zipped else data)
    others = {
        "config.json": b'{"cat": "cpu_op"}',
        "broken.json": b"{",
        "empty.json": b"",
        "cut.json.gz": gzip.compress(b'{"a": 1}')[:12],
        # What JAX and TensorFlow write beside their XSpace.
        "here.trace.json.gz": gzip.compress(
            b'{"displayTimeUnit":"ns","traceEvents":[{"ph":"M","pid":1,"name":"process_name"}]}'
        ),
    }
    for other, content in others.items():
        (tmp_path / other).write_bytes(content)
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(1 << 40)
    (result,) = analyze(tmp_path)
    assert (result.path, result.steps) == (str(tmp_path / name), 5)
    assert analyze(tmp_path / name) == [result]
    for other in others:
        assert main_analyze(tmp_path / other) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("zipped", [False, True])
def test_a_trace_that_is_too_large_is_one_line(tmp_path, monkeypatch, zipped):
    data = json.dumps(torch_trace()).encode()
    monkeypatch.setattr(limits, "MAX_BYTES", len(data) - 1)
    (tmp_path / "trace.json").write_bytes(gzip.compress(data) if zipped else data)
    with pytest.raises(TraceError, match=r"at most \d+ bytes.*Record fewer steps"):
        analyze(tmp_path)


# JSON knows numbers that no float holds, and half characters.
TEXT = st.text(st.characters(), max_size=5)
NUMBERS = st.integers() | st.integers(10**400, 10**401) | st.floats()
LEAVES = st.none() | st.booleans() | NUMBERS | TEXT
JSON = st.recursive(
    LEAVES,
    lambda x: st.lists(x, max_size=4) | st.dictionaries(
        TEXT | st.sampled_from(["traceEvents", "ph", "name", "args", "deviceProperties"]), x
    ),
    max_leaves=10,
)  # fmt: skip
EVENTS = st.fixed_dictionaries(
    {
        "ph": st.just("X") | JSON,
        "name": st.sampled_from(["ProfilerStep#1", "aten::stack", "a#b=1#"]) | TEXT | JSON,
        "cat": st.sampled_from(["cpu_op", "user_annotation", "kernel", "python_function"]) | JSON,
        "ts": st.integers(0, 10**6) | NUMBERS | JSON,
        "dur": st.integers(0, 10**6) | NUMBERS | JSON,
    },
    optional={"tid": JSON, "args": JSON | st.dictionaries(
        st.sampled_from(["device", "stream", "finished", "name"]), JSON
    )},
)  # fmt: skip
TRACES = st.fixed_dictionaries(
    {"traceEvents": st.lists(EVENTS | JSON, max_size=6) | JSON},
    optional={
        "baseTimeNanoseconds": JSON,
        "host_name": JSON,
        "deviceProperties": st.lists(st.dictionaries(st.sampled_from(["id", "name"]), JSON)) | JSON,
    },
)


@given(TRACES | JSON)
@example({"traceEvents": [{"ph": "X", "name": "\ud800", "cat": "kernel", "ts": 1, "dur": 1}]})
def test_any_json_gives_a_breakdown_or_an_error(tmp_path_factory, trace):
    path = tmp_path_factory.mktemp("trace") / "any.pt.trace.json"
    path.write_text(json.dumps(trace))
    with contextlib.suppress(TraceError):
        result = analyze_file(path)
        assert render(result)
        json.dumps(to_dict(result), allow_nan=False)


@given(st.data())
def test_any_damage_to_a_zipped_trace_gives_a_breakdown_or_an_error(tmp_path_factory, data):
    good = gzip.compress(json.dumps(torch_trace()).encode(), mtime=0)
    position = data.draw(st.integers(0, len(good) - 1))
    flipped = bytearray(good)
    flipped[position] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("trace") / "damaged.pt.trace.json.gz"
    path.write_bytes(bytes(flipped))
    with contextlib.suppress(TraceError):
        assert analyze_file(path).steps >= 0
    path.write_bytes(good[:position])
    with pytest.raises(TraceError):
        analyze_file(path)


@given(st.binary(max_size=200))
def test_any_bytes_are_no_torch_trace(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("trace") / "any.pt.trace.json"
    path.write_bytes(content)
    with pytest.raises(TraceError):
        analyze_file(path)


@given(st.text(st.characters(exclude_characters="#=,", exclude_categories=["Cs"]), max_size=9),
       st.dictionaries(st.sampled_from(["a", "_r"]), st.integers(-9, 9), max_size=2))  # fmt: skip
def test_stats_survive_in_a_name(name, stats):
    assert kineto.decode(kineto.encode(name, stats)) == (name, stats)


def test_unfinished_spans_are_left_out():
    trace = torch_trace()
    trace["traceEvents"][-1]["args"] = {"finished": False}
    space = kineto.convert(trace)
    (host,) = [plane for plane in space.planes if plane.name == names.HOST_PLANE]
    assert sum(len(line.events) for line in host.lines) == 14


def test_one_line_for_each_bad_file_and_the_good_ones_reported(tmp_path, capsys):
    for name, content in {"a": b"", "b": b"no trace", "c": b"\xff" * 100}.items():
        (tmp_path / f"{name}.xplane.pb").write_bytes(content)
    (tmp_path / "d.pt.trace.json").write_bytes(b"[]")
    (tmp_path / "e.pt.trace.json.gz").write_bytes(gzip.compress(b"{}" * 99)[:20])
    assert main_analyze(tmp_path) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 5
    assert all("Received: " in line for line in err.splitlines())
    space = kineto.convert(torch_trace())
    (tmp_path / "sub").mkdir()
    xspace.write(space, tmp_path / "sub" / "good.xplane.pb")
    assert main_analyze(tmp_path, as_json=True) == 0
    out, err = capsys.readouterr()
    assert [found["steps"] for found in json.loads(out)] == [5]
    assert len(err.splitlines()) == 5
    with pytest.warns(UserWarning, match="Received"):
        assert len(analyze(tmp_path)) == 1


def test_directories_without_traces_exit_with_2(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("nothing")
    too_long = tmp_path / ("a" * 300) / "b"
    paths = [tmp_path, tmp_path / "none", tmp_path / "notes.txt", too_long, Path(os.devnull)]
    (tmp_path / "loop").symlink_to("loop")
    for path in (*paths, tmp_path / "loop"):
        assert main_analyze(path) == 2
        out, err = capsys.readouterr()
        assert (out, len(err.splitlines())) == ("", 1)
        with pytest.raises(TraceError):
            analyze(path)
        assert main_analyze(path, as_json=True) == 2
        assert json.loads(capsys.readouterr().out) == []


def write_good(folder):
    folder.mkdir(parents=True, exist_ok=True)
    xspace.write(kineto.convert(torch_trace()), folder / "good.xplane.pb")


def test_odd_files_are_named_and_the_others_reported(tmp_path, capsys):
    write_good(tmp_path / "run")
    odd = [tmp_path / f"{name}.xplane.pb" for name in ("dangling", "loop", "pipe")]
    odd[0].symlink_to("nowhere")
    odd[1].symlink_to(odd[1].name)
    os.mkfifo(odd[2])
    # A directory may be called like a file, and be looked into all the same.
    write_good(tmp_path / "folder.xplane.pb")
    assert main_analyze(tmp_path, as_json=True) == 0
    out, err = capsys.readouterr()
    assert [Path(found["path"]).parent.name for found in json.loads(out)] == [
        "folder.xplane.pb",
        "run",
    ]
    assert [line.split()[0] for line in err.splitlines()] == [str(path) for path in odd]


def test_links_are_followed_and_loops_end(tmp_path, capsys):
    write_good(tmp_path / "elsewhere")
    logdir = tmp_path / "logs"
    logdir.mkdir()
    (logdir / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(logdir)
    assert main_analyze(logdir, as_json=True) == 0
    out, err = capsys.readouterr()
    assert [found["path"] for found in json.loads(out)] == [str(logdir / "linked/good.xplane.pb")]
    assert err == ""


def command(*arguments, before=""):
    """Returns `python -c` for the command, after some preparation."""
    code = (
        "import sys\n"
        "from keras_echo.cli import main\n"
        f"{before}\n"
        f"sys.exit(main({['analyze', *map(str, arguments)]!r}))"
    )
    return [sys.executable, "-c", code]


def test_what_may_not_be_read_is_named(capsys):
    # Not tmp_path, which only its owner may enter.
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        write_good(root / "good")
        (root / "secret.xplane.pb").write_bytes(b"secret")
        (root / "secret.xplane.pb").chmod(0)
        write_good(root / "closed")
        (root / "closed").chmod(0)
        # Permissions don't bind root: it becomes somebody else, once all is imported.
        nobody = (
            "import contextlib, io, os\n"
            "with contextlib.redirect_stdout(io.StringIO()):\n"
            f"    main(['analyze', {folder!r} + '/good'])\n"
            "os.getuid() or os.setuid(65534)"
        )
        done = subprocess.run(
            command(folder, "--json", before=nobody), capture_output=True, text=True, timeout=60
        )
        (root / "closed").chmod(0o755)
    assert done.returncode == 0
    assert [Path(found["path"]).parent.name for found in json.loads(done.stdout)] == ["good"]
    lines = done.stderr.splitlines()
    assert [line.split()[0] for line in lines] == [f"{root}/closed", f"{root}/secret.xplane.pb"]
    assert all("Permission denied" in line for line in lines)


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    write_good(tmp_path)
    read, written = os.pipe()
    os.close(read)
    done = subprocess.run(
        command(tmp_path), stdout=written, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(written)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_one_line(tmp_path):
    write_good(tmp_path)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command(tmp_path), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr.startswith("stdout must take the report. Received: 'No space left")
    assert len(done.stderr.splitlines()) == 1


def test_a_path_that_the_terminal_cannot_show_is_escaped(tmp_path):
    folder = tmp_path / os.fsdecode(b"\xff\xc3\xa9")
    write_good(folder)
    for encoding in ("ascii", "utf-8"):
        environment = os.environ | {"PYTHONIOENCODING": encoding}
        done = subprocess.run(command(tmp_path), env=environment, capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.decode(encoding).splitlines()[0].endswith("good.xplane.pb")
