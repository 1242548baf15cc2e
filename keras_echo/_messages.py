"""The one form that every error of keras_echo has."""

from __future__ import annotations


def expected(subject: str, must: str, received: object, remedy: str) -> str:
    """Says what must be, what was received and what to do.

    Args:
        subject: What the message is about, such as an argument's name.
        must: What it must be, continuing the sentence "`subject` must".
        received: The offending value; its `repr` is shown, shortened to 100 characters.
        remedy: What to do about it, as a sentence without a full stop.

    Returns:
        Three sentences in a row.
    """
    shown = repr(received)
    if len(shown) > 100:
        shown = f"{shown[:97]}..."
    return f"{subject} must {must}. Received: {shown}. {remedy}."
