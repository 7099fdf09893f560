"""Export of a run's network to a file that runs without agnet."""
