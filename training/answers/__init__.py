"""Predictions of a trained network for new photographs and videos."""
