"""Names that settings choose among and files record, known before anything heavy is loaded."""

KINDS = ("both", "primary", "secondary")  #: which regions of an image there are
