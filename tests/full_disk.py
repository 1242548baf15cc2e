"""A disk without room, as far as a process sees it."""

import contextlib
import resource


@contextlib.contextmanager
def full_disk(num_bytes):
    """Inside, no file can grow beyond so many bytes; Python ignores the signal that says so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
