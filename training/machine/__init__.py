"""Devices, multi-process training, and all uses of private or fragile parts of torch."""
