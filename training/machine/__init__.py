"""Where to compute: devices, several processes, and every private or fragile use of torch."""
