"""The one form that every error of keras_echo has."""

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
    shown = repr(received)
    if len(shown) > 100:
        shown = f"{shown[:97]}..."
    return f"{subject} must {must}. {sentence(f'Received: {shown}')} {sentence(remedy)}"


def sentence(text: str) -> str:
    """Ends a text with a full stop, unless it ends a sentence as it is."""
    return text if text.endswith((".", "!", "?")) else f"{text}."
