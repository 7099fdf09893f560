"""The training loop: fitting a network epoch by epoch, with validation, saved states and resuming."""
