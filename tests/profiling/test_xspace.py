import contextlib
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_echo.profiling import names
from keras_echo.profiling.measuring.breakdown import breakdown
from keras_echo.profiling.measuring.extract import extract
from keras_echo.profiling.report import render, to_dict
from keras_echo.profiling.traces import xspace

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INT64 = st.integers(-(2**63), 2**63 - 1)
# Names that mean something to the reader, so that the properties reach past the classification.
NAMES = st.sampled_from(
    [names.STEP, names.WAIT, names.READ, "IteratorGetNextOp::DoCompute", "PrefetchProduce",
     "ExecutorState::Process", "PjitFunction(f)", "Profiled batch 3", "aten::mm"]
)  # fmt: skip
STATS = st.dictionaries(
    st.sampled_from([names.STEP_NUM, names.ROOT, names.READERS, names.SECONDS, names.INPUT_STAGE]),
    INT64 | st.floats() | TEXT,
    max_size=3,
)
EVENTS = st.lists(st.tuples(NAMES | TEXT, INT64, INT64, STATS), max_size=8)
LINES = st.lists(st.tuples(TEXT | st.just("tf_XLAEigen/1"), INT64, EVENTS), max_size=4)
PLANES = st.sampled_from([names.HOST_PLANE, names.METADATA_PLANE, "/device:GPU:0", "/device:TPU:1"])


def build(planes):
    space = xspace.new()
    for name, lines in planes:
        plane = space.planes.add(name=name)
        builder = xspace.PlaneBuilder(plane)
        for number, (title, timestamp, events) in enumerate(lines):
            line = builder.line(number, title, timestamp)
            for event, start, duration, stats in events:
                builder.event(line, event, start, duration, **stats)
    return space


@given(st.lists(st.tuples(PLANES, LINES), min_size=1, max_size=3))
def test_what_is_written_is_read(tmp_path_factory, planes):
    space = build(planes)
    path = tmp_path_factory.mktemp("trace") / "a.xplane.pb"
    xspace.write(space, path)
    assert xspace.read(path) == space
    assert [p.name for p in path.parent.iterdir()] == ["a.xplane.pb"]


@given(st.lists(st.tuples(PLANES, LINES), min_size=1, max_size=3))
def test_any_trace_gives_a_breakdown(planes):
    result = breakdown(extract(build(planes)))
    assert result.recommended_factor >= 1.0
    assert result.steps > 0 or not result.complete
    assert render(result)
    assert json.loads(json.dumps(to_dict(result), allow_nan=False))["steps"] == result.steps


@given(st.binary(max_size=400))
def test_any_bytes_give_an_error_or_a_breakdown(data):
    try:
        space = xspace.parse(data)
    except xspace.TraceError:
        return
    assert breakdown(extract(space)).recommended_factor >= 1.0


@given(st.data())
def test_any_damage_to_a_trace_gives_an_error_or_a_breakdown(data):
    steps = [(names.STEP, n * 10**9, 10**9, {names.STEP_NUM: n, names.ROOT: 1}) for n in range(4)]
    waits = [(names.WAIT, n * 10**9, 10**8, {}) for n in range(4)]
    good = build([(names.HOST_PLANE, [("python", 0, steps + waits)])]).SerializeToString()
    position = data.draw(st.integers(0, len(good) - 1))
    flipped = bytearray(good)
    flipped[position] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(flipped), good[:position]):
        with contextlib.suppress(xspace.TraceError):
            assert breakdown(extract(xspace.parse(damaged))).recommended_factor >= 1.0


@pytest.mark.parametrize(
    ("content", "got"),
    [(b"", "an empty file"), (b"\x00\x01\x02", "damaged"), (b"\x0a\x00", "without a named plane")],
)
def test_bad_files_are_named(tmp_path, content, got):
    path = tmp_path / "bad.xplane.pb"
    path.write_bytes(content)
    with pytest.raises(xspace.TraceError, match=got) as error:
        xspace.read(path)
    assert str(path) in str(error.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(xspace.TraceError, match="No such file"):
        xspace.read(tmp_path / "none.xplane.pb")


def test_stat_kept_by_reference_is_resolved_and_unknown_ones_add_nothing():
    space = build([(names.HOST_PLANE, [("a", 0, [("x", 0, 1, {"s": "text"})])])])
    plane = space.planes[0]
    stat = plane.lines[0].events[0].stats[0]
    plane.stat_metadata[9].name = "kept"
    stat.ref_value = 9
    assert xspace.stat_value(plane, stat) == "kept"
    stat.ref_value = 2**64 - 1
    assert xspace.stat_value(plane, stat) is None
    stat.ref_value = 77
    assert xspace.stat_value(plane, stat) is None
    assert 77 not in plane.stat_metadata


def test_import_loads_no_backend_and_no_protobuf():
    code = (
        "import sys, keras_echo.profiling, keras_echo.profiling.recording.tracer\n"
        "print([n for n in ('keras', 'tensorflow', 'jax', 'torch', 'google.protobuf', 'numpy')"
        " if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
