"""Turn images and their regions into the inputs of a network."""
