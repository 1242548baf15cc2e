"""The formats of traces."""
