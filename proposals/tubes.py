"""Keypoint tubes: one mixture over the keypoints of a clip's frames, and the box of each component in each frame.

A mixture per frame gives regions that mean nothing over time: the same number is another place in the next frame. A
region here is the same component in all frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.clips import open_clip
from ..data.errors import ImageError
from ..data.regions import MAX_FRAMES, Regions, Tubes
from ..data.sampling import Sampling
from ..data.videos import Frame
from .hulls import IN_NO_GROUP, Groups, count_distinct, in_slot_order, regions_of_groups
from .mixture import fit_mixture, fit_mixture_scikit_learn, initial_labels
from .one_image import propose_regions
from .settings import KEYPOINTS, SPACE_TIME, ProposalSettings
from .sift import detect_keypoints, seed_of, squash

PIXELS_A_FRAME = 4.0  #: of the squashed image: how far apart the mixture over space and time puts successive frames
_KEPT = 512  # squashed frames in memory, 26 MB at 224 pixels; of longer videos, every 2nd, 4th, ... is kept


class _Kept(NamedTuple):
    frame: int  #: number in the clip
    seconds: float
    grey: np.ndarray  #: uint8 ``(side, side)``


def propose_clip(path: Path, settings: ProposalSettings) -> Tubes:
    """Propose the regions of a clip, which is decoded once, from the first frame to the last.

    Args:
        path: Video file, or folder of numbered frames.
        settings: Proposal settings; regions are found in ``settings.frames`` frames, evenly spaced in time.

    Raises: `ImageError` if the clip cannot be read to its end, or regions would be in frames beyond `MAX_FRAMES`.
    """
    by_keypoints = settings.method == KEYPOINTS
    first: Frame | None = None
    kept: list[_Kept] = []
    count, last, stride = 0, 0.0, 1

    def wanted(number: int, seconds: float) -> bool:
        nonlocal count, last
        count, last = number + 1, seconds
        return number == 0 or (by_keypoints and number % stride == 0)

    with open_clip(path, settings.max_pixels) as clip:
        for frame in clip.chosen(wanted):
            first = first or frame
            if by_keypoints:
                kept.append(_Kept(frame.number, frame.seconds, squash(frame.pixels, settings.image_size)))
            if len(kept) > _KEPT:
                kept, stride = kept[::2], 2 * stride
        rate = (count - 1) / last if last else clip.rate
    assert first is not None  # a clip without frames is an error
    size_wh = (first.pixels.shape[1], first.pixels.shape[0])
    if by_keypoints:
        chosen = _nearest(kept, Sampling(settings.frames).times(last))
        regions, valid = keypoint_tubes([one.grey for one in chosen], settings, size_wh)
        numbers = [one.frame for one in chosen]
    else:  # the same in every frame
        regions, numbers = [propose_regions(first.pixels, settings)], [0]
        valid = np.ones((1, settings.primary), bool)
    if numbers[-1] >= MAX_FRAMES:
        raise ImageError(f"{path}: has {count:,} frames, more than the {MAX_FRAMES:,} of a clip; cut it into clips")
    return Tubes(count, rate, np.array(numbers, np.int32), tuple(regions), valid)


def _nearest(kept: Sequence[_Kept], times: Sequence[float]) -> list[_Kept]:
    """The frames nearest to the times, each once; of two that are equally near, the later."""
    seconds = np.array([one.seconds for one in kept])
    later = np.searchsorted(seconds, times).clip(1, max(1, len(kept) - 1))
    later = np.minimum(later, len(kept) - 1)
    before = np.maximum(later - 1, 0)
    chosen = np.where(np.subtract(times, seconds[before]) < seconds[later] - times, before, later)
    return [kept[number] for number in np.unique(chosen).tolist()]


def tubes_of_frames(frames: Sequence[np.ndarray], settings: ProposalSettings) -> tuple[list[Regions], np.ndarray]:
    """Propose regions in all of the frames, uint8 RGB ``(H, W, 3)``; see `keypoint_tubes` for what is returned."""
    if settings.method == KEYPOINTS:
        greys = [squash(frame, settings.image_size) for frame in frames]
        return keypoint_tubes(greys, settings, (frames[0].shape[1], frames[0].shape[0]))
    regions = propose_regions(frames[0], settings)
    return [regions] * len(frames), np.ones((len(frames), settings.primary), bool)


def keypoint_tubes(
    greys: Sequence[np.ndarray], settings: ProposalSettings, size_wh: tuple[int, int]
) -> tuple[list[Regions], np.ndarray]:
    """Regions of the frames of a clip, in the same slots: the keypoints in each frame of each mixture component.

    A component without keypoints in a frame has the box between those of the nearest frames that have some, in
    proportion to the number of frames; without any, the whole frame.

    Args:
        greys: F squashed frames, uint8 ``(side, side)``.
        settings: Proposal settings.
        size_wh: Width and height of the clip's frames in pixels.

    Returns: the regions of each frame, and whether a slot has keypoints in it, bool ``(F, κ)``.
    """
    found = [detect_keypoints(grey, settings.keypoints) for grey in greys]
    of_frame = np.repeat(np.arange(len(found)), [len(points) for points in found])
    groups = in_slot_order(_groups(np.concatenate(found), of_frame, settings, size_wh), settings.slot_order)
    regions = [
        regions_of_groups(
            replace(groups, points_xy=groups.points_xy[of_frame == frame], labels=groups.labels[of_frame == frame]),
            settings.layout,
            "mixture",  # the slots are in order already
            size_wh,
        )
        for frame in range(len(found))
    ]
    regions = [replace(one, total_keypoints=len(of_frame)) for one in regions]
    valid = np.array([one.keypoints > 0 for one in regions])
    return _filled(regions, valid), valid


def _groups(points: np.ndarray, of_frame: np.ndarray, settings: ProposalSettings, size_wh: tuple[int, int]) -> Groups:
    """Group the keypoints of all frames, float32 ``(n, 2)`` of squashed frames, by the mixture's components."""
    scale_xy = np.array(size_wh) / settings.image_size
    distinct, primary = count_distinct(points), settings.primary
    exact = points.astype(np.float64)
    if distinct < primary:
        none = np.full(len(points), IN_NO_GROUP)
        return Groups(exact * scale_xy, none, np.full(primary, 1 / primary), np.zeros((primary, 2)), distinct)
    seed = seed_of(settings.seed, points)
    if settings.tubes == SPACE_TIME:
        exact = np.column_stack([exact, PIXELS_A_FRAME * of_frame])
    if settings.tubes == SPACE_TIME or settings.mixture == "scikit-learn":
        mixture = fit_mixture_scikit_learn(exact, primary, seed, em=settings.em)
    else:
        mixture = fit_mixture(exact, initial_labels(exact, primary, seed), primary, em=settings.em)
    return Groups(
        points_xy=exact[:, :2] * scale_xy,
        labels=mixture.labels,
        weights=mixture.weights,
        centres_xy=mixture.means[:, :2] * scale_xy,
        distinct=distinct,
    )


def _filled(regions: list[Regions], valid: np.ndarray) -> list[Regions]:
    """The regions with boxes in place of those that are not ``valid`` ``(F, κ)``."""
    boxes = np.stack([one.primary_xyxy for one in regions])  # (F, κ, 4)
    frames = np.arange(len(regions))
    for slot in np.flatnonzero(valid.any(axis=0) & ~valid.all(axis=0)).tolist():
        there = valid[:, slot]
        for side in range(4):
            boxes[:, slot, side] = np.interp(frames, frames[there], boxes[there, slot, side])
    return [_with_boxes(one, boxes[frame], valid[frame]) for frame, one in enumerate(regions)]


def _with_boxes(regions: Regions, boxes_xyxy: np.ndarray, valid: np.ndarray) -> Regions:
    """The regions of a frame with the corners of ``boxes_xyxy`` ``(κ, 4)`` as the hulls of slots that are not valid."""
    if valid.all():
        return regions
    ends = np.cumsum(regions.hull_counts)
    hulls = [
        regions.hull_xy[end - count : end] if there else box[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2).round(1)
        for end, count, box, there in zip(ends, regions.hull_counts, boxes_xyxy, valid, strict=True)
    ]
    return replace(
        regions,
        hull_xy=np.concatenate(hulls).astype(np.float32),
        hull_counts=np.array([len(hull) for hull in hulls], np.int32),
    )
