"""Stage 1: the salient regions of an image, from keypoints through a mixture to boxes. It does not need torch."""
