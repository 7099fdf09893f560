"""Pictures of what a network saw: regions, their weights and the prediction."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.drawing import draw_boxes, draw_regions, fit_within
from ..data.regions import all_boxes
from .predict import Prediction

_PANEL = 420
_TEXT, _FAINT, _BAR, _PAPER = "#1a1a1a", "#6b6b6b", "#4363d8", "#ffffff"


def draw_prediction(image: np.ndarray, prediction: Prediction) -> np.ndarray:
    """Side by side: the proposed primaries, where the region weights fall, and the classes. uint8 RGB."""
    panels = [("proposed regions", draw_regions(image, prediction.primary_xyxy, _PANEL))]
    if prediction.region_weights is not None:
        panels.append(("weights of the regions, heaviest three boxed", _weight_map(image, prediction)))
    height = max(panel.shape[0] for _, panel in panels)
    margin, caption = 16, 26
    width = sum(panel.shape[1] + margin for _, panel in panels) + 330 + margin
    page = Image.new("RGB", (width, max(height, 220) + caption + 2 * margin), _PAPER)
    pen = ImageDraw.Draw(page)
    left = margin
    for title, panel in panels:
        pen.text((left, margin), title, fill=_FAINT, font=ImageFont.load_default(size=15))
        page.paste(Image.fromarray(panel), (left, margin + caption))
        left += panel.shape[1] + margin
    _draw_classes(pen, prediction, left, margin)
    return np.asarray(page)


def weight_of_pixels(prediction: Prediction, size_wh: tuple[int, int]) -> np.ndarray:
    """Each region's weight spread evenly over its pixels and summed: float32 ``(H, W)``, sum 1.

    The whole image's own weight is spread over everything, and so only lifts all pixels alike.
    """
    assert prediction.region_weights is not None
    width, height = size_wh
    total = np.full((height, width), prediction.region_weights[-1] / (width * height), dtype=np.float32)
    boxes = all_boxes(prediction.primary_xyxy).round().astype(int)
    for (x0, y0, x1, y1), weight in zip(boxes.tolist(), prediction.region_weights, strict=False):
        patch = total[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
        patch += weight / max(patch.size, 1)
    return total / total.sum()


def _weight_map(image: np.ndarray, prediction: Prediction) -> np.ndarray:
    picture = fit_within(image, _PANEL)
    density = weight_of_pixels(prediction, (image.shape[1], image.shape[0]))
    density = np.asarray(Image.fromarray(density).resize(picture.shape[1::-1], Image.Resampling.BILINEAR))
    low, high = np.percentile(density, (2, 99.5))
    heat = np.clip((density - low) / max(high - low, 1e-12), 0, 1)[..., None]
    grey = picture.mean(axis=2, keepdims=True)
    glow = np.array([255.0, 140.0, 0.0])
    mixed = (0.35 * grey + 0.65 * picture) * (0.35 + 0.65 * heat) + 0.35 * heat * glow
    picture = np.clip(mixed, 0, 255).astype(np.uint8)
    weights = prediction.region_weights
    assert weights is not None
    boxes = all_boxes(prediction.primary_xyxy) * (
        2 * (picture.shape[1] / image.shape[1], picture.shape[0] / image.shape[0])
    )
    heaviest = np.argsort(-weights[:-1], kind="stable")[:3]
    labels = [f"{weights[region]:.1%}" for region in heaviest]
    return draw_boxes(picture, boxes[heaviest], labels, colours=["#ffffff"], width=2)


def _draw_classes(pen: ImageDraw.ImageDraw, prediction: Prediction, left: int, top: int) -> None:
    pen.text((left, top), prediction.classes[0], fill=_TEXT, font=ImageFont.load_default(size=26))
    pen.text((left, top + 34), f"{prediction.probabilities[0]:.1%}", fill=_FAINT, font=ImageFont.load_default(size=18))
    for number, (name, share) in enumerate(zip(prediction.classes, prediction.probabilities, strict=True)):
        y = top + 72 + 28 * number
        pen.rectangle((left, y, left + max(2, int(300 * share)), y + 20), fill=_BAR)
        after = left + max(2, int(300 * share)) + 6
        inside = share > 0.6
        place = (left + 6, y + 1) if inside else (after, y + 1)
        pen.text(place, f"{name}  {share:.1%}", fill=_PAPER if inside else _TEXT, font=ImageFont.load_default(size=14))
