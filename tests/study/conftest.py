"""The study runs on JAX, whatever the backend of the suite."""

import keras

collect_ignore_glob = [] if keras.backend.backend() == "jax" else ["test_*.py"]
