"""Evaluation of runs: metrics, confidence intervals, comparisons, complexity."""
