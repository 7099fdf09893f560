"""Colours of every picture, plot and page: told apart by colour-blind readers and in grey print."""

from __future__ import annotations

TEXT, FAINT, RULE, PAPER = "#1a1a1a", "#5f5f5f", "#d9d9d9", "#ffffff"

# Evidence: what speaks for a class and against it. Attention is not evidence, and has another colour.
FOR, AGAINST, LIT = "#f07a13", "#7b3fb3", "#00a5a5"

# What is compared, in this order: the first of two is blue, the second orange.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#5f5f5f")

# Always beside a mark that needs no colour, such as a tick and a cross.
RIGHT, WRONG = "#2e8b57", "#c0392b"

# The same on a dark screen, each with a contrast of at least 4.5 to the dark paper.
DARK_TEXT, DARK_FAINT, DARK_RULE, DARK_PAPER = "#e6e6e6", "#a3a3a3", "#3a3d42", "#15171a"
DARK_FOR, DARK_AGAINST, DARK_LIT = "#f5953f", "#b58be0", "#2cc4c4"
DARK_SERIES = ("#56b4e9", "#f0894a", "#3cc79a", "#e09cc0", "#a3a3a3")
DARK_RIGHT, DARK_WRONG = "#5cbf8a", "#ea8478"
