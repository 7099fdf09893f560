"""Names used in settings and files; importing them loads nothing heavy."""

KINDS = ("both", "primary", "secondary")  #: kinds of regions
NONE = "none"  #: method and kind for images without regions
# The paper's networks use at most 36 regions: 8 primary ones and their 28 pairs, or as many as fit.
MAX_REGIONS = 36
OFFICIAL, TUTORIAL = "official", "tutorial"  #: splits of HMDB-51: those of its lists, or of a tutorial, which leak
PROTOCOLS = (OFFICIAL, TUTORIAL)
TRAIN_FOLD = "train-fold"  #: the training images that one run of several left out, as if they were a split
