"""Pictures of explanations: the photograph, what speaks for and against a class in it, and what each region adds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ...data.drawing import fit_within
from ...data.fonts import draw_text, shortened, wrapped
from ...data.palette import AGAINST, FAINT, FOR, PAPER, TEXT
from .contributions import Explained
from .explain import Explanation
from .map_colours import ATTENTION, draw_key, draw_map, highest_of
from .pictures import with_regions
from .truth import Truth

_WIDTH, _MARGIN, _GAP = 1480, 20, 18
_SIDE = 440  # longest side of a photograph
BARS = _WIDTH - 2 * _MARGIN - 2 * _SIDE - 2 * _GAP  #: width of the column of bars
GRID = (56, 56)  #: on which the scale is found
_ROW = 27  # height of a bar's row


def full_colour(explanations: Iterable[Explanation]) -> float:
    """The scale of the pictures, the same for all explanations, which are by one method; see `highest_of`."""
    return highest_of(one.evidence.laid_back(GRID) for one in explanations)


def half_of_what_speaks_for(places: np.ndarray) -> np.ndarray:
    """The highest places that hold half of the positive sum of a map, bool ``(H, W)``; none if nothing is positive."""
    highest = np.sort(np.clip(places, 0, None), axis=None)[::-1]
    total = np.cumsum(highest)
    if total[-1] <= 0:
        return np.zeros(places.shape, dtype=bool)
    least = highest[np.searchsorted(total, total[-1] / 2)]
    return np.asarray(places >= least * (1 - 1e-4))  # a place of a region is not cut by rounding


def attention_in_words(attention: Explained) -> str:
    """How concentrated a map of attention is."""
    places = attention.parts[0]
    area, highest = half_of_what_speaks_for(places).mean(), places.max() * places.size
    return f"half of the attention on {area:.0%}, highest {highest:.1f} times the mean"


def names_of_tokens(explanation: Explanation) -> list[str]:
    """Name of each token: its number for a primary region, both of a pair's, and the whole image last."""
    if explanation.regions is None or len(explanation.evidence.parts) == 1:
        return ["whole image"]
    layout = explanation.regions.layout
    primary = [str(number) for number in range(layout.count - len(layout.pairs))]
    return [*primary, *(f"{first} + {second}" for first, second in layout.pairs), "whole image"]


@dataclass(frozen=True)
class _Bar:
    name: str
    value: float
    drawn: bool = True  #: not if it stands for many, beside which the others would vanish


def draw_explanation(
    image: np.ndarray, explanation: Explanation, full: float, run: str = "", truth: Truth | None = None
) -> np.ndarray:
    """Draw an explanation.

    Args:
        image: The photograph, uint8 RGB.
        explanation: Its explanation.
        full: Scale, as `full_colour` returns it.
        run: Line of text that names the run.
        truth: Class that the photograph shows, if known.

    Returns: uint8 RGB ``(H, 1480, 3)``.
    """
    photograph = fit_within(image, _SIDE)
    places = explanation.evidence.laid_back(photograph.shape[:2])
    half = half_of_what_speaks_for(places)
    bars = draw_bars(explanation)
    notes = wrapped(_note(explanation, float(half.mean())), 14, _WIDTH - 2 * _MARGIN, 3)
    top, key = _MARGIN + 62, 44
    height = max(photograph.shape[0] + 26 + key, bars.height)
    page = Image.new("RGB", (_WIDTH, top + height + 22 * len(notes) + _MARGIN), PAPER)
    draw_header(page, explanation, run, truth)
    drawn = Image.fromarray(draw_map(photograph, places, half, full, explanation.method))
    panels = _photograph(photograph, explanation), (_title(explanation), drawn)
    for number, (title, panel) in enumerate(panels):
        x = _MARGIN + number * (_SIDE + _GAP)
        draw_text(page, (x, top), shortened(title, 15, _SIDE), 15, FAINT)
        page.paste(panel, (x, top + 26))
    draw_key(page, (_MARGIN + _SIDE + _GAP, top + 26 + photograph.shape[0] + 8), _SIDE, full, explanation.method)
    page.paste(bars, (_WIDTH - _MARGIN - BARS, top))
    for number, line in enumerate(notes):
        draw_text(page, (_MARGIN, top + height + 22 * number), line, 14, FAINT)
    return np.asarray(page)


def draw_header(page: Image.Image, explanation: Explanation, run: str, truth: Truth | None) -> None:
    """Draw the name of what is explained, and below it the two classes, the truth and the run."""
    width = _WIDTH - 2 * _MARGIN
    draw_text(page, (_MARGIN, _MARGIN), shortened(explanation.name, 20, width), 20, TEXT)
    this, against = (f"{share:.1%}" for share in explanation.probabilities)
    said = [f"{explanation.this} {this}"]
    said += [f"rather than {explanation.against} {against}"] if explanation.method != ATTENTION else []
    said += [f"truth: {truth.name} ({truth.part})"] if truth else []
    line = " · ".join([*said, run] if run else said)
    draw_text(page, (_MARGIN, _MARGIN + 30), shortened(line, 14, width), 14, FAINT)


def _photograph(photograph: np.ndarray, explanation: Explanation) -> tuple[str, Image.Image]:
    picture, regions = Image.fromarray(photograph), explanation.regions
    if regions is None:
        return "photograph", picture
    if not regions.enough_keypoints:
        return "photograph: every region is the whole image", picture
    return "photograph with its primary regions", with_regions(picture, regions)


def _title(explanation: Explanation) -> str:
    if explanation.method == ATTENTION:
        return "what the network weighs: attention, the same for every class"
    return f"where: {explanation.this} rather than {explanation.against}"


def draw_bars(explanation: Explanation) -> Image.Image:
    """Bars of the strongest regions, the rest, the whole image and the bias, whose sum is below them."""
    if explanation.method == ATTENTION:
        return Image.new("RGB", (BARS, 1), PAPER)  # it adds nothing up
    bars, evidence = _bars(explanation), explanation.evidence
    page = Image.new("RGB", (BARS, 26 + _ROW * (len(bars) + 1) + 30), PAPER)
    draw_text(page, (0, 0), "what each adds, in logits", 15, FAINT)
    longest = max(max(abs(bar.value) for bar in bars if bar.drawn), 1e-9)
    name, middle, reach = 170, 170 + (BARS - 250) // 2, (BARS - 250) // 2
    pen = ImageDraw.Draw(page)
    for number, bar in enumerate(bars):
        y, length = 26 + _ROW * number, round(reach * bar.value / longest)
        draw_text(page, (0, y), shortened(bar.name, 14, name - 10), 14, TEXT)
        if bar.drawn:
            ends = sorted((middle, middle + length))
            pen.rectangle((ends[0], y + 2, ends[1], y + 16), fill=FOR if bar.value > 0 else AGAINST)
        draw_text(page, (BARS, y), f"{bar.value:+.3f}", 14, TEXT, "ra")
    y = 26 + _ROW * len(bars)
    pen.line([(0, y), (BARS, y)], fill=FAINT)
    draw_text(page, (0, y + 6), "sum: the difference of the logits", 14, TEXT)
    draw_text(page, (BARS, y + 6), f"{evidence.total:+.3f}", 14, TEXT, "ra")
    if explanation.regions is not None and len(evidence.parts) > 1:
        sums = evidence.subtotals(explanation.regions.layout)
        line = f"primary regions {sums.primary:+.3f} · pairs {sums.pairs:+.3f} · whole image {sums.whole:+.3f}"
        draw_text(page, (0, y + 30), line, 14, FAINT)
    return page


def _bars(explanation: Explanation) -> list[_Bar]:
    evidence, names = explanation.evidence, names_of_tokens(explanation)
    tokens = evidence.tokens
    if len(tokens) == 1:
        outside = "bias" if explanation.method == "parts" else "not in the map"
        return [_Bar("all places", float(tokens[0])), _Bar(outside, evidence.bias)]
    best, worst = evidence.strongest()
    rest = [number for number in range(len(tokens) - 1) if number not in (*best, *worst)]
    bars = [_Bar(f"region {names[number]}", float(tokens[number])) for number in (*best, *worst[::-1])]
    bars += [_Bar(f"{len(rest)} other regions", float(tokens[rest].sum()), drawn=False)] if rest else []
    return [*bars, _Bar("whole image", float(tokens[-1])), _Bar("bias", evidence.bias)]


def _note(explanation: Explanation, area: float) -> str:
    """What the colours mean, and what they do not."""
    if explanation.method == ATTENTION:
        return (
            f"What the network weighs, in multiples of the mean, on one scale in all pictures of a call. Half of the "
            f"attention lies within the white line, on {area:.0%} of the picture. It is the same for every class, and "
            f"does not say what speaks for {explanation.this}: the other methods do."
        )
    how, limit = {
        "parts": (
            "the exact parts of the difference of both logits, laid on the regions' places: with the bias they add up "
            "to it",
            "It is what adds up, not what would be missing if a place were covered.",
        ),
        "hirescam": (
            "gradient times activation of the last feature map (HiResCAM) for the difference of both logits",
            "For plain networks and B-CNN the map and the bias add up to it; for others it is first order.",
        ),
    }[explanation.method]
    return (
        f"Orange speaks for {explanation.this} rather than {explanation.against}, purple against it: {how}; colours in "
        f"logits per 49th of the picture, on one scale in all pictures of a call. Half of what speaks for the class "
        f"lies within the white line, on {area:.0%} of the picture. {limit}"
    )
