"""Stage 1: an image's salient regions, from keypoints through a mixture to boxes. No torch."""
