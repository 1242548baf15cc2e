"""The backends' profilers."""
