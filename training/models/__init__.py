"""The networks: tensors in, tensors out. Nothing here knows a file, a data set or a training loop."""
