"""Stage 2: images and their cached regions in, a trained network and its measurements out."""
