"""What decoders of images and videos do not tell: what is cut off, of a kind they read wrongly, or not in 8 bits."""
