"""Pictures of explanations of clips: a page with a strip of frames, and a video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ...data.drawing import fit_within, save_picture
from ...data.fonts import draw_text, shortened, text_width, wrapped
from ...data.images import MAX_PIXELS
from ...data.palette import AGAINST, FAINT, FOR, PAPER, RULE, TEXT
from ...data.videos import Video, VideoWriter
from .annotated import new_file, write_at
from .explain import Explanation
from .explained_clips import ExplainedClip, ExplainedFrame
from .explained_pictures import BARS, GRID, draw_bars, draw_header, half_of_what_speaks_for
from .map_colours import ATTENTION, draw_key, draw_map, highest_of
from .pictures import small_frame, with_regions
from .truth import Truth

STRIP_FRAMES = 16  #: largest number of frames on the page
_WIDTH, _MARGIN, _GAP = 1480, 20, 12
_COLUMNS = 4
_TILE = (_WIDTH - 2 * _MARGIN - (_COLUMNS - 1) * _GAP) // _COLUMNS
_CHART_WH = (_WIDTH - 2 * _MARGIN, 150)


@dataclass(frozen=True)
class _Moment:
    """A frame that is drawn, and the clip it is of."""

    pixels: np.ndarray  #: uint8 RGB, of `small_frame`
    frame: ExplainedFrame
    clip: ExplainedClip


def save_explained(
    clips: Sequence[ExplainedClip],
    folder: Path,
    run: str = "",
    truth: Truth | None = None,
    max_pixels: int = MAX_PIXELS,
) -> tuple[Path, Path]:
    """Draw the explained clips of one video, all of them on one scale, as a page and as a video.

    Args:
        clips: All clips of the video, which is read again.
        folder: Folder for the files, which replace none; it is created.
        run: Line of text that names the run.
        truth: Class that the video shows, if known.
        max_pixels: Largest number of pixels of a frame.

    Returns: the page, PNG, and the video, MP4.
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
            write_at(writer, moment.frame.seconds, lambda moment=moment: draw_moment(moment, full))  # type: ignore[misc]
            kept += [moment] if moment.frame.number in on_page else []
    page = draw_page(clips, kept, full, run, truth)
    return save_picture(page, new_file(folder, name.with_stem(f"{name.stem}-strip"), ".png")), writer.path


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


def draw_page(
    clips: Sequence[ExplainedClip], moments: Sequence[_Moment], full: float, run: str, truth: Truth | None
) -> np.ndarray:
    """Draw some frames with their maps, what each frame adds, and for a single clip what each region adds.

    Returns: uint8 RGB ``(H, 1480, 3)``.
    """
    first = clips[0].whole
    tiles = _draw_tiles(moments, full, several=len(clips) > 1)
    key, top = 44, _MARGIN + 62
    below = [] if first.method == ATTENTION else [_draw_chart(clips, _CHART_WH)]
    if len(clips) == 1 and len(first.evidence.parts) > 1:
        below.append(_draw_regions(first, moments))
    notes = wrapped(_note(clips, moments), 14, _WIDTH - 2 * _MARGIN, 4)
    height = top + tiles.height + key + sum(panel.height + 2 * _GAP for panel in below) + 22 * len(notes) + _MARGIN
    page = Image.new("RGB", (_WIDTH, height), PAPER)
    draw_header(page, first, run, truth)
    page.paste(tiles, (_MARGIN, top))
    y = top + tiles.height
    draw_key(page, (_MARGIN, y), 2 * _TILE, full, first.method)
    y += key
    for panel in below:
        page.paste(panel, (_MARGIN, y + _GAP))
        y += panel.height + 2 * _GAP
    for number, line in enumerate(notes):
        draw_text(page, (_MARGIN, y + 22 * number), line, 14, FAINT)
    return np.asarray(page)


def _draw_tiles(moments: Sequence[_Moment], full: float, several: bool) -> Image.Image:
    pictures = [fit_within(moment.pixels, _TILE) for moment in moments]
    maps = [
        moment.frame.evidence.laid_back(picture.shape[:2]) for moment, picture in zip(moments, pictures, strict=True)
    ]
    halves = _halves(maps, moments)
    high, rows = max(picture.shape[0] for picture in pictures), -(-len(pictures) // _COLUMNS)
    page = Image.new("RGB", (_WIDTH - 2 * _MARGIN, rows * (high + 26 + _GAP)), PAPER)
    for number, (moment, picture) in enumerate(zip(moments, pictures, strict=True)):
        x, y = number % _COLUMNS * (_TILE + _GAP), number // _COLUMNS * (high + 26 + _GAP)
        caption = f"{moment.frame.seconds:.1f} s · {_of_frame(moment)}"
        caption += f" · {moment.clip.whole.this}" if several else ""
        draw_text(page, (x, y), shortened(caption, 14, _TILE), 14, FAINT)
        drawn = draw_map(picture, maps[number], halves[number], full, moment.clip.whole.method)
        page.paste(Image.fromarray(drawn), (x, y + 22))
    return page


def _halves(maps: Sequence[np.ndarray], moments: Sequence[_Moment]) -> list[np.ndarray]:
    """What holds half of what speaks for the class: in all frames of a page together, or of attention in each."""
    if moments[0].clip.whole.method == ATTENTION:
        return [half_of_what_speaks_for(one) for one in maps]
    return list(half_of_what_speaks_for(np.stack(maps)))


def _of_frame(moment: _Moment) -> str:
    if moment.clip.whole.method == ATTENTION:
        places = moment.frame.evidence.parts[0]
        return f"half on {half_of_what_speaks_for(places).mean():.0%}, highest {places.max() * places.size:.1f} × mean"
    return f"adds {moment.frame.adds:+.3f}"


def _draw_regions(whole: Explanation, moments: Sequence[_Moment]) -> Image.Image:
    """Draw what each region adds over all frames, and beside it the first, middle and last frame with the regions."""
    bars, shown = draw_bars(whole), [moments[number] for number in sorted({0, len(moments) // 2, len(moments) - 1})]
    left = BARS + 3 * _GAP
    side = (_WIDTH - 2 * _MARGIN - left - 2 * _GAP) // 3
    pictures = [_with_regions(fit_within(moment.pixels, side), moment.frame) for moment in shown]
    height = max(bars.height, 26 + max(picture.height for picture in pictures))
    page = Image.new("RGB", (_WIDTH - 2 * _MARGIN, height), PAPER)
    page.paste(bars, (0, 0))
    for number, (moment, picture) in enumerate(zip(shown, pictures, strict=True)):
        x = left + number * (side + _GAP)
        draw_text(page, (x, 0), shortened(f"{moment.frame.seconds:.1f} s: primary regions", 15, side), 15, FAINT)
        page.paste(picture, (x, 26))
    return page


def _with_regions(pixels: np.ndarray, frame: ExplainedFrame) -> Image.Image:
    picture = Image.fromarray(pixels)
    if frame.regions is None or not frame.regions.enough_keypoints:
        return picture
    return with_regions(picture, frame.regions)


def draw_moment(moment: _Moment, full: float) -> np.ndarray:
    """Draw a frame of the video: the frame with its regions, the map, the classes and what each frame adds.

    Returns: uint8 RGB.
    """
    whole, frame, pixels = moment.clip.whole, moment.frame, moment.pixels
    places = frame.evidence.laid_back(pixels.shape[:2])
    half = np.zeros(places.shape, bool)
    left = _with_regions(pixels, frame)
    width, high = max(2 * left.width + 4, 640), left.height
    chart = None if whole.method == ATTENTION else _draw_chart([moment.clip], (width - 20, 110), frame)
    page = Image.new("RGB", (width, high + 92 + (chart.height if chart else 0)), PAPER)
    page.paste(left, (0, 0))
    page.paste(Image.fromarray(draw_map(pixels, places, half, full, whole.method)), (left.width + 4, 0))
    said = _classes(moment.clip)
    draw_text(page, (10, high + 8), shortened(said, 18, width - 90), 18, TEXT)
    draw_text(page, (width - 10, high + 8), f"{frame.seconds:.1f} s", 18, FAINT, "ra")
    draw_key(page, (10, high + 40), width // 2 - 20, full, whole.method)
    unit = "attention: what the network weighs" if whole.method == ATTENTION else "logits per 49th of the frame"
    draw_text(page, (width // 2 + 10, high + 40), shortened(unit, 14, width // 2 - 20), 14, FAINT)
    if chart:
        page.paste(chart, (10, high + 82))
    return np.asarray(page)


def _classes(clip: ExplainedClip) -> str:
    whole = clip.whole
    this, against = whole.probabilities
    if whole.method == ATTENTION:
        return f"{whole.this} {this:.0%}"
    return f"{whole.this} {this:.0%} rather than {whole.against} {against:.0%}"


def _draw_chart(
    clips: Sequence[ExplainedClip], size_wh: tuple[int, int], current: ExplainedFrame | None = None
) -> Image.Image:
    """Draw what each frame adds, as bars at equal distances; the current one is underlined."""
    frames, (width, height) = [frame for clip in clips for frame in clip.frames], size_wh
    page, title = Image.new("RGB", size_wh, PAPER), "what each frame adds, in logits"
    if len(clips) == 1:
        evidence = clips[0].whole.evidence
        title += f": {sum(frame.adds for frame in frames):+.3f}, {_rest(clips[0])} {evidence.bias:+.3f}, together "
        title += f"{evidence.total:+.3f}"
    draw_text(page, (0, 0), shortened(title, 14, width), 14, FAINT)
    values = np.array([frame.adds for frame in frames])
    high, low = max(values.max(), 0), min(values.min(), 0)
    top, reach = 42, height - 42 - 38  # room for numbers above and below, and for times
    zero = top + reach * high / max(high - low, 1e-9)
    step, pen = width / len(frames), ImageDraw.Draw(page)
    pen.line([(0, zero), (width, zero)], fill=RULE)
    spoken = step > text_width("+0.000", 12)
    for number, (frame, value) in enumerate(zip(frames, values.tolist(), strict=True)):
        x0, x1 = step * number + 0.15 * step, step * number + 0.85 * step
        end = zero - reach * value / max(high - low, 1e-9)
        pen.rectangle((x0, min(zero, end), x1, max(zero, end)), fill=FOR if value > 0 else AGAINST)
        middle = (x0 + x1) / 2
        if spoken:
            draw_text(page, (middle, end - 16 if value > 0 else end + 2), f"{value:+.3f}", 12, TEXT, "ma")
            draw_text(page, (middle, height - 16), f"{frame.seconds:.1f} s", 12, FAINT, "ma")
        if frame is current:
            pen.line([(x0, height - 1), (x1, height - 1)], fill=TEXT, width=2)
    return page


def _rest(clip: ExplainedClip) -> str:
    return "bias" if clip.whole.method == "parts" else "not in the maps"


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
    pair = f"{whole.this} rather than {whole.against}" if len(clips) == 1 else "each clip's likeliest class"
    return (
        f"Orange speaks for {pair}, purple against it: {how}. Colours in logits per 49th of a frame, on one scale. "
        f"Half of what speaks for the class in these frames lies within the white lines.{said}"
    )
