"""Pictures of a prediction: the photograph, the evidence for and against the class, and the probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from ...data.drawing import draw_boxes, draw_mark, fit_within
from ...data.fonts import draw_text, shortened, text_width, wrapped
from ...data.palette import AGAINST, FAINT, FOR, LIT, PAPER, SERIES, TEXT
from ...data.regions import Regions
from .predict import Attention, Prediction
from .truth import Truth
from .video_labels import Label

FULL = 0.25  #: logits per 49th of the picture that are drawn in full colour, in every picture
_CELLS = 49  # positions of the paper's 7 × 7 map; finer maps are drawn to the same scale
_STRONGEST = 0.7  # opacity of full colour

_BLUR = 0.06  # standard deviation of the smoothing of attention, as a fraction of the frame's shorter side
_PERCENTILE = 0.8  # of a frame's attention, below which nothing is drawn
_LEAST_HIGHEST = 2.0  # times the mean: attention that is nearly flat in all frames is not stretched to full colour

_PANEL_WH = (440, 440)  # maximum size of a panel, in pixels
_WIDE_WH, _TALL_WH = (760, 330), (440, 640)  # the same, if width or height is more than twice the other
_SLIVER = 24  # minimum side of a panel
_COLUMN = 330  # width of the column with the class and probabilities
_SHOWN = 8  # maximum number of classes
_MARGIN, _GAP = 20, 18
_DARK = 0.35  # mean brightness to which darker grey photographs are brightened
_FRAME_SIDES = (480, 640)  # minimum and maximum of the longer side of a video's frame, in pixels
_BAR, _REST, _TRACK = SERIES[0], "#b9b9b9", "#ececec"


@dataclass(frozen=True)
class Caption:
    """Texts beside a prediction."""

    classes: tuple[str, ...]  #: names of the network's classes, in its order
    run: str = ""  #: line of text that names the run
    label: Label | None = None  #: the answer, if it may differ from the likeliest class
    truth: Truth | None = None


def draw_prediction(image: np.ndarray, prediction: Prediction, caption: Caption) -> np.ndarray:
    """Draw the photograph, its grey copy with the evidence for and against the first class, and the probabilities.

    The photograph is drawn with its primary regions if the network uses regions. Returns uint8 RGB.
    """
    left = _draw_panels(Image.fromarray(_fitted(image)), prediction)
    column = _draw_answer(prediction, caption)
    width, top = left.width + 2 * _GAP + _COLUMN + 2 * _MARGIN, _MARGIN + 62
    page = Image.new("RGB", (width, top + max(left.height, column.height) + _MARGIN), PAPER)
    draw_text(page, (_MARGIN, _MARGIN), shortened(prediction.name, 20, width - 2 * _MARGIN), 20, TEXT)
    draw_text(page, (_MARGIN, _MARGIN + 30), shortened(caption.run, 14, width - 2 * _MARGIN), 14, FAINT)
    page.paste(left, (_MARGIN, top))
    page.paste(column, (width - _MARGIN - _COLUMN, top))
    return np.asarray(page)


def small_frame(image: np.ndarray) -> np.ndarray:
    """Resize a video's frame, uint8 RGB, to the size in which `draw_frame` draws it."""
    longer = max(image.shape[:2])
    side = min(max(longer, _FRAME_SIDES[0]), _FRAME_SIDES[1])
    return image if side == longer else fit_within(image, side)


def draw_frame(frame: np.ndarray, prediction: Prediction, label: Label) -> np.ndarray:
    """Draw a frame of `small_frame`, beside it the evidence for and against its likeliest class, below its label.

    Returns uint8 RGB with even sides. Frames of the same size give pictures of the same size and scale.
    """
    photograph = Image.fromarray(frame)
    panels = [photograph] + ([] if prediction.evidence is None else [_with_evidence(photograph, prediction)])
    if prediction.attention is not None:
        panels.append(Image.fromarray(draw_attention(frame, prediction)))
    size = max(16, max(frame.shape[:2]) // 30)
    strip, margin = round(3.6 * size), round(0.6 * size)
    panels_width = len(panels) * photograph.width + (len(panels) - 1) * 4
    width, height = panels_width + panels_width % 2, photograph.height + strip
    width = max(width, 24 * size)  # room for a word under a narrow frame
    page = Image.new("RGB", (width, height + height % 2), PAPER)
    for number, panel in enumerate(panels):
        page.paste(panel, ((width - panels_width) // 2 + number * (photograph.width + 4), 0))
    top = photograph.height
    pen = ImageDraw.Draw(page)
    pen.rectangle((0, top + strip - size // 3, round(width * label.probability), page.height), fill=_BAR)
    draw_text(page, (width - margin, top + margin // 2), f"{label.probability:.0%}", size, FAINT, "ra")
    name = shortened(label.name, size, width - 2 * margin - 3 * size)
    draw_text(page, (margin, top + margin // 2), name, size, TEXT)
    small, second = max(11, round(0.62 * size)), top + margin // 2 + round(1.5 * size)
    if prediction.attention is not None:
        said = shortened(attention_note([prediction.attention]), small, width - 2 * margin)
        draw_text(page, (margin, second), said, small, FAINT)
    if prediction.evidence is not None:
        key_width = 6 * small
        draw_scale(page, (margin, second + 2), (key_width, small))
        said = f"against / for {prediction.classes[0]} in this frame (HiResCAM, {FULL:g} logits per 49th or more)"
        said = shortened(said, small, width - 3 * margin - key_width)
        draw_text(page, (2 * margin + key_width, second), said, small, FAINT)
    return np.asarray(page)


def smoothed(weights: np.ndarray, size_hw: tuple[int, ...]) -> np.ndarray:
    """Enlarge a map of attention ``(h, w)`` to a picture's height and width, and smooth it as it is drawn."""
    height, width = size_hw
    large = cv2.resize(weights.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.GaussianBlur(large, (0, 0), _BLUR * min(height, width))


def draw_attention(frame: np.ndarray, prediction: Prediction) -> np.ndarray:
    """Draw a frame in grey with the attention of a network of clips over it, and with its primary regions if any.

    The map is smoothed and drawn where it is above its own 80th percentile and above its mean, with an opacity that is
    full at the highest attention of all frames of the window: a flat map stays dark, and a sure frame differs from an
    unsure one. Returns uint8 RGB.
    """
    assert prediction.attention is not None
    weights, highest = prediction.attention
    smooth = smoothed(weights, frame.shape[:2])
    share = np.clip((smooth - 1) / (max(highest, _LEAST_HIGHEST) - 1), 0, 1)
    share[smooth < np.quantile(smooth, _PERCENTILE)] = 0
    picture = lit(greyed(frame), share)
    if prediction.regions is None or not prediction.regions.enough_keypoints:
        return picture
    return np.asarray(with_regions(Image.fromarray(picture), prediction.regions))


def attention_note(windows: Sequence[Attention]) -> str:
    """Explanation of the colours of `draw_attention`, for a frame or for frames of several windows."""
    times = full_attention(windows)
    return f"attention: where the network looks; full colour at {times} times the mean, the highest in its window"


def full_attention(windows: Sequence[Attention]) -> str:
    """The attention that `draw_attention` draws in full colour, as a multiple of the mean, or a range of them."""
    full = sorted({f"{max(attention.highest, _LEAST_HIGHEST):.1f}" for attention in windows}, key=float)
    return " to ".join(dict.fromkeys((full[0], full[-1])))


def attention_scale() -> np.ndarray:
    """All colours of `draw_attention`, from the mean to the highest attention, over a medium grey, as uint8 RGB."""
    share = np.tile(np.linspace(0, 1, 240, dtype=np.float32), (20, 1))
    return _mixed(np.full(share.shape, 0.6, np.float32), _rgb(LIT), _STRONGEST * share)


def _fitted(image: np.ndarray) -> np.ndarray:
    """Resize the photograph to a panel: tiny photographs show their pixels, very narrow ones are widened."""
    height, width = image.shape[:2]
    room = _WIDE_WH if width > 2 * height else _TALL_WH if height > 2 * width else _PANEL_WH
    scale = min(room[0] / width, room[1] / height)
    size = max(_SLIVER, round(width * scale)), max(_SLIVER, round(height * scale))
    method = Image.Resampling.NEAREST if scale > 6 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(image).resize(size, method))


def _draw_panels(photograph: Image.Image, prediction: Prediction) -> Image.Image:
    """Draw the photograph and, beside or below it, the evidence map with its scale and an explanation."""
    panels = [_photograph_panel(photograph, prediction)]
    if prediction.evidence is not None:
        panels.append((f"evidence for and against {prediction.classes[0]}", _with_evidence(photograph, prediction)))
    stacked = photograph.width > 2.2 * photograph.height
    room = max(photograph.width, 300)  # width of a panel's caption
    across, down = (1, len(panels)) if stacked else (len(panels), 1)
    width, step = across * (room + _GAP) - _GAP, 26 + photograph.height + _GAP
    dark = _is_dark(float(_grey(np.asarray(photograph)).mean()))
    lines = wrapped(_note(prediction, dark), 14, width, 5) if prediction.evidence is not None else []
    page = Image.new("RGB", (width, down * step + (46 + 20 * len(lines) if lines else 0)), PAPER)
    for number, (title, panel) in enumerate(panels):
        x, y = (0, number * step) if stacked else (number * (room + _GAP), 0)
        draw_text(page, (x, y), shortened(title, 15, room), 15, FAINT)
        page.paste(panel, (x, y + 26))
    if lines:
        _draw_key(page, (width - room, down * step), min(room, _PANEL_WH[0]))
    for number, line in enumerate(lines):
        draw_text(page, (0, down * step + 46 + 20 * number), line, 14, FAINT)
    return page


def _photograph_panel(photograph: Image.Image, prediction: Prediction) -> tuple[str, Image.Image]:
    if prediction.regions is None:
        return "photograph", photograph
    if not prediction.regions.enough_keypoints:
        return "photograph: every region is the whole image", photograph
    return "photograph with its primary regions", with_regions(photograph, prediction.regions)


def with_regions(photograph: Image.Image, regions: Regions) -> Image.Image:
    """Draw the primary regions, numbered by slot, over the resized photograph."""
    boxes = regions.primary_xyxy * np.tile(np.divide(photograph.size, regions.size_wh), 2)
    slots = [str(slot) for slot in range(len(boxes))]
    return Image.fromarray(draw_boxes(np.asarray(photograph), boxes, slots, text_size=13))


def _with_evidence(photograph: Image.Image, prediction: Prediction) -> Image.Image:
    """Overlay the grey photograph with the evidence: orange for the first class, purple against it."""
    assert prediction.evidence is not None
    share = prediction.evidence * (prediction.evidence.size / _CELLS) / FULL
    # Resized as cells that tile the picture, so that their centres stay in place.
    share = np.asarray(Image.fromarray(share.astype(np.float32)).resize(photograph.size, Image.Resampling.BILINEAR))
    return Image.fromarray(tinted(greyed(np.asarray(photograph)), share))


def greyed(image: np.ndarray) -> np.ndarray:
    """Grey levels ``(H, W)`` in [0, 1] on which both colours are visible: neither black nor white.

    Dark photographs are brightened.
    """
    grey = _grey(image)
    mean = float(grey.mean())
    if _is_dark(mean):
        peak = max(float(np.quantile(grey, 0.99)), 0.05)  # noise is not stretched to full range
        grey = np.minimum(grey / peak ** (1 - mean / _DARK), 1)  # almost no change if it is almost bright enough
        grey **= min(1.0, max(0.4, float(np.log(_DARK) / np.log(grey.mean()))))
    return 0.25 + 0.67 * grey


def _grey(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).convert("L")).astype(np.float32) / 255


def _is_dark(mean: float) -> bool:
    return 0 < mean < _DARK


def tinted(grey: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Tint ``grey`` ``(H, W)`` in [0, 1]: colour by the sign of ``share``, opacity by its magnitude, full at 1."""
    colours = np.where(share[..., None] > 0, _rgb(FOR), _rgb(AGAINST))
    return _mixed(grey, colours, _STRONGEST * np.clip(np.abs(share), 0, 1))


def lit(grey: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Tint ``grey`` ``(H, W)`` in [0, 1] in the colour of attention: opacity by ``share``, none at 0, full at 1."""
    return _mixed(grey, _rgb(LIT), _STRONGEST * np.clip(share, 0, 1))


def _mixed(grey: np.ndarray, colours: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Mix ``grey`` ``(H, W)`` in [0, 1] with ``colours`` by their ``opacity`` ``(H, W)``. Returns uint8 RGB."""
    opacity = opacity[..., None]
    mixed = (1 - opacity) * 255 * grey[..., None] + opacity * colours
    return np.asarray(mixed.round().astype(np.uint8))


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)], dtype=np.float32)


def draw_scale(page: Image.Image, place_xy: tuple[int, int], size_wh: tuple[int, int]) -> None:
    """Draw all colours of a map, from against to for, over a medium grey."""
    width, height = size_wh
    share = np.tile(np.linspace(-1, 1, width, dtype=np.float32), (height, 1))
    page.paste(Image.fromarray(tinted(np.full(share.shape, 0.6, np.float32), share)), place_xy)


def _draw_key(page: Image.Image, place_xy: tuple[int, int], width: int) -> None:
    x, y = place_xy
    draw_scale(page, (x, y), (width, 12))
    for at, text, anchor in (
        *((0, f"against: -{FULL:g} or less", "la"), (width / 2, "0", "ma")),
        *((width, f"for: +{FULL:g} or more", "ra"),),
    ):
        draw_text(page, (x + at, y + 16), text, 13, FAINT, anchor)


def _note(prediction: Prediction, brightened: bool) -> str:
    """Exact explanation of the map."""
    assert prediction.evidence is not None
    name, total = prediction.classes[0], float(prediction.evidence.sum())
    rest = "the difference is its bias" if prediction.region_weights is None else "the two need not agree"
    return (
        f"Orange adds to the logit of {name}, purple subtracts: gradient times activation of the last feature map "
        f"(HiResCAM), in logits per 49th of the photograph, on the same scale in all pictures. Sum: {total:+.2f}; "
        f"logit: {prediction.logit:+.2f} ({rest})." + (" The grey copy is brightened." if brightened else "")
    )


def tied(distribution: np.ndarray) -> np.ndarray:
    """Indices of the classes that tie with the likeliest one to a tenth of a per cent, the likeliest first."""
    order = np.argsort(-distribution, kind="stable")
    said = [f"{share:.1%}" for share in distribution[order]]
    return order[[one == said[0] for one in said]]


def _draw_answer(prediction: Prediction, caption: Caption) -> Image.Image:
    """Draw the column with the class, whether it is right, the next classes, and the probability of all others."""
    distribution, classes = prediction.distribution, caption.classes
    order = np.argsort(-distribution, kind="stable")
    shown = order[: min(max(2, len(prediction.classes)), _SHOWN)]
    equal = tied(distribution)
    page = Image.new("RGB", (_COLUMN, 190 + 40 * (len(shown) + 1)), PAPER)
    y = 0
    for text, size, colour in _verdict(prediction, caption, [classes[k] for k in equal]):
        for line in wrapped(text, size, _COLUMN, 2):
            draw_text(page, (0, y), line, size, colour)
            y += round(1.35 * size)
    if caption.truth is not None:
        y = _draw_truth(page, y + 4, caption.truth, classes[order[0]], [classes[k] for k in equal])
    y += 14
    rows = [(classes[k], float(distribution[k]), _BAR) for k in shown]
    if others := len(classes) - len(shown):
        rest = max(0.0, 1 - sum(share for _, share, _ in rows))
        rows.append((f"{others:,} other class{'es' if others > 1 else ''}", rest, _REST))
    pen = ImageDraw.Draw(page)
    for name, share, colour in rows:
        said = f"{share:.1%}"
        draw_text(page, (_COLUMN, y), said, 14, TEXT, "ra")
        draw_text(page, (0, y), shortened(name, 14, _COLUMN - text_width(said, 14) - 12), 14, TEXT)
        pen.rectangle((0, y + 21, _COLUMN - 1, y + 28), fill=_TRACK)
        if round(_COLUMN * share):
            pen.rectangle((0, y + 21, round(_COLUMN * share) - 1, y + 28), fill=colour)
        y += 40
    return page.crop((0, 0, _COLUMN, y))


def _verdict(prediction: Prediction, caption: Caption, equal: list[str]) -> list[tuple[str, int, str]]:
    """Lines of text with their sizes and colours."""
    share = f"{prediction.probabilities[0]:.1%}"
    if caption.label is not None and caption.label.name != prediction.classes[0]:
        return [(caption.label.name, 26, TEXT), (f"likeliest: {prediction.classes[0]}, {share}", 16, FAINT)]
    if len(equal) > 1:
        return [(f"a tie of {len(equal):,}", 26, TEXT), (f"{share} each: {', '.join(equal)}", 16, FAINT)]
    return [(prediction.classes[0], 26, TEXT), (share, 18, FAINT)]


def _draw_truth(page: Image.Image, y: int, truth: Truth, first: str, equal: list[str]) -> int:
    """Draw the true class after a mark that needs no colour: a tick, a cross, or none if it is one of a tie."""
    said, left = "one of a tie" if truth.name in equal else "wrong", 26
    if len(equal) == 1 and truth.name == first:
        said = "right"
    if said == "one of a tie":
        left = 0
    else:
        draw_mark(page, (0, y), said == "right", TEXT)
    draw_text(page, (left, y), shortened(f"{said} · truth: {truth.name}", 16, _COLUMN - left), 16, TEXT)
    draw_text(page, (left, y + 22), truth.part, 13, FAINT)
    return y + 40
