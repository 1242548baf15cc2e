"""From profiler trace to R: record a window on any backend, read any trace."""
