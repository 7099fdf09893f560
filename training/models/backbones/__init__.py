"""Classifiers cut at their last maps."""
