"""From a source to fresh batches, in order and ahead of training."""
