"""The one form that every error of keras_echo has, and what may be shown of foreign text."""

from __future__ import annotations


def expected(subject: str, must: str, received: object, remedy: str) -> str:
    """Says what must be, what was received and what to do.

    Args:
        subject: What the message is about, such as an argument's name.
        must: What it must be, continuing the sentence "`subject` must".
        received: The offending value; its `repr` is shown, shortened to 100 characters.
        remedy: What to do about it, as a sentence; its full stop may be left out.

    Returns:
        Three sentences in a row.
    """
    try:
        shown = repr(received)
    except Exception:  # nested too deeply, or a repr that fails; the message must not
        shown = f"a {type(received).__name__} that can't be shown"
    if len(shown) > 100:
        shown = f"{shown[:97]}..."
    return printable(f"{subject} must {must}. {sentence(f'Received: {shown}')} {sentence(remedy)}")


def printable(text: str) -> str:
    """Returns a text on one line, without what a terminal obeys: that is spelled out.

    Paths, and names in traces and in exceptions, may be somebody else's.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def sentence(text: str) -> str:
    """Ends a text with a full stop, unless it ends a sentence as it is."""
    return text if text.endswith((".", "!", "?")) else f"{text}."
