"""The regions of one image, which both stages share, and how they move with its pixels.

Coordinates are continuous: ``(0, 0)`` is the outer corner of the first pixel, ``(width, height)`` that of the last, x
before y. A box is ``x0, y0, x1, y1`` with ``x1`` and ``y1`` exclusive.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from .errors import ConfigurationError
from .names import KINDS, MAX_REGIONS, NONE

# Minimum side of a box, so that it can be seen, drawn and pooled.
MIN_SIDE = 1.0


MAX_FRAMES = 2**15  #: the boxes file stores the number of a clip's frame in 16 bits

# Modification time of a file that does not exist. Any other value is possible, such as 0 in many archives.
NOT_THERE = -(2**63)
_LATEST = 2**63 - 1  # 64-bit nanoseconds cover 1677 to 2262; disks may report times outside


@dataclass(frozen=True)
class Layout:
    """The regions of an image in the order of the network's slots: primaries, then the boxes around pairs.

    If `MAX_REGIONS` leaves no room for every pair (paper, Table VIII: 10 + 26, 16 + 20), pairs are kept by their later
    member, then by the earlier: (0, 1), (0, 2), (1, 2), (0, 3), ... The dropped pairs are those of the last primaries,
    by default the ones with the fewest keypoints. Kept pairs stay in lexicographic order.

    Raises: `ConfigurationError` if there are too many primaries, or ``kinds`` is not one of `KINDS`.
    """

    primary: int  #: κ, at least 2; 0 only in `NO_REGIONS`
    kinds: str = "both"  #: one of `KINDS`

    def __post_init__(self) -> None:
        if (self.primary, self.kinds) == (0, NONE):
            return
        if self.kinds not in KINDS:
            raise ConfigurationError(f"setting 'kinds': wanted one of {', '.join(KINDS)}, got {self.kinds!r}")
        if not 2 <= self.primary <= MAX_REGIONS:
            raise ConfigurationError(f"setting 'primary': wanted 2 to {MAX_REGIONS}, got {self.primary}")

    @cached_property
    def pairs(self) -> np.ndarray:
        """The two primaries of each secondary, int16 ``(S, 2)``, the smaller number first."""
        room = {"secondary": MAX_REGIONS, "both": MAX_REGIONS - self.primary}.get(self.kinds, 0)
        ranked = sorted(combinations(range(self.primary), 2), key=lambda pair: pair[::-1])
        pairs = np.array(sorted(ranked[:room]), dtype=np.int16).reshape(-1, 2)
        pairs.flags.writeable = False  # cached and shared by all callers
        return pairs

    @property
    def count(self) -> int:
        """R, the number of regions of an image."""
        return len(self.pairs) + (self.primary if self.kinds != "secondary" else 0)

    def secondary(self, primary_xyxy: np.ndarray) -> np.ndarray:
        """The box around each pair of primaries, ``(..., κ, 4)`` -> ``(..., S, 4)``."""
        first, second = (primary_xyxy[..., self.pairs[:, member], :] for member in (0, 1))
        low, high = np.minimum(first[..., :2], second[..., :2]), np.maximum(first[..., 2:], second[..., 2:])
        return np.concatenate([low, high], axis=-1)

    def boxes(self, primary_xyxy: np.ndarray) -> np.ndarray:
        """All regions: ``(..., κ, 4)`` -> ``(..., R, 4)``."""
        secondary = self.secondary(primary_xyxy)
        return secondary if self.kinds == "secondary" else np.concatenate([primary_xyxy, secondary], axis=-2)


NO_REGIONS = Layout(0, NONE)  #: for models that use no regions


@dataclass(frozen=True)
class Regions:
    """The regions of one image, in slot order, in pixels of the upright original.

    A primary region is stored as the convex hull of its points (its mixture component's keypoints): the box of an
    affinely transformed point set is exactly the box of its transformed hull. The region of a slot without points is
    the whole image: its hull is the image's four corners and its keypoint count 0.
    """

    hull_xy: np.ndarray  #: float32 ``(V, 2)``, vertices of the primaries' hulls, slot after slot
    hull_counts: np.ndarray  #: int32 ``(κ,)``, number of vertices per slot, at least 1
    keypoints: np.ndarray  #: int32 ``(κ,)``, number of keypoints per slot
    weights: np.ndarray  #: float32 ``(κ,)``, mixture weight of each slot
    size_wh: tuple[int, int]  #: width and height of the image in pixels
    total_keypoints: int  #: number of keypoints found, duplicates included
    distinct_keypoints: int  #: number of their distinct positions
    layout: Layout  #: which boxes are built from them

    @property
    def primary_xyxy(self) -> np.ndarray:
        """Boxes of the primary regions, float32 ``(κ, 4)``."""
        return boxes_of_hulls(self.hull_xy, self.hull_counts, self.size_wh)

    @property
    def boxes_xyxy(self) -> np.ndarray:
        """All boxes in the layout's order, float32 ``(R, 4)``."""
        return self.layout.boxes(self.primary_xyxy)

    @property
    def enough_keypoints(self) -> bool:
        """Whether there were keypoints to draw the layout's regions around; if not, each region is the whole image."""
        return bool(self.keypoints.any()) or not self.layout.count


@dataclass(frozen=True)
class Tubes:
    """The regions of a clip: those of some of its frames, with the same slots in each."""

    frames: int  #: number of frames that can be decoded
    frames_a_second: float  #: on average by the frames' times
    numbers: np.ndarray  #: int32 ``(F,)``, numbers of the frames with regions, increasing
    regions: tuple[Regions, ...]  #: one for each of ``numbers``; keypoint totals are the clip's
    valid: np.ndarray  #: bool ``(F, κ)``, False where a slot has no keypoint in the frame and its box was filled in


@dataclass(frozen=True)
class Proposal:
    """Stage 1's result for one image or clip: its regions, or why it has none."""

    regions: Regions | None  #: of a clip, those of the first frame that has any
    file_bytes: int = 0
    modified_ns: int = NOT_THERE  #: nanoseconds since 1970
    content_blake2b: str = ""  #: from `content_hash`; empty if the file could not be read
    reason: str = ""  #: why there are no regions
    fault: str = ""  #: the same in two or three words
    tubes: Tubes | None = None  #: of a clip


def whole_image_hull(size_wh: tuple[int, int]) -> np.ndarray:
    """The image's four corners, float32 ``(4, 2)``: the hull of a slot without keypoints."""
    width, height = size_wh
    return np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float32)


def boxes_of_hulls(
    hull_xy: np.ndarray, hull_counts: np.ndarray, size_wh: tuple[float, float] | np.ndarray
) -> np.ndarray:
    """Tight boxes of consecutive point groups, clipped to the frame, at least `MIN_SIDE` wide and high.

    Args:
        hull_xy: Points ``(V, 2)``, group after group.
        hull_counts: Group sizes ``(κ,)``, each at least 1.
        size_wh: Frame size, or ``(κ, 2)`` for one frame per group.

    Returns: float32 ``(κ, 4)`` xyxy. A group outside the frame gets a thin box at the nearest border.
    """
    starts = np.cumsum(hull_counts) - hull_counts
    frame = np.array(size_wh, dtype=np.float32)
    low = np.clip(np.minimum.reduceat(hull_xy, starts, axis=0), 0, frame)
    high = np.clip(np.maximum.reduceat(hull_xy, starts, axis=0), 0, frame)
    middle = np.clip((low + high) / 2, MIN_SIDE / 2, frame - MIN_SIDE / 2)
    low = np.minimum(low, middle - MIN_SIDE / 2)
    high = np.maximum(high, middle + MIN_SIDE / 2)
    return np.concatenate([low, high], axis=1).astype(np.float32)


def move_points(matrix: np.ndarray, points_xy: np.ndarray) -> np.ndarray:
    """Apply the affine map ``(2, 3)`` to points ``(V, 2)``, both in continuous coordinates."""
    return points_xy @ matrix[:, :2].T + matrix[:, 2]


def time_of_change(nanoseconds: int) -> int:
    """A file's modification time since 1970, clipped to 64 bits and never equal to `NOT_THERE`."""
    return min(max(nanoseconds, NOT_THERE + 1), _LATEST)


def content_hash(content: bytes) -> str:
    """Fingerprint of an image file's bytes: 16 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()
