"""A run's network as one file that runs without agnet."""
