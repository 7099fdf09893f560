"""Colours, type and paper of every picture, plot and page: told apart by colour-blind readers and in grey print."""

from __future__ import annotations

from typing import Any

TEXT, FAINT, RULE, PAPER = "#1a1a1a", "#5f5f5f", "#d9d9d9", "#ffffff"

# Evidence: what speaks for a class and against it. Attention is not evidence, and has another colour.
FOR, AGAINST, LIT = "#f07a13", "#7b3fb3", "#00a5a5"

# What is compared, in this order: the first of two is blue, the second orange.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#5f5f5f")

# Always beside a mark that needs no colour, such as a tick and a cross.
RIGHT, WRONG = "#2e8b57", "#c0392b"

# Shares of a row of a confusion matrix, from next to nothing to all, each darker than the one before: right and wrong.
RIGHT_SHARES = ("#d6e6f4", "#6aaed6", "#0072b2", "#08306b")
WRONG_SHARES = ("#fde8d2", "#fbb374", "#d55e00", "#6b2a00")

# Sizes of text in pixels, in pictures; plots have them in points.
TITLE, HEADING, BODY, SMALL = 20, 16, 14, 13

#: Matplotlib's parameters of every plot. Letters in SVG are outlines: the reader's machine may lack the font.
STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.labelsize": 9.0,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": TEXT,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.8,
    "pdf.fonttype": 42,  # TrueType: some journals refuse the default
    "svg.fonttype": "path",
    "svg.hashsalt": "agnet",  # names of parts are random without it
}

# The same on a dark screen, each with a contrast of at least 4.5 to the dark paper.
DARK_TEXT, DARK_FAINT, DARK_RULE, DARK_PAPER = "#e6e6e6", "#a3a3a3", "#3a3d42", "#15171a"
DARK_FOR, DARK_AGAINST, DARK_LIT = "#f5953f", "#b58be0", "#2cc4c4"
DARK_SERIES = ("#56b4e9", "#f0894a", "#3cc79a", "#e09cc0", "#a3a3a3")
DARK_RIGHT, DARK_WRONG = "#5cbf8a", "#ea8478"
