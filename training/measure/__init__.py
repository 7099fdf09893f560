"""What a run's answers are worth: metrics, intervals, comparisons, complexity."""
