"""From fresh batches to their uses."""
