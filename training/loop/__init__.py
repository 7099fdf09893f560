"""A network while it learns, epoch by epoch."""
