"""Settings of the region proposals, stored in every boxes file and every checkpoint.

This module imports nothing heavy: the command line takes its options and defaults from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.errors import CheckpointError, ConfigurationError
from ..data.fields import (
    A_NAME,
    A_SEED,
    AT_LEAST_1,
    NOT_NEGATIVE,
    Rule,
    between,
    check_rules,
    choice,
    idle_fields,
    setting,
)
from ..data.names import KINDS, MAX_REGIONS, NONE
from ..data.spelling import did_you_mean

if TYPE_CHECKING:
    from ..data.regions import Layout

# A method is a function of this package: uint8 RGB (H, W, 3) and settings, and weights for `NETWORKS` -> κ groups of
# points. The boxes file, its inspection and training do not depend on the method.
KEYPOINTS = "sift"  #: the method that groups keypoints
SHUFFLED = "shuffled"  #: keypoints, too, but each image then gets the regions of another one (`shuffled`)
SHUFFLED_SLOTS = "shuffled-slots"  #: keypoints, too, but each image's regions are then in slots drawn at random
SHUFFLES = (SHUFFLED, SHUFFLED_SLOTS)
METHODS = {
    KEYPOINTS: "sift:group_keypoints",
    SHUFFLED: "sift:group_keypoints",
    SHUFFLED_SLOTS: "sift:group_keypoints",
    "cnn-features": "networks:group_feature_map",
    "mask-rcnn": "networks:group_detections",
    "grid": "controls:group_grid",
    "random": "controls:group_random",
    "none": "controls:group_nothing",
}
NETWORKS = ("cnn-features", "mask-rcnn")  # methods that need weights
# Increased when a method changes the regions it finds in the same pixels: files of older revisions are not resumed.
REVISIONS = {"sift": 2, "cnn-features": 2, "random": 2}
# The methods that a setting has an effect on: the `needs` of its field.
_REGIONS = ("method", tuple(name for name in METHODS if name != NONE))
_NETWORK = ("method", NETWORKS)
_KEYPOINTS = ("method", (KEYPOINTS, *SHUFFLES))
_CLIPS = ("frames", AT_LEAST_1)
_SIZED = ("method", (KEYPOINTS, *SHUFFLES, "random"))
_SEEDED = ("method", (KEYPOINTS, *SHUFFLES, "cnn-features", "random"))
MIXTURES = ("closed-form", "scikit-learn")
# Every slot has its own weights in the network, so the order of the slots must be meaningful. None of these orders
# depends on the augmentation: the order is determined on the original image and kept when the pixels are transformed.
SLOT_ORDERS = {
    "weight": "hulls:by_weight",
    "left-to-right": "hulls:left_to_right",
    "top-to-bottom": "hulls:top_to_bottom",
    "mixture": "hulls:as_found",
}


@dataclass(frozen=True)
class EM:
    """Stopping criteria and regularisation of expectation maximisation; defaults of scikit-learn and the paper."""

    max_iter: int = 100  #: maximum number of iterations
    tol: float = 1e-3  #: gain of the mean log-likelihood below which EM stops
    reg_covar: float = 1e-6  #: value added to the diagonal of each covariance, in squared units of the points


_PRIMARY: Rule = (f"2 to {MAX_REGIONS}", lambda value: value == 0 or 2 <= value <= MAX_REGIONS)  # 0 only for none

REGIONS, MIXTURE, CLIPS, READING = "Regions", "Keypoints and their mixture", "Clips", "Options"
CLIP_FRAMES = 16  #: default for data sets of clips
SPACE, SPACE_TIME = "space", "space-time"


@dataclass(frozen=True)
class ProposalSettings:
    """Everything that determines the regions of an image besides its pixels; defaults of the paper (section III-A).

    Options, checks and tables are made from the fields' metadata (`data.fields`).
    """

    method: str = choice(
        REGIONS,
        "Source of the regions: SIFT keypoints (the paper), a network's feature map or detections; as controls, those "
        "of another image of the same split (shuffled), the image's own in slots drawn at random (shuffled-slots), a "
        "grid or random boxes; or none for models without regions.",
        tuple(METHODS),
        "sift",
    )
    primary: int = setting(REGIONS, "Number of primary regions per image, κ.", _PRIMARY, 8, needs=_REGIONS)
    kinds: str = choice(
        REGIONS,
        "Kinds of regions. secondary: the boxes around pairs of primary regions. At most 36 in all: pairs of the last "
        "primary regions are left out.",
        (*KINDS, NONE),
        "both",
        needs=_REGIONS,
    )
    weights: str = setting(
        REGIONS,
        f"FILE with the weights for {' or '.join(NETWORKS)}; by default torchvision's weights are downloaded.",
        A_NAME,
        "default",
        needs=_NETWORK,
    )  #: as returned by `name_of_weights`
    image_size: int = setting(
        MIXTURE,
        "Side in pixels of the square that an image is resized to before regions are proposed.",
        between(32, 4096),
        224,
        needs=_SIZED,
    )
    mixture: str = choice(
        MIXTURE,
        "Implementation of the Gaussian mixture: EM in closed form for two dimensions, or scikit-learn's, slower.",
        MIXTURES,
        "closed-form",
        needs=_KEYPOINTS,
    )
    slot_order: str = choice(
        REGIONS, "Order of the primary regions of an image.", tuple(SLOT_ORDERS), "weight", needs=_REGIONS
    )
    max_iter: int = setting(
        MIXTURE, "Maximum number of EM iterations.", between(1, 10_000), EM.max_iter, needs=_KEYPOINTS
    )
    tol: float = setting(
        MIXTURE,
        "Gain of the mean log-likelihood below which EM stops.",
        between(0, 1),
        EM.tol,
        needs=_KEYPOINTS,
    )
    reg_covar: float = setting(
        MIXTURE,
        "Value added to the diagonal of each covariance, in squared pixels of the resized image.",
        between(1e-12, 1e6),
        EM.reg_covar,
        needs=_KEYPOINTS,
    )
    seed: int = setting(
        REGIONS,
        "Seed of k-means and of random boxes, combined with the content of each image, and of shuffling.",
        A_SEED,
        0,
        needs=_SEEDED,
    )
    frames: int = setting(
        CLIPS,
        "Number of frames of each clip, evenly spaced in time, in which regions are found; 0: images. The default of a "
        f"data set of clips is {CLIP_FRAMES}.",
        between(0, 1024),
        0,
    )
    tubes: str = choice(
        CLIPS,
        "Mixture of a clip: over the positions of the keypoints of all frames, or over positions and time, slower.",
        (SPACE, SPACE_TIME),
        SPACE,
        needs=_CLIPS,
    )
    keypoints: int = setting(
        CLIPS, "Number of the strongest keypoints of a frame; 0: all.", NOT_NEGATIVE, 150, needs=_CLIPS
    )
    max_pixels: int = setting(
        READING,
        "Maximum number of pixels of a readable image: decoding takes 3 bytes for each, and a small file can announce "
        "more than fits into memory. Training and prediction use the same limit.",
        between(1, 2**31 - 1),
        100_000_000,
    )  #: the default is `data.images.MAX_PIXELS`

    def __post_init__(self) -> None:
        check_rules(self, "proposal")
        if (self.method == NONE) != ((self.primary, self.kinds) == (0, NONE)):
            raise ConfigurationError(
                f"proposal setting 'method': {NONE} goes with primary 0 and kinds {NONE}, other methods do not; got "
                f"{self.method} with primary {self.primary} and kinds {self.kinds}"
            )
        if self.frames and self.method in (*NETWORKS, *SHUFFLES):
            raise ConfigurationError(
                f"proposal setting 'method': {self.method} is for images, not for clips; use "
                f"{KEYPOINTS}, grid, random or {NONE}"
            )
        _ = self.layout  # raises if there are too many regions, or none

    @property
    def layout(self) -> Layout:
        from ..data.regions import Layout

        return Layout(self.primary, self.kinds)

    @property
    def idle(self) -> tuple[str, ...]:
        """Names of the settings that have no effect with this method."""
        return idle_fields(self)

    @property
    def em(self) -> EM:
        return EM(self.max_iter, self.tol, self.reg_covar)

    def to_dict(self) -> dict[str, str | int | float]:
        """Return the settings by name, without those that older files lack: the default of ``max_pixels``, and of
        images, the settings for clips.
        """
        values = asdict(self)
        if self.max_pixels == ProposalSettings.max_pixels:
            del values["max_pixels"]
        for name in () if self.frames else ("frames", "tubes", "keypoints"):
            del values[name]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> ProposalSettings:
        """Make settings from values by name. Raises: `ConfigurationError` for unknown names and invalid values."""
        known = {field.name: field for field in fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigurationError(
                f"unknown proposal settings: {', '.join(unknown)}{did_you_mean(unknown[0], known)}"
            )
        for name, value in values.items():
            wanted = type(known[name].default)
            if type(value) is not wanted and not (wanted is float and type(value) is int):
                raise ConfigurationError(f"proposal setting {name!r}: wanted {wanted.__name__}, got {value!r}")
        return cls(**values)  # type: ignore[arg-type]


def name_of_weights(file: Path | None) -> str:
    """Return the name of weights in the settings: ``default`` for torchvision's, otherwise the file's SHA-256 digest.

    Raises: `CheckpointError` if the file cannot be read.
    """
    if file is None:
        return ProposalSettings.weights
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from None
