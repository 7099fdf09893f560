"""Images, labels, regions and predictions in the file formats of other tools."""
