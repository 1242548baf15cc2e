"""What is quoted shows as it is, to whoever turns Markdown into HTML as TensorBoard does."""

import html
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_echo.tensorboard.markdown import block, quoted

with warnings.catch_warnings():  # of what TensorBoard brings along
    warnings.simplefilter("ignore", DeprecationWarning)
    from tensorboard.plugin_util import markdown_to_safe_html

HOSTILE = [
    "<script>alert(1)</script>",
    "![x](http://example.org/spy.png)",
    "[click](javascript:alert(1))",
    "<http://example.org>",
    "**bold** `code` _em_ # no heading | no | table",
    "&lt;b&gt; \\*",
]


def text_of(shown, tag):
    inner = shown.removeprefix(f"<{tag}>").removesuffix(f"</{tag}>")
    assert "<" not in inner.replace("<code>", "").replace("</code>", "")
    return html.unescape(inner.replace("<code>", "").replace("</code>", ""))


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_quoted_shows_as_it_is(text):
    assert text_of(markdown_to_safe_html(f"Failed: {quoted(text)}"), "p") == f"Failed: {text}"


@given(st.text(st.sampled_from("ab <>&[]()!*_`#\\|"), max_size=20))
def test_any_marks_show_as_they_are(text):
    shown = text_of(markdown_to_safe_html(f"a{quoted(text)}a"), "p")
    assert shown.split() == f"a{text}a".split()


@pytest.mark.parametrize("text", [*HOSTILE, "```\n<b>\n```", "R = 2\n\n- no list\n    deeper"])
def test_a_block_shows_its_lines_as_they_are(text):
    shown = markdown_to_safe_html(f"Told:\n\n{block(text)}").partition("<pre>")[2]
    assert text_of(shown, "pre").rstrip("\n") == text
