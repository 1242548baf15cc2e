"""What keras_echo shows in TensorBoard."""
