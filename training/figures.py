"""Pictures of what a network saw: regions, evidence and the prediction."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.drawing import draw_boxes, draw_regions, fit_within
from ..data.fonts import drawable, font_with
from .predict import Prediction
from .video_labels import Label

_PANEL = 420  # longer side of a picture, in pixels
_CLASSES = 300  # length of the bar that means certainty
_DIMMED = 0.25  # brightness of places that say nothing
_NOTEWORTHY = 1.1  # a region this many times heavier than an even share is boxed
_FRAME_SIDES = (480, 1280)  # longer side of a video's frame with its label, in pixels
_TEXT, _FAINT, _BAR, _PAPER = "#1a1a1a", "#6b6b6b", "#4363d8", "#ffffff"


def draw_prediction(image: np.ndarray, prediction: Prediction) -> np.ndarray:
    """Side by side: the primaries if there are any, what speaks for the first class, and the classes. uint8 RGB."""
    regions, panels = prediction.regions, []
    if regions is not None:
        panels.append(("proposed regions", draw_regions(image, regions.primary_xyxy, regions.layout, _PANEL)))
    if prediction.evidence is not None:
        title = "what speaks for " + _fitted(prediction.classes[0], "", 15, _PANEL / 2)
        panels.append((title, _evidence_map(image, prediction)))
    height = max((panel.shape[0] for _, panel in panels), default=0)
    margin, caption = 16, 26
    columns = [max(panel.shape[1], _PANEL * 3 // 4) + margin for _, panel in panels]  # room for a caption
    width = sum(columns) + _CLASSES + 3 * margin
    page = Image.new("RGB", (width, max(height, 220) + caption + 2 * margin), _PAPER)
    pen = ImageDraw.Draw(page)
    left = margin
    for (title, panel), column in zip(panels, columns, strict=True):
        pen.text((left, margin), title, fill=_FAINT, font=font_with(title, 15))
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
    return _box_heaviest(picture, prediction)


def _box_heaviest(picture: np.ndarray, prediction: Prediction) -> np.ndarray:
    """The regions that weigh clearly more than an even share, three at most, over an image scaled to any size."""
    if prediction.region_weights is None or prediction.regions is None:
        return picture
    shares = prediction.region_weights[:-1] * len(prediction.region_weights)
    heaviest = [region for region in np.argsort(-shares, kind="stable")[:3] if shares[region] > _NOTEWORTHY]
    labels = [f"×{shares[region]:.1f}" for region in heaviest]
    scale = np.divide(picture.shape[1::-1], prediction.regions.size_wh)
    boxes = prediction.regions.boxes_xyxy[heaviest] * np.tile(scale, 2)
    return draw_boxes(picture, boxes, labels, colours=["#ffffff"], width=2)


def small_frame(image: np.ndarray) -> np.ndarray:
    """A video's frame, uint8 RGB, in the size in which `draw_frame` draws it."""
    longer = max(image.shape[:2])
    side = min(max(longer, _FRAME_SIDES[0]), _FRAME_SIDES[1])
    return image if side == longer else fit_within(image, side)


def draw_frame(frame: np.ndarray, prediction: Prediction, label: Label) -> np.ndarray:
    """A frame of `small_frame` with its weightiest regions; beneath it, its smoothed label. uint8 RGB, of even sides.

    All frames of one size give pictures of one size.
    """
    boxed = _box_heaviest(frame, prediction)
    size = max(16, max(frame.shape[:2]) // 30)
    strip, margin = round(2.2 * size), round(0.6 * size)
    width, height = boxed.shape[1] + boxed.shape[1] % 2, boxed.shape[0] + strip
    width = max(width, 12 * size + 12 * size % 2)  # room for a word under a frame that is high and narrow
    page = Image.new("RGB", (width, height + height % 2), _PAPER)
    page.paste(Image.fromarray(boxed), ((width - boxed.shape[1]) // 2, 0))
    pen = ImageDraw.Draw(page)
    top = boxed.shape[0]
    pen.rectangle((0, top + strip - size // 3, round(width * label.probability), page.height), fill=_BAR)
    share = f"{label.probability:.0%}"
    pen.text((width - margin, top + margin // 2), share, fill=_FAINT, font=font_with(share, size), anchor="ra")
    name = _fitted(label.name, "", size, width - 2 * margin - 3 * size)
    pen.text((margin, top + margin // 2), name, fill=_TEXT, font=font_with(name, size))
    return np.asarray(page)


def _draw_classes(pen: ImageDraw.ImageDraw, prediction: Prediction, left: int, top: int) -> None:
    room = _CLASSES + 30  # to the right of it there is still a little margin
    first = _fitted(prediction.classes[0], "", 26, room)
    pen.text((left, top), first, fill=_TEXT, font=font_with(first, 26))
    pen.text((left, top + 34), f"{prediction.probabilities[0]:.1%}", fill=_FAINT, font=ImageFont.load_default(size=18))
    for number, (name, share) in enumerate(zip(prediction.classes, prediction.probabilities, strict=True)):
        y, length = top + 72 + 28 * number, max(2, int(_CLASSES * share))
        pen.rectangle((left, y, left + length, y + 20), fill=_BAR)
        inside = share > 0.5
        text = _fitted(name, f"  {share:.1%}", 14, (length if inside else room - length) - 12)
        place = (left + 6 if inside else left + length + 6, y + 1)
        pen.text(place, text, fill=_PAPER if inside else _TEXT, font=font_with(text, 14))


def _fitted(name: str, rest: str, size: int, room: float) -> str:
    """A name, with fewer letters if need be, and what comes after it, in at most ``room`` pixels."""
    name = drawable(name)
    for letters in range(len(name), 0, -1):
        text = (name if letters == len(name) else f"{name[: letters - 1]}…") + rest
        if font_with(text, size).getlength(text) <= room:
            return text
    return f"…{rest}"
