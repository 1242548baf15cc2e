import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_echo.profiling import kineto, names, xspace
from keras_echo.profiling.analyze import analyze, main_analyze
from keras_echo.profiling.xspace import TraceError


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


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda x: st.lists(x, max_size=4) | st.dictionaries(
        st.sampled_from(["traceEvents", "ph", "name", "cat", "ts", "dur", "args", "X", "tid"]), x
    ),
    max_leaves=20,
))  # fmt: skip
def test_any_json_gives_a_trace_or_an_error(trace):
    try:
        assert kineto.convert({"traceEvents": [trace]}).planes
        assert kineto.convert(trace).planes
    except TraceError:
        pass


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
    for path in (tmp_path, tmp_path / "none", tmp_path / "notes.txt"):
        assert main_analyze(path) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
        with pytest.raises(TraceError):
            analyze(path)
