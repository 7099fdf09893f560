"""Pictures of explanations of clips: a page with a strip of frames, and a video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ...data.canvas import Canvas
from ...data.drawing import fit_within
from ...data.fonts import shortened, text_width, wrapped
from ...data.images import MAX_PIXELS
from ...data.palette import AGAINST, FAINT, FOR, RULE, TEXT
from ...data.videos import Video, VideoWriter
from .annotated import new_file, write_at
from .explain import Explanation
from .explained_clips import ExplainedClip, ExplainedFrame
from .explained_pictures import BARS, GRID, classes_in_words, draw_bars, draw_header, half_of_what_speaks_for
from .map_colours import ATTENTION, draw_key, draw_map, highest_of
from .pictures import Caption, small_frame, with_regions

STRIP_FRAMES = 16  #: largest number of frames on the page
_WIDTH, _MARGIN, _GAP = 1480, 20, 12
_COLUMNS = 4
_WITHIN = _WIDTH - 2 * _MARGIN
_TILE = (_WITHIN - (_COLUMNS - 1) * _GAP) // _COLUMNS


@dataclass(frozen=True)
class _Moment:
    """A frame that is drawn, and the clip it is of."""

    pixels: np.ndarray  #: uint8 RGB, of `small_frame`
    frame: ExplainedFrame
    clip: ExplainedClip


def save_explained(
    clips: Sequence[ExplainedClip], folder: Path, caption: Caption, max_pixels: int = MAX_PIXELS
) -> tuple[Path, Path]:
    """Draw the explained clips of one video, all of them on one scale, as a page and as a video.

    Args:
        clips: All clips of the video, which is read again.
        folder: Folder for the files, which replace none; it is created.
        caption: Names of the classes, line of text that names the run, and the true class if known.
        max_pixels: Largest number of pixels of a frame.

    Returns: the page, PNG with an SVG beside it, and the video, MP4.
    Raises: `ImageError` if the video has changed, or cannot be written.
    """
    name = Path(clips[0].whole.name)
    full = highest_of(frame.evidence.laid_back(GRID) for clip in clips for frame in clip.frames)
    every = [frame.number for clip in clips for frame in clip.frames]
    count = min(STRIP_FRAMES, len(every))
    on_page = {every[number * len(every) // count] for number in range(count)}
    kept: list[_Moment] = []
    with VideoWriter(new_file(folder, name, ".mp4"), _rate(clips)) as writer:
        for moment in _moments(clips, max_pixels):
            write_at(writer, moment.frame.seconds, partial(_draw_moment, moment, full))
            kept += [moment] if moment.frame.number in on_page else []
    page = _draw_page(clips, kept, full, caption)
    return page.save(new_file(folder, name.with_stem(f"{name.stem}-strip"), ".png")), writer.path


def _moments(clips: Sequence[ExplainedClip], max_pixels: int) -> Iterator[_Moment]:
    """Read the explained frames again: many of them do not fit into memory."""
    wanted = {frame.number: (frame, clip) for clip in clips for frame in clip.frames}
    with Video(clips[0].whole.name, max_pixels) as video:
        for read in video.chosen(lambda number, seconds: number in wanted):
            yield _Moment(small_frame(read.pixels), *wanted[read.number])


def _rate(clips: Sequence[ExplainedClip]) -> float:
    """Frames a second of the video."""
    times = [frame.seconds for clip in clips for frame in clip.frames]
    return (len(times) - 1) / (times[-1] - times[0]) if times[-1] > times[0] else 1.0


def _draw_page(clips: Sequence[ExplainedClip], moments: Sequence[_Moment], full: float, caption: Caption) -> Canvas:
    """Draw some frames with their maps, what each frame adds, and for a single clip what each region adds."""
    canvas, first = Canvas(_WIDTH), clips[0].whole
    several = [f"{len(clips)} clips, each with an answer of its own"]
    said = several if len(clips) > 1 else classes_in_words(first, caption.classes)
    draw_header(canvas, first.name, said, caption)
    y = _draw_tiles(canvas, _MARGIN + 62, moments, full, several=len(clips) > 1)
    draw_key(canvas, (_MARGIN, y), 2 * _TILE, full, first.method)
    y += 44 + _GAP
    if first.method != ATTENTION:
        _draw_chart(canvas, (_MARGIN, y, _MARGIN + _WITHIN, y + 150), clips)
        y += 150 + 2 * _GAP
    if len(clips) == 1 and clips[0].tubes and len(first.evidence.parts) > 1:
        y = _draw_regions(canvas, y, first, moments) + 2 * _GAP
    for line in wrapped(_note(clips, moments), 14, _WITHIN, 4):
        canvas.text((_MARGIN, y), line, 14, FAINT)
        y += 22
    canvas.height = y + _MARGIN
    return canvas


def _draw_tiles(canvas: Canvas, top: int, moments: Sequence[_Moment], full: float, several: bool) -> int:
    """Draw the frames with their maps. Returns: the end."""
    pictures = [fit_within(moment.pixels, _TILE) for moment in moments]
    sizes = [picture.shape[:2] for picture in pictures]
    maps = [moment.frame.evidence.laid_back(size) for moment, size in zip(moments, sizes, strict=True)]
    halves, step = _halves(maps, moments), max(height for height, _ in sizes) + 22 + _GAP
    for number, (moment, picture) in enumerate(zip(moments, pictures, strict=True)):
        x, y = _MARGIN + number % _COLUMNS * (_TILE + _GAP), top + number // _COLUMNS * step
        said = f"{moment.frame.seconds:.1f} s · {_of_frame(moment)}"
        said += f" · {moment.clip.whole.this}" if several else ""
        canvas.text((x, y), shortened(said, 14, _TILE), 14, FAINT)
        drawn = draw_map(picture, maps[number], halves[number], full, moment.clip.whole.method)
        canvas.photograph((x, y + 22), drawn)
    return top + -(-len(moments) // _COLUMNS) * step


def _halves(maps: Sequence[np.ndarray], moments: Sequence[_Moment]) -> list[np.ndarray]:
    """What holds half of what speaks for the class: in all frames of a page together, or of attention in each."""
    if moments[0].clip.whole.method == ATTENTION:
        return [half_of_what_speaks_for(one) for one in maps]
    return list(half_of_what_speaks_for(np.stack(maps)))


def _of_frame(moment: _Moment) -> str:
    if moment.clip.whole.method == ATTENTION:
        places = moment.frame.evidence.parts[0]
        return f"half on {half_of_what_speaks_for(places).mean():.0%}, up to {places.max() * places.size:.2g} × mean"
    return f"adds {moment.frame.adds:+.3f}"


def _draw_regions(canvas: Canvas, top: int, whole: Explanation, moments: Sequence[_Moment]) -> int:
    """Draw what each region adds over all frames, and beside it the first, middle and last frame with the regions.

    Returns: the end.
    """
    shown, left = [moments[number] for number in sorted({0, len(moments) // 2, len(moments) - 1})], BARS + 3 * _GAP
    side, ends = (_WITHIN - left - 2 * _GAP) // 3, [draw_bars(canvas, (_MARGIN, top), whole)]
    for number, moment in enumerate(shown):
        x, picture = (
            _MARGIN + left + number * (side + _GAP),
            _with_regions(fit_within(moment.pixels, side), moment.frame),
        )
        canvas.text((x, top), shortened(f"{moment.frame.seconds:.1f} s: primary regions", 15, side), 15, FAINT)
        canvas.photograph((x, top + 26), picture)
        ends.append(top + 26 + picture.shape[0])
    return max(ends)


def _with_regions(pixels: np.ndarray, frame: ExplainedFrame) -> np.ndarray:
    if frame.regions is None or not frame.regions.enough_keypoints:
        return pixels
    return np.asarray(with_regions(Image.fromarray(pixels), frame.regions))


def _draw_moment(moment: _Moment, full: float) -> np.ndarray:
    """Draw a frame of the video: the frame with its regions, the map, the classes and what each frame adds.

    Returns: uint8 RGB.
    """
    whole, frame, pixels = moment.clip.whole, moment.frame, moment.pixels
    places, (height, wide) = frame.evidence.laid_back(pixels.shape[:2]), pixels.shape[:2]
    width = max(2 * wide + 4, 640)
    is_attention = whole.method == ATTENTION
    canvas = Canvas(width, height + (92 if is_attention else 202))
    canvas.photograph((0, 0), _with_regions(pixels, frame))
    canvas.photograph((wide + 4, 0), draw_map(pixels, places, np.zeros(places.shape, bool), full, whole.method))
    canvas.text((10, height + 8), shortened(_classes(whole), 18, width - 90), 18, TEXT)
    canvas.text((width - 10, height + 8), f"{frame.seconds:.1f} s", 18, FAINT, "ra")
    draw_key(canvas, (10, height + 40), width // 2 - 20, full, whole.method)
    unit = "attention: what the network weighs" if is_attention else "logits per 49th of the frame"
    canvas.text((width // 2 + 10, height + 38), shortened(unit, 14, width // 2 - 20), 14, FAINT)
    if not is_attention:
        _draw_chart(canvas, (10, height + 82, width - 10, height + 192), [moment.clip], frame)
    return canvas.pixels()


def _classes(whole: Explanation) -> str:
    this, against = whole.probabilities
    if whole.method == ATTENTION:
        return f"{whole.this} {this:.0%}"
    return f"{whole.this} {this:.0%} rather than {whole.against} {against:.0%}"


def _draw_chart(
    canvas: Canvas,
    box_xyxy: tuple[int, int, int, int],
    clips: Sequence[ExplainedClip],
    current: ExplainedFrame | None = None,
) -> None:
    """Draw what each frame adds, as bars at equal distances; the current one is underlined."""
    left, top, right, end = box_xyxy
    frames = [frame for clip in clips for frame in clip.frames]
    canvas.text((left, top), shortened(_sum_of(clips), 14, right - left), 14, FAINT)
    values = np.array([frame.adds for frame in frames])
    high, low = max(values.max(), 0), min(values.min(), 0)
    reach = (end - top - 80) / max(high - low, 1e-9)  # room for numbers above and below, and for times
    zero, step = top + 42 + reach * high, (right - left) / len(frames)
    canvas.rectangle((left, zero, right, zero + 1), RULE)
    for number, (frame, value) in enumerate(zip(frames, values.tolist(), strict=True)):
        x0, x1 = left + step * (number + 0.15), left + step * (number + 0.85)
        tip = zero - reach * value
        canvas.rectangle((x0, min(zero, tip), x1, max(zero, tip)), FOR if value > 0 else AGAINST)
        if step > text_width("+0.000", 12):
            canvas.text(((x0 + x1) / 2, tip - 16 if value > 0 else tip + 2), f"{value:+.3f}", 12, TEXT, "ma")
            if len(clips) == 1:
                canvas.text(((x0 + x1) / 2, end - 16), f"{frame.seconds:.1f} s", 12, FAINT, "ma")
        if frame is current:
            canvas.rectangle((x0, end - 2, x1, end), TEXT)
    if len(clips) > 1:
        _draw_clips(canvas, (left, top + 22, end), step, clips)


def _draw_clips(canvas: Canvas, place: tuple[int, int, int], step: float, clips: Sequence[ExplainedClip]) -> None:
    """Draw where clips begin, ``step`` pixels a frame, and their classes below the bars."""
    x, top, end = place
    for clip in clips:
        width = step * len(clip.frames)
        canvas.rectangle((x, top, x + 1, end), RULE)
        said = f"{clip.frames[0].seconds:.1f} s: {clip.whole.this} rather than {clip.whole.against}"
        canvas.text((x + 4, end - 16), shortened(said, 12, width - 8), 12, FAINT)
        x += round(width)


def _sum_of(clips: Sequence[ExplainedClip]) -> str:
    """Title of the chart, and for a single clip the sum of its bars."""
    if len(clips) > 1:
        return "what each frame adds, in logits"
    evidence = clips[0].whole.evidence
    rest = "bias" if clips[0].whole.method == "parts" else "not in the maps"
    added = evidence.total - evidence.bias
    return f"what each frame adds, in logits: {added:+.3f}, {rest} {evidence.bias:+.3f}, together {evidence.total:+.3f}"


def _note(clips: Sequence[ExplainedClip], moments: Sequence[_Moment]) -> str:
    """What the colours mean, and what they do not."""
    whole, said = clips[0].whole, ""
    drawn = sum(len(clip.frames) for clip in clips)
    if len(moments) < drawn:
        said = f" {len(moments)} of {drawn} frames are drawn."
    if whole.method == ATTENTION:
        return (
            "What the network weighs in each frame, in multiples of the mean, on one scale. Half of a frame's "
            "attention lies within its white line. It is the same for every class, and does not say what speaks for "
            f"one: the other methods do.{said}"
        )
    how = {
        "parts": "the exact parts of the difference of both logits, laid on the regions' places: over all frames, and "
        "with the bias, they add up to it. It is what adds up, not what would be missing if a place were covered",
        "hirescam": "gradient times activation of the last feature map of each frame (HiResCAM) for the difference of "
        "both logits, through time, too. For plain networks and B-CNN maps and bias add up to it; for others it is "
        "first order",
    }[whole.method]
    pair = f"{whole.this} rather than {whole.against}" if len(clips) == 1 else "each clip's class rather than the other"
    return (
        f"Orange speaks for {pair}, purple against it: {how}. Colours in logits per 49th of a frame, on one scale. "
        f"Half of what speaks for the class in these frames lies within the white lines.{said}"
    )
