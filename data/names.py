"""Names used in settings and files, available without any heavy import."""

KINDS = ("both", "primary", "secondary")  #: kinds of regions of an image
NONE = "none"  #: method and kind for images without regions
# The paper's networks see at most 36 regions: 8 primaries and their 28 pairs, or as many as fit.
MAX_REGIONS = 36
