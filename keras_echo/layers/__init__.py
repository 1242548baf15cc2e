"""Keras layers that echo on the accelerator."""

from __future__ import annotations

from keras_echo.layers.echo_buffer import EchoBuffer
from keras_echo.layers.repeated_augmentation import RepeatedAugmentation

__all__ = ["EchoBuffer", "RepeatedAugmentation"]
