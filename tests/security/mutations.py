"""Damage to real files, drawn from a seeded generator: by accident, and on purpose."""

import copy
import json

EXTREMES = (0, 1, -1, 2**31, 2**53, 2**62, 2**63 - 1, -(2**63), 2**64 - 1)
TEXTS = ("", "\x1b]0;owned\x07", "\u202e", "<script>", "a#" + "b=1," * 99 + "#", "Iterator::" * 99)
WRONG = (
    *EXTREMES, *TEXTS, 10**400, 0.5, -1.0, 1e308, 5e-324, float("inf"), float("nan"),
    None, True, [], {}, [[]] * 9, {"kind": {}}, "9" * 5000,
)  # fmt: skip


def damaged(draw, data, other):
    """The bytes of a file after one to three accidents; `other` is one to splice with."""
    data = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        at, end = sorted(draw.randrange(len(data) + 1) for _ in range(2))
        end = min(end, at + draw.choice((1, 8, 1000, len(data))))
        match draw.randrange(8):
            case 0 | 1 if at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            case 2:
                del data[at:]
            case 3:
                data[at:at] = data[at:end] * draw.choice((1, 2, 50))
            case 4:
                del data[at:end]
            case 5:
                begin = draw.randrange(len(other) + 1)
                data[at:end] = other[begin : begin + draw.choice((4, 100, len(other)))]
            case 6:  # where a length or a number stands, one that is absurd
                data[at : at + 1] = draw.choice(
                    (b"\xff" * 9 + b"\x01", b"\xff\xff\xff\xff\x0f", b"\x00", b"\xff", b"\x80" * 10)
                )
            case 7:
                data[at:end] = bytes(draw.randrange(256) for _ in range(min(end - at, 20)))
        del data[1 << 20 :]
        if not data:
            break
    return bytes(data)


def edited(draw, tree):
    """A JSON tree with one to three places changed, and nothing that JSON can't hold."""
    tree = copy.deepcopy(tree)
    for _ in range(draw.randint(1, 3)):
        parent, key = _place(draw, tree)
        if parent is None:
            return draw.choice(WRONG)
        match draw.randrange(6):
            case 0:
                del parent[key]
            case 1:
                parent[key] = _other(draw, tree)
            case 2 if isinstance(parent, list):
                parent[key:key] = [parent[key]] * draw.choice((1, 2, 500))
            case 3 if type(parent[key]) is int:
                parent[key] += draw.choice((-1, 1, 2**20, 2**40))
            case 4:
                for _ in range(draw.choice((1, 50, 900))):
                    parent[key] = [parent[key]]
            case _:
                parent[key] = draw.choice(WRONG)
    return tree


def as_json(tree):
    """The bytes of a tree, which may be nested too deeply for it: then of something that is."""
    try:
        return json.dumps(tree).encode()
    except (RecursionError, ValueError):
        return b"[" * 100_000


def set_fields(draw, message):
    """Sets one to five fields of a protobuf message, anywhere in it, to what is absurd."""
    for _ in range(draw.randint(1, 5)):
        _set_field(draw, _inner(draw, message))
    return message.SerializeToString()


def _inner(draw, message):
    while True:
        inside = [
            value
            for field, value in message.ListFields()
            if field.message_type is not None and draw.random() < 0.9
        ]
        if not inside:
            return message
        chosen = draw.choice(inside)
        if hasattr(chosen, "items"):
            chosen = [value for _, value in chosen.items()]
        message = draw.choice(list(chosen)) if chosen else message


def _set_field(draw, message):
    field = draw.choice(message.DESCRIPTOR.fields)
    value = getattr(message, field.name)
    if field.message_type is not None:
        if hasattr(value, "add") and len(value):
            for _ in range(draw.choice((1, 3, 300))):
                value.add().CopyFrom(draw.choice(value))
        elif hasattr(value, "items"):
            value[draw.choice(EXTREMES[:8])].name = draw.choice(TEXTS)
    elif hasattr(value, "append"):
        value.append(draw.choice(TEXTS) if field.type == field.TYPE_STRING else 1)
    elif field.type == field.TYPE_STRING:
        setattr(message, field.name, draw.choice(TEXTS))
    elif field.type == field.TYPE_BYTES:
        setattr(message, field.name, b"\xff" * 9)
    elif field.type == field.TYPE_DOUBLE:
        setattr(message, field.name, draw.choice((0.0, -1.0, 1e308, float("inf"), float("nan"))))
    elif field.type == field.TYPE_UINT64:
        setattr(message, field.name, draw.choice((0, 1, 2**63, 2**64 - 1)))
    else:
        setattr(message, field.name, draw.choice(EXTREMES[:8]))


def _place(draw, tree):
    """A place in a tree, as what holds it and its key there; None for the tree itself."""
    parent = key = None
    while isinstance(tree, (list, dict)) and tree:
        parent = tree
        key = draw.randrange(len(tree)) if isinstance(tree, list) else draw.choice(list(tree))
        tree = parent[key]
        if draw.random() < 0.15:
            break
    return parent, key


def _other(draw, tree):
    parent, key = _place(draw, tree)
    return parent[key] if parent else None
