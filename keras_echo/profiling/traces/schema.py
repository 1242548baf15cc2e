"""The schema of XSpace, built from its public field numbers.

It lives in a descriptor pool of its own: TensorFlow registers the same messages in protobuf's
default pool, and a second registration there would be refused.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_PACKAGE = "tensorflow.profiler"

# message -> (field, number, type, repeated, oneof). A type that is no scalar names a message.
_SCHEMA: dict[str, tuple[tuple[str, int, str, bool, str], ...]] = {
    "XSpace": (
        ("planes", 1, "XPlane", True, ""),
        ("errors", 2, "string", True, ""),
        ("warnings", 3, "string", True, ""),
        ("hostnames", 4, "string", True, ""),
    ),
    "XPlane": (
        ("id", 1, "int64", False, ""),
        ("name", 2, "string", False, ""),
        ("lines", 3, "XLine", True, ""),
        ("event_metadata", 4, "XPlane.EventMetadataEntry", True, ""),
        ("stat_metadata", 5, "XPlane.StatMetadataEntry", True, ""),
        ("stats", 6, "XStat", True, ""),
    ),
    "XPlane.EventMetadataEntry": (
        ("key", 1, "int64", False, ""),
        ("value", 2, "XEventMetadata", False, ""),
    ),
    "XPlane.StatMetadataEntry": (
        ("key", 1, "int64", False, ""),
        ("value", 2, "XStatMetadata", False, ""),
    ),
    "XLine": (
        ("id", 1, "int64", False, ""),
        ("display_id", 10, "int64", False, ""),
        ("name", 2, "string", False, ""),
        ("display_name", 11, "string", False, ""),
        ("timestamp_ns", 3, "int64", False, ""),
        ("duration_ps", 9, "int64", False, ""),
        ("events", 4, "XEvent", True, ""),
    ),
    "XEvent": (
        ("metadata_id", 1, "int64", False, ""),
        ("offset_ps", 2, "int64", False, "data"),
        ("num_occurrences", 5, "int64", False, "data"),
        ("duration_ps", 3, "int64", False, ""),
        ("stats", 4, "XStat", True, ""),
    ),
    "XStat": (
        ("metadata_id", 1, "int64", False, ""),
        ("double_value", 2, "double", False, "value"),
        ("uint64_value", 3, "uint64", False, "value"),
        ("int64_value", 4, "int64", False, "value"),
        ("str_value", 5, "string", False, "value"),
        ("bytes_value", 6, "bytes", False, "value"),
        ("ref_value", 7, "uint64", False, "value"),
    ),
    "XEventMetadata": (
        ("id", 1, "int64", False, ""),
        ("name", 2, "string", False, ""),
        ("display_name", 4, "string", False, ""),
        ("metadata", 3, "bytes", False, ""),
        ("stats", 5, "XStat", True, ""),
        ("child_id", 6, "int64", True, ""),
    ),
    "XStatMetadata": (
        ("id", 1, "int64", False, ""),
        ("name", 2, "string", False, ""),
        ("description", 3, "string", False, ""),
    ),
}


@functools.cache
def space_class() -> Callable[[], Any]:
    """Returns the message class of XSpace."""
    # Inside a function: protobuf takes a while to import, and most processes that import the
    # package never read a trace.
    from google.protobuf import (  # type: ignore[import-untyped, unused-ignore]
        descriptor_pb2,
        descriptor_pool,
        message_factory,
    )

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="keras_echo/xplane.proto", package=_PACKAGE, syntax="proto3"
    )
    built: dict[str, Any] = {}
    for path, fields in _SCHEMA.items():
        outer, _, inner = path.rpartition(".")
        message = built[outer].nested_type.add() if outer else file.message_type.add()
        message.name = inner
        if path.endswith("Entry"):
            message.options.map_entry = True
        built[path] = message
        for name, number, kind, repeated, oneof in fields:
            field = message.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind.startswith("X"):
                field.type = kinds.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{kind}"
            else:
                field.type = getattr(kinds, f"TYPE_{kind.upper()}")
            if oneof:
                if not message.oneof_decl:
                    message.oneof_decl.add(name=oneof)
                field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName(f"{_PACKAGE}.XSpace")
    message_class: Callable[[], Any] = message_factory.GetMessageClass(descriptor)
    return message_class
