import subprocess
import sys
import threading

import pytest

from keras_echo.tensorboard.event_file import EventWriter

# In a process of its own, where TensorBoard's reader can be kept from importing TensorFlow.
READ = """
import sys
sys.modules["tensorflow"] = None
from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
old = event_accumulator.EventAccumulator(sys.argv[1]).Reload()
print([(e.wall_time, e.step, e.value) for e in old.Scalars("echo/factor")])
new = plugin_event_accumulator.EventAccumulator(sys.argv[1]).Reload()
print([(e.wall_time, e.step, e.tensor_proto.string_val[0].decode()) for e in new.Tensors("why")])
print(new.PluginTagToContent("text").keys(), new.PluginTagToContent("scalars").keys())
print(new.file_version)
"""


def test_tensorboard_reads_back_what_was_written(tmp_path):
    with EventWriter(tmp_path / "new" / "directory") as writer:
        writer.scalar("echo/factor", 4.5, step=10, wall_time=100.0)
        writer.scalar("echo/factor", 5, step=20, wall_time=101.5)
        writer.text("why", "**R** rose and so did *é*", step=20, wall_time=102.0)
    read = subprocess.run(
        [sys.executable, "-c", READ, str(writer.path.parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert read.stdout.splitlines() == [
        "[(100.0, 10, 4.5), (101.5, 20, 5.0)]",
        "[(102.0, 20, '**R** rose and so did *é*')]",
        "dict_keys(['why']) dict_keys(['echo/factor'])",
        "2.0",
    ]


def test_it_imports_no_tensorflow(tmp_path):
    program = (
        "import sys; from keras_echo.tensorboard.event_file import EventWriter\n"
        "with EventWriter(sys.argv[1]) as writer:\n"
        "    writer.scalar('a', 1.0, step=0); writer.text('b', 'c', step=0)\n"
        "print([m for m in ('tensorflow', 'jax', 'torch', 'keras') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert run.stdout == "[]\n"


def test_two_writers_in_one_directory_have_their_own_files(tmp_path):
    with EventWriter(tmp_path) as first, EventWriter(tmp_path) as second:
        assert first.path != second.path
    assert len(list(tmp_path.iterdir())) == 2


def test_flush_makes_events_visible(tmp_path):
    with EventWriter(tmp_path) as writer:
        before = writer.path.stat().st_size
        assert before > 0
        writer.scalar("a", 1.0, step=0)
        writer.flush()
        assert writer.path.stat().st_size > before


def test_threads_write_whole_records(tmp_path):
    with EventWriter(tmp_path) as writer:
        threads = [
            threading.Thread(target=lambda: [writer.scalar("a", 1, step=i) for i in range(100)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    data, records = writer.path.read_bytes(), 0
    while data:
        data = data[int.from_bytes(data[:8], "little") + 16 :]
        records += 1
    assert records == 401


def test_closed_writer_says_so(tmp_path):
    writer = EventWriter(tmp_path)
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="EventWriter must be open to write"):
        writer.scalar("a", 1.0, step=0)
    with pytest.raises(ValueError, match="or make a new EventWriter"):
        writer.flush()
