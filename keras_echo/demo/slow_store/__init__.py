"""A store of limited bandwidth, and its client."""
