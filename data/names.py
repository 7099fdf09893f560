"""Names that settings choose among and files record, known before anything heavy is loaded."""

KINDS = ("both", "primary", "secondary")  #: which regions of an image there are
NONE = "none"  #: of images without regions: the method that proposes nothing, and its only kind
