"""Pictures of explanations: the photograph, what speaks for and against a class in it, and what each region adds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...data.canvas import Canvas
from ...data.drawing import fit_within
from ...data.fonts import shortened, text_width, wrapped
from ...data.palette import AGAINST, FAINT, FOR, RULE, SERIES, TEXT
from .contributions import Explained
from .explain import Explanation
from .map_colours import ATTENTION, draw_key, draw_map, highest_of
from .pictures import Caption, with_regions
from .proof import MAP, PLACES, RANDOM, Proof, beats

_WIDTH, _MARGIN, _GAP = 1480, 20, 18
_SIDE = 440  # longest side of a photograph
BARS = _WIDTH - 2 * _MARGIN - 2 * _SIDE - 2 * _GAP  #: width of the column of bars
GRID = (56, 56)  #: on which the scale is found
_ROW = 27  # height of a bar's row
_COLUMNS = (_MARGIN, _MARGIN + _SIDE + _GAP, _WIDTH - _MARGIN - BARS)  # left ends of the panels
_SHOWN = 5  # classes beside "the rest"
_BAND = "#e4e4e4"  # of random orders


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
    image: np.ndarray, explanation: Explanation, full: float, caption: Caption, over: str = ""
) -> Canvas:
    """Draw an explanation.

    Args:
        image: The photograph, uint8 RGB.
        explanation: Its explanation.
        full: Scale, as `full_colour` returns it.
        caption: Names of the classes, line of text that names the run, and the true class if known.
        over: What the proof over many photographs says, for the panel of the proof.

    Returns: a picture 1,480 pixels wide.
    """
    photograph = fit_within(image, _SIDE)
    places = explanation.evidence.laid_back(photograph.shape[:2])
    half = half_of_what_speaks_for(places)
    canvas, top = Canvas(_WIDTH), _MARGIN + 62
    draw_header(canvas, explanation.name, classes_in_words(explanation, caption.classes), caption)
    drawn = draw_map(photograph, places, half, full, explanation.method)
    panels = _photograph(photograph, explanation), (_title(explanation), drawn)
    for (title, panel), x in zip(panels, _COLUMNS, strict=False):
        canvas.text((x, top), shortened(title, 15, _SIDE), 15, FAINT)
        canvas.photograph((x, top + 26), panel)
    draw_key(canvas, (_COLUMNS[1], top + 26 + photograph.shape[0] + 8), _SIDE, full, explanation.method)
    lowest = [top + 26 + photograph.shape[0] + 52]
    if explanation.method != ATTENTION:  # which adds nothing up
        lowest.append(draw_bars(canvas, (_COLUMNS[2], top), explanation))
    second = max(lowest) + _GAP
    proof = explanation.proof
    ends = [] if proof is None else [_draw_proof(canvas, (_COLUMNS[0], second), explanation.this, proof, over)]
    ends.append(_draw_probabilities(canvas, (_COLUMNS[1], second), explanation, caption.classes))
    ends.append(_draw_notes(canvas, (_COLUMNS[2], second), _notes(explanation, float(half.mean()))))
    canvas.height = max(ends) + _MARGIN
    return canvas


def draw_header(canvas: Canvas, explained: str, said: list[str], caption: Caption) -> None:
    """Draw the name of what is explained, and below it what is said, the truth and the run."""
    width, path = _WIDTH - 2 * _MARGIN, Path(explained)
    name = "/".join(path.parts[-2:]) if path.is_absolute() else explained  # a picture tells no private folders
    canvas.text((_MARGIN, _MARGIN), shortened(name, 20, width), 20, TEXT)
    said = said + ([f"truth: {caption.truth.name} ({caption.truth.part})"] if caption.truth else [])
    line = " · ".join([*said, caption.run] if caption.run else said)
    canvas.text((_MARGIN, _MARGIN + 30), shortened(line, 14, width), 14, FAINT)


def classes_in_words(explanation: Explanation, classes: tuple[str, ...]) -> list[str]:
    """The class and, unless attention is shown, the other one, with their probabilities."""
    this, against = (f"{share:.1%}" for share in explanation.probabilities)
    if explanation.method == ATTENTION:
        return [f"{explanation.this} {this}"]
    first, second = np.argsort(-explanation.distribution, kind="stable")[:2]
    is_next = (explanation.this, explanation.against) == (classes[first], classes[second])
    return [f"{explanation.this} {this}", f"{'next:' if is_next else 'rather than'} {explanation.against} {against}"]


def _draw_notes(canvas: Canvas, place_xy: tuple[int, int], notes: list[str]) -> int:
    """Draw paragraphs. Returns: the end."""
    left, y = place_xy
    canvas.text((left, y), "how to read it", 15, FAINT)
    y += 26
    for note in notes:
        for line in wrapped(note, 14, BARS, 8):
            canvas.text((left, y), line, 14, FAINT)
            y += 21
        y += 8
    return y


def _photograph(photograph: np.ndarray, explanation: Explanation) -> tuple[str, np.ndarray]:
    regions = explanation.regions
    if regions is None:
        return "photograph", photograph
    if not regions.enough_keypoints:
        return "photograph: every region is the whole image", photograph
    return "photograph with its primary regions", np.asarray(with_regions(Image.fromarray(photograph), regions))


def _title(explanation: Explanation) -> str:
    if explanation.method == ATTENTION:
        return "attention: what the network weighs"
    return f"where: {explanation.this} rather than {explanation.against}"


def draw_bars(canvas: Canvas, place_xy: tuple[int, int], explanation: Explanation) -> int:
    """Draw bars of the strongest regions, the rest, the whole image and the bias, with their sum. Returns: the end."""
    bars, evidence, (left, top) = _bars(explanation), explanation.evidence, place_xy
    canvas.text((left, top), "what each adds, in logits", 15, FAINT)
    longest = max(max(abs(bar.value) for bar in bars if bar.drawn), 1e-9)
    name, reach, right = 170, (BARS - 250) // 2, left + BARS
    middle, y = left + name + reach, top + 26
    for bar in bars:
        canvas.text((left, y), shortened(bar.name, 14, name - 10), 14, TEXT)
        if bar.drawn:
            x0, x1 = sorted((middle, middle + round(reach * bar.value / longest)))
            canvas.rectangle((x0, y + 2, x1 + 1, y + 17), FOR if bar.value > 0 else AGAINST)
        canvas.text((right, y), f"{bar.value:+.3f}", 14, TEXT, "ra")
        y += _ROW
    canvas.rectangle((left, y, right, y + 1), FAINT)
    canvas.text((left, y + 6), "sum: the difference of the logits", 14, TEXT)
    canvas.text((right, y + 6), f"{evidence.total:+.3f}", 14, TEXT, "ra")
    if explanation.regions is not None and len(evidence.parts) > 1:
        sums = evidence.subtotals(explanation.regions.layout)
        line = f"primary regions {sums.primary:+.3f} · pairs {sums.pairs:+.3f} · whole image {sums.whole:+.3f}"
        canvas.text((left, y + 30), line, 14, FAINT)
    return y + 56


def _draw_proof(canvas: Canvas, place_xy: tuple[int, int], name: str, proof: Proof, over: str) -> int:
    """Draw the probability as places are taken away by the map, and in random orders. Returns: the end."""
    left, top = place_xy
    fill, curves = next(iter(proof.items()))
    before, after = "proof: ", f" as places are taken away ({fill})"
    named = shortened(name, 15, _SIDE - text_width(before + after, 15))
    canvas.text((left, top), before + named + after, 15, FAINT)
    chance, by_map = curves.deletion[RANDOM], curves.deletion[MAP][0]
    low, median, high = np.quantile(chance, (0.05, 0.5, 0.95), axis=0)
    frame = _Frame(left + 44, top + 34, _SIDE - 44, 160, highest=_next_tenth(max(by_map.max(), high.max())))
    frame.draw(canvas)
    canvas.polygon([*frame.points(high), *frame.points(low)[::-1]], _BAND)
    canvas.line(frame.points(median), FAINT, 2)
    canvas.line(frame.points(by_map), SERIES[0], 3)
    y = frame.low + 28
    for colour, said in (
        (SERIES[0], f"by the map: {beats(curves)}"),
        (FAINT, f"{len(chance)} random orders: median, and 90 % of them (grey)"),
    ):
        canvas.rectangle((left, y + 8, left + 24, y + 11), colour)
        for line in wrapped(said, 14, _SIDE - 34, 2):
            canvas.text((left + 34, y), line, 14, TEXT)
            y += 22
    for line in wrapped(over, 14, _SIDE, 3):
        canvas.text((left, y), line, 14, TEXT)
        y += 21
    return y


@dataclass(frozen=True)
class _Frame:
    """The frame of a curve: its upper left corner, width and height in pixels, and the value at its top."""

    left: int
    top: int
    width: int
    height: int
    highest: float

    @property
    def low(self) -> int:
        return self.top + self.height

    def points(self, curve: np.ndarray) -> list[tuple[float, float]]:
        """Points of a curve's values in equal steps."""
        x = self.left + self.width * np.linspace(0, 1, len(curve))
        return list(zip(x.tolist(), (self.low - self.height * curve / self.highest).tolist(), strict=True))

    def draw(self, canvas: Canvas) -> None:
        for share in (0.0, 0.5, 1.0):
            y = round(self.low - self.height * share)
            canvas.rectangle((self.left, y, self.left + self.width, y + 1), RULE)
            canvas.text((self.left - 8, y - 9), f"{self.highest * share:.0%}", 13, FAINT, "ra")
        for share, anchor in ((0.0, "la"), (1.0, "ra")):
            said = f"{round(share * PLACES)} of {PLACES} places"
            canvas.text((self.left + share * self.width, self.low + 6), said, 13, FAINT, anchor)


def _next_tenth(value: float) -> float:
    return min(1.0, max(0.1, float(np.ceil(value * 10 - 1e-9)) / 10))


def _draw_probabilities(
    canvas: Canvas, place_xy: tuple[int, int], explanation: Explanation, classes: tuple[str, ...]
) -> int:
    """Draw the whole probability: all classes, or five and the rest. Returns: the end."""
    left, top = place_xy
    canvas.text((left, top), "the whole probability", 15, FAINT)
    asked, y = {explanation.this: FOR, explanation.against: AGAINST}, top + 26
    colours = {} if explanation.method == ATTENTION else asked
    for name, share in _whole_probability(explanation, classes):
        canvas.text((left, y), shortened(name, 14, _SIDE - 70), 14, TEXT)
        canvas.text((left + _SIDE, y), f"{share:.1%}", 14, TEXT, "ra")
        canvas.rectangle((left, y + 21, left + _SIDE, y + 28), RULE)
        canvas.rectangle((left, y + 21, left + _SIDE * share, y + 28), colours.get(name, FAINT))
        y += 36
    return y


def _whole_probability(explanation: Explanation, classes: tuple[str, ...]) -> list[tuple[str, float]]:
    """Classes with their probabilities, likeliest first: all of up to six; else five with both of the question."""
    shares = explanation.distribution
    order = np.argsort(-shares, kind="stable").tolist()
    if len(order) > _SHOWN + 1:
        asked = [classes.index(explanation.this), classes.index(explanation.against)]
        kept = [*asked, *(number for number in order if number not in asked)][:_SHOWN]
        order = [number for number in order if number in kept]
    rows = [(classes[number], float(shares[number])) for number in order]
    others = len(classes) - len(order)
    rest = max(0.0, 1 - sum(share for _, share in rows))
    return [*rows, (f"the rest, {others:,} classes", rest)] if others else rows


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


def _notes(explanation: Explanation, area: float) -> list[str]:
    """What the colours and the curve mean, and what they do not."""
    proof = (
        f"Proof: the {PLACES} places are replaced by the fill, first those that the map puts first; the regions stay "
        "those of the whole photograph. The earlier the curve falls, compared with random orders, the better."
    )
    where = _about_attention(explanation, area) if explanation.method == ATTENTION else _about_map(explanation, area)
    return [where] if explanation.proof is None else [where, proof]


def _about_map(explanation: Explanation, area: float) -> str:
    limit = {
        "parts": "These are the exact parts of the difference of both logits: with the bias they add up to it. A part "
        "is what adds up, not what would be missing if a place were covered.",
        "hirescam": "It is gradient times activation of the last feature map (HiResCAM): for plain networks and B-CNN, "
        "map and bias add up to the difference of both logits; for others it is first order.",
    }[explanation.method]
    return (
        f"Orange speaks for {explanation.this} rather than {explanation.against}, purple against it, in logits per "
        "49th of the picture, on one scale in all pictures of a call; half of what speaks for it lies within the "
        f"white line, on {area:.0%} of the picture. {limit}"
    )


def _about_attention(explanation: Explanation, area: float) -> str:
    return (
        "What the network weighs, in multiples of the mean, on one scale in all pictures of a call; half of the "
        f"attention lies within the white line, on {area:.0%} of the picture. It is the same for every class, and does "
        f"not say what speaks for {explanation.this}: the other methods do."
    )
