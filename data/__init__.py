"""Images, labels, splits and the boxes file on disk. Both stages import this package; it imports neither."""
