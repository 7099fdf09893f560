"""Data sets: the catalogue, layouts on disk, downloads, and checks of their content."""
