"""Pictures of what a network saw: regions, evidence and the prediction."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.drawing import draw_boxes, draw_regions, fit_within, legible
from .predict import Prediction

_PANEL = 420  # longer side of a picture, in pixels
_CLASSES = 300  # length of the bar that means certainty
_DIMMED = 0.25  # brightness of places that say nothing
_NOTEWORTHY = 1.1  # a region this many times heavier than an even share is boxed
_TEXT, _FAINT, _BAR, _PAPER = "#1a1a1a", "#6b6b6b", "#4363d8", "#ffffff"


def draw_prediction(image: np.ndarray, prediction: Prediction) -> np.ndarray:
    """Side by side: the primaries if there are any, what speaks for the first class, and the classes. uint8 RGB."""
    regions, panels = prediction.regions, []
    if regions is not None:
        panels.append(("proposed regions", draw_regions(image, regions.primary_xyxy, regions.layout, _PANEL)))
    if prediction.evidence is not None:
        title = f"what speaks for {_short(prediction.classes[0], 22)}"
        panels.append((title, _evidence_map(image, prediction)))
    height = max((panel.shape[0] for _, panel in panels), default=0)
    margin, caption = 16, 26
    columns = [max(panel.shape[1], _PANEL * 3 // 4) + margin for _, panel in panels]  # room for a caption
    width = sum(columns) + _CLASSES + 3 * margin
    page = Image.new("RGB", (width, max(height, 220) + caption + 2 * margin), _PAPER)
    pen = ImageDraw.Draw(page)
    left = margin
    for (title, panel), column in zip(panels, columns, strict=True):
        pen.text((left, margin), title, fill=_FAINT, font=ImageFont.load_default(size=15))
        page.paste(Image.fromarray(panel), (left, margin + caption))
        left += column
    _draw_classes(pen, prediction, left, margin)
    return np.asarray(page)


def _evidence_map(image: np.ndarray, prediction: Prediction) -> np.ndarray:
    """Places that speak for the first class stay bright, others are dimmed; clearly heavy regions are boxed."""
    evidence = prediction.evidence
    assert evidence is not None
    picture = fit_within(image, _PANEL)
    # The square root lets weaker evidence be seen beside the strongest.
    heat = Image.fromarray(np.sqrt(evidence / max(float(evidence.max()), 1e-12)))
    heat = heat.resize(picture.shape[1::-1], Image.Resampling.BICUBIC)
    bright = np.clip(np.asarray(heat), 0, 1)[..., None]
    picture = (picture * (_DIMMED + (1 - _DIMMED) * bright)).astype(np.uint8)
    if prediction.region_weights is None or prediction.regions is None:
        return picture
    shares = prediction.region_weights[:-1] * len(prediction.region_weights)
    heaviest = [region for region in np.argsort(-shares, kind="stable")[:3] if shares[region] > _NOTEWORTHY]
    labels = [f"×{shares[region]:.1f}" for region in heaviest]
    boxes = prediction.regions.boxes_xyxy[heaviest] * (picture.shape[1] / image.shape[1])
    return draw_boxes(picture, boxes, labels, colours=["#ffffff"], width=2)


def _draw_classes(pen: ImageDraw.ImageDraw, prediction: Prediction, left: int, top: int) -> None:
    pen.text((left, top), _short(prediction.classes[0], 22), fill=_TEXT, font=ImageFont.load_default(size=26))
    pen.text((left, top + 34), f"{prediction.probabilities[0]:.1%}", fill=_FAINT, font=ImageFont.load_default(size=18))
    for number, (name, share) in enumerate(zip(prediction.classes, prediction.probabilities, strict=True)):
        y = top + 72 + 28 * number
        pen.rectangle((left, y, left + max(2, int(_CLASSES * share)), y + 20), fill=_BAR)
        after = left + max(2, int(_CLASSES * share)) + 6
        inside = share > 0.5
        place = (left + 6, y + 1) if inside else (after, y + 1)
        pen.text(
            place,
            f"{_short(name, 30)}  {share:.1%}",
            fill=_PAPER if inside else _TEXT,
            font=ImageFont.load_default(size=14),
        )


def _short(name: str, letters: int) -> str:
    name = legible(name)
    return name if len(name) <= letters else name[: letters - 1] + "…"
