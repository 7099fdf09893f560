"""Report of the labels that look wrong, as text, CSV and a contact sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...data.clips import frames_numbered
from ...data.drawing import captioned_sheet
from ...data.errors import DatasetError, ImageError
from ...data.images import MAX_PIXELS, read_image
from ...data.text import counted, csv_text, percent, table
from .labels import LabelReview, Suspect

CSV_COLUMNS = (
    *("path", "given", "suggested", "score", "probability_suggested", "confident", "runs", "runs_that_agree"),
    *("split", "same_as"),
)
_COLUMNS = 5  # of the sheet


def labels_text(review: LabelReview, shown: int) -> str:
    """Format a review as text, with the first ``shown`` labels."""
    counts = ", ".join(f"{count:,} {split}" for split, count in review.splits.items())
    lines = [
        f"{counted(review.images, review.rows)} of {review.classes:,} classes, judged by {_judges(review)}: {counts}",
        *([_left_out(review.left_out)] if review.left_out else []),
        f"{percent(review.accuracy)} have their label as the likeliest class; where that is low, most of the list is "
        "the model's own mistakes",
        f"{len(review.suspects):,} labels look wrong to the model, {review.confident:,} of them confidently; it may be "
        "wrong itself, so look at each",
        *_agreement(review),
    ]
    if alike := sum(bool(one.same_as) for one in review.suspects):
        lines.append(f"{alike:,} of them, listed first, look the same as an image with another label")
    if not review.suspects or not shown:
        return "\n".join(lines)
    rows = [["", review.rows, "label given", "looks like", "given", "looks like", "runs", "the same as"]]
    rows += [_row(number, one) for number, one in enumerate(review.suspects[:shown], start=1)]
    if not alike:
        rows = [row[:-1] for row in rows]
    more = [f"and {len(review.suspects) - shown:,} more"] if len(review.suspects) > shown else []
    return "\n".join([*lines, "", *table(rows, right={0, 4, 5}), *more])


def _left_out(scores: int) -> str:
    return f"{counted(scores, 'scores')} {'is' if scores == 1 else 'are'} left out: the run was trained on the image"


def _judges(review: LabelReview) -> str:
    runs = len(review.runs)
    return "one run that was not trained on them" if runs == 1 else f"{runs:,} runs that were not trained on them"


def _agreement(review: LabelReview) -> list[str]:
    if len(review.runs) < 2:
        return ["one run may call an image something else by chance: add runs of other seeds with --run"]
    return [
        f"all {len(review.runs):,} runs call {review.agreed:,} of {review.judged_by_all:,} {review.rows} the same "
        f"other class; {review.agreed_by_chance:.1f} would be expected by chance, with each run's answers shuffled "
        f"among the {review.rows} of a label"
    ]


def _row(number: int, one: Suspect) -> list[str]:
    agree = f"{one.runs_that_agree} of {one.runs}"
    shares = percent(one.score), percent(one.probability_suggested)
    return [f"{number}", one.image, one.given, one.suggested, *shares, agree, one.same_as]


def labels_csv(review: LabelReview) -> str:
    """Format the labels to review as CSV, one row per image, with what is needed to correct them."""
    rows = [
        [
            *(one.image, one.given, one.suggested, f"{one.score:.6g}", f"{one.probability_suggested:.6g}"),
            *(int(one.confident), one.runs, one.runs_that_agree, one.split, one.same_as),
        ]
        for one in review.suspects
    ]
    return csv_text([CSV_COLUMNS, *rows])


def labels_sheet(review: LabelReview, root: Path, count: int, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, int]:
    """Draw the first ``count`` images whose labels look wrong, numbered as in the text; of videos, their first frames.

    Returns: the sheet, uint8 RGB, and the number of images on it.
    Raises: `DatasetError` if none of them can be read.
    """
    tiles = []
    for number, one in enumerate(review.suspects[:count], start=1):
        path = root / one.image
        try:
            picture = (
                read_image(path, max_pixels)
                if review.rows == "images"
                else frames_numbered(path, [0], max_pixels)[0].pixels
            )
        except ImageError:  # deleted since the runs were evaluated
            continue
        like = "same as a" if one.same_as else "looks like"
        tiles.append((picture, f"{number}. {one.given}: {like} {one.suggested}"))
    if not tiles:
        raise DatasetError(f"none of the {review.rows} can be read under {root}; name their folder with --root")
    return captioned_sheet(tiles, _COLUMNS, f"label given: what it looks like to {_judges(review)}"), len(tiles)
