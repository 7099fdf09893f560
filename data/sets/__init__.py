"""Getting and knowing data sets: the catalogue, layouts on disk, downloads, and what is odd in them."""
