"""TensorBoard event files, written without TensorFlow.

TensorBoard's own `EventFileWriter` imports TensorFlow where it is installed, which costs seconds
and hundreds of megabytes in a JAX or PyTorch run. Its `RecordWriter` on a plain file does not.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, SupportsFloat

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.plugins.custom_scalar import layout_pb2 as custom_scalar
from tensorboard.plugins.custom_scalar import metadata as custom_scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.record_writer import RecordWriter

from keras_echo._messages import expected

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

_FILE_VERSION = "brain.Event:2"
_numbers = itertools.count()


class EventWriter:
    """One event file in a directory that TensorBoard reads.

    Events reach the disk with `flush()` and `close()`. TensorBoard follows the newest event file of
    a directory only, so a directory should have one open writer at a time. Every method may be
    called from any thread.

    Args:
        logdir: The directory, made where it is missing.

    Raises:
        OSError: The file can't be written; any method may raise that.
    """

    def __init__(self, logdir: str | os.PathLike[str]) -> None:
        directory = Path(logdir)
        directory.mkdir(parents=True, exist_ok=True)
        now = time.time()
        # TensorBoard recognises "tfevents" and reads the files of a directory in the order of their
        # names: the time comes first, the rest keeps writers of the same second apart.
        name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}"
        self.path = directory / f"{name}.{os.getpid()}.{next(_numbers)}"
        self._lock = threading.Lock()
        self._records = RecordWriter(self.path.open("xb"))
        weakref.finalize(self, _close, self._records)  # where an exception kept `close` from it
        self._write(event_pb2.Event(wall_time=now, file_version=_FILE_VERSION))
        self.flush()

    def scalar(
        self, tag: str, value: SupportsFloat, *, step: int, wall_time: float | None = None
    ) -> None:
        """Writes one point of a curve.

        Args:
            tag: The curve's name; a "/" groups curves.
            value: The value, kept as a 32-bit float.
            step: The optimizer step it belongs to.
            wall_time: Seconds since the epoch; now by default.
        """
        self._value(summary_pb2.Summary.Value(tag=tag, simple_value=float(value)), step, wall_time)

    def text(self, tag: str, text: str, *, step: int, wall_time: float | None = None) -> None:
        """Writes a text, which TensorBoard shows as Markdown.

        Args:
            tag: The text's name.
            text: The Markdown.
            step: The optimizer step it belongs to.
            wall_time: Seconds since the epoch; now by default.
        """
        metadata = text_metadata.create_summary_metadata(display_name=None, description=None)
        metadata.data_class = summary_pb2.DATA_CLASS_TENSOR
        self._value(_bytes_value(tag, metadata, text.encode()), step, wall_time)

    def layout(self, category: str, charts: Mapping[str, Sequence[str]]) -> None:
        """Writes how TensorBoard's Custom Scalars tab puts curves together.

        Args:
            category: The heading above the charts.
            charts: Titles and the tags of the curves in each.
        """
        multiline = custom_scalar.MultilineChartContent
        layout = custom_scalar.Layout(
            category=[
                custom_scalar.Category(
                    title=category,
                    chart=[
                        # Tags are regular expressions there.
                        custom_scalar.Chart(
                            title=title, multiline=multiline(tag=[*map(_exactly, tags)])
                        )
                        for title, tags in charts.items()
                    ],
                )
            ]
        )
        metadata = custom_scalar_metadata.create_summary_metadata()
        tag = custom_scalar_metadata.CONFIG_SUMMARY_TAG
        self._value(_bytes_value(tag, metadata, layout.SerializeToString()), 0, None)

    def flush(self) -> None:
        """Hands everything written so far to the operating system."""
        with self._lock:
            self._check_open()
            self._records.flush()

    def close(self) -> None:
        """Flushes and closes the file; a second call does nothing."""
        with self._lock:
            self._records.close()

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _value(self, value: summary_pb2.Summary.Value, step: int, wall_time: float | None) -> None:
        self._write(
            event_pb2.Event(
                wall_time=time.time() if wall_time is None else wall_time,
                step=step,
                summary=summary_pb2.Summary(value=[value]),
            )
        )

    def _write(self, event: event_pb2.Event) -> None:
        record = event.SerializeToString()
        with self._lock:
            self._check_open()
            self._records.write(record)

    def _check_open(self) -> None:
        if self._records.closed:
            raise ValueError(
                expected(
                    "EventWriter",
                    "be open to write",
                    str(self.path),
                    "Write before `close()`, or make a new EventWriter",
                )
            )


def _close(records: RecordWriter) -> None:
    with suppress(OSError):  # of a full disk; whoever wrote was told
        records.close()


def _bytes_value(
    tag: str, metadata: summary_pb2.SummaryMetadata, content: bytes
) -> summary_pb2.Summary.Value:
    tensor = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_STRING,
        tensor_shape=tensor_shape_pb2.TensorShapeProto(),
        string_val=[content],
    )
    return summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)


def _exactly(tag: str) -> str:
    return f"^{re.escape(tag)}$"
