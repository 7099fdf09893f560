"""Stage 2: train a network on images with their regions, evaluate it and predict with it."""
