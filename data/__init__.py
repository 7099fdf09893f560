"""What is on disk: images, labels, splits and the boxes file. Both stages import this; it imports neither."""
