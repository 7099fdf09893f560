"""Checks that image and video decoders omit: truncated data, kinds that are read wrongly, samples beyond 8 bits."""
