"""Names that settings choose among and files record, known before anything heavy is loaded."""

KINDS = ("both", "primary", "secondary")  #: which regions of an image there are
NONE = "none"  #: of images without regions: the method that proposes nothing, and its only kind
# The paper's networks see 36 regions at most: 8 primaries and their 28 pairs, or what fits.
MAX_REGIONS = 36
