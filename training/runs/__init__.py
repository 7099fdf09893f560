"""A run's folder: configuration, checkpoints, what was seen, curves."""
