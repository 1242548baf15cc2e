"""What an echoed step is worth, and whether that predicts; see `benchmarks/worth_study.py`."""
