"""The paper's questions on five small workloads; see `benchmarks/echoing_study.py`."""
