"""Backbones: image classifiers cut at their last feature maps."""
