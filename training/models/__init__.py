"""Networks: tensors in, tensors out. Nothing here depends on files, data sets or training loops."""
