"""What a batch is, and where batches wait."""
