"""Pictures of what a network saw: regions, their weights and the prediction."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.drawing import draw_boxes, draw_regions, fit_within
from ..data.regions import all_boxes
from .predict import Prediction

_PANEL = 420  # longer side of a picture, in pixels
_CLASSES = 300  # length of the bar that means certainty
_GLOW = (255, 140, 0)
_NOTEWORTHY = 1.05  # a region this many times heavier than an even share is boxed
_TEXT, _FAINT, _BAR, _PAPER = "#1a1a1a", "#6b6b6b", "#4363d8", "#ffffff"


def draw_prediction(image: np.ndarray, prediction: Prediction) -> np.ndarray:
    """Side by side: the proposed primaries, where the region weights fall, and the classes. uint8 RGB."""
    panels = [("proposed regions", draw_regions(image, prediction.primary_xyxy, _PANEL))]
    if prediction.region_weights is not None:
        panels.append(("region weights, in multiples of an even share", _weight_map(image, prediction)))
    height = max(panel.shape[0] for _, panel in panels)
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


def relative_weight(prediction: Prediction, size_wh: tuple[int, int], scale: float) -> np.ndarray:
    """How heavy the regions over each pixel are: their mean weight in multiples of an even share, 1/N.

    float32 ``(H, W)``, 1 everywhere when the network weighs its regions evenly.

    Args:
        prediction: with region weights.
        size_wh: of the picture.
        scale: pixels of the picture to one of the original.
    """
    assert prediction.region_weights is not None
    width, height = size_wh
    shares = prediction.region_weights * len(prediction.region_weights)
    total = np.full((height, width), shares[-1], dtype=np.float32)  # the whole image covers every pixel
    covering = np.ones((height, width), dtype=np.float32)
    boxes = (all_boxes(prediction.primary_xyxy) * scale).round().astype(int)
    for (x0, y0, x1, y1), share in zip(boxes.tolist(), shares[:-1].tolist(), strict=True):
        total[y0:y1, x0:x1] += share
        covering[y0:y1, x0:x1] += 1
    return total / covering


def _weight_map(image: np.ndarray, prediction: Prediction) -> np.ndarray:
    """Pixels under heavy regions glow, those under light ones are dimmed; the heaviest three regions are boxed."""
    weights = prediction.region_weights
    assert weights is not None
    picture = fit_within(image, _PANEL)
    height, width = picture.shape[:2]
    scale = width / image.shape[1]
    # A fixed scale, so that even weights look even: dimmed at half the even share, full glow at twice it.
    heat = np.clip(np.log2(np.maximum(relative_weight(prediction, (width, height), scale), 0.25)), -1, 1)[..., None]
    bright = picture * (1 + 0.6 * np.minimum(heat, 0))
    glowing = bright + np.maximum(heat, 0) * (0.6 * np.array(_GLOW) - 0.3 * bright)
    picture = np.clip(glowing, 0, 255).astype(np.uint8)
    shares = weights[:-1] * len(weights)
    heaviest = [region for region in np.argsort(-shares, kind="stable")[:3] if shares[region] > _NOTEWORTHY]
    labels = [f"×{shares[region]:.1f}" for region in heaviest]
    boxes = all_boxes(prediction.primary_xyxy)[heaviest] * scale
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
    return name if len(name) <= letters else name[: letters - 1] + "…"
