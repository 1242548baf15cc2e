"""Text that TensorBoard shows as Markdown."""

from __future__ import annotations

import re
import textwrap

_MARKS = re.compile(r"[\\`*_\[\]#!|]")


def quoted(text: str) -> str:
    """Returns what shows a text as it is: names and messages in it may be somebody else's."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKS.sub(r"\\\g<0>", escaped)


def block(text: str) -> str:
    """Returns what shows the lines of a text as they are, in letters of one width."""
    # Indented and not fenced: nothing in a line can end it.
    return textwrap.indent(text, "    ", lambda line: True)
