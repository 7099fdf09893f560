"""Run folders: configuration, checkpoints, the record of images seen, training curves."""
