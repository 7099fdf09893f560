"""Names used in settings and files, available without any heavy import."""

KINDS = ("both", "primary", "secondary")  #: kinds of regions of an image
NONE = "none"  #: method and kind for images without regions
