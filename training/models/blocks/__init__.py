"""Building blocks of the networks; each implements an equation or a section of the paper."""
