"""A row of the boxes file and its image, made into what a network gets."""
