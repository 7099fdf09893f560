"""What decides the regions of an image; stored in every boxes file and every checkpoint.

Nothing heavy is imported here: the command line takes its defaults from these classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.errors import CheckpointError, ConfigurationError
from ..data.names import NONE
from ..data.spelling import did_you_mean

if TYPE_CHECKING:
    from ..data.regions import Layout

# A way of proposing is a function of this package: uint8 RGB (H, W, 3) and settings, and for `NETWORKS` weights -> κ
# groups of points. The file, its inspection and training never ask which one it was.
METHODS = {
    "sift": "sift:group_keypoints",
    "cnn-features": "networks:group_feature_map",
    "mask-rcnn": "networks:group_detections",
    "grid": "controls:group_grid",
    "random": "controls:group_random",
    "none": "controls:group_nothing",
}
NETWORKS = ("cnn-features", "mask-rcnn")  # the methods that need weights
# Raised when a method begins to find other regions in the same pixels: what was made before is not gone on with.
REVISIONS = {"sift": 2, "cnn-features": 2, "random": 2}
# Settings that decide nothing of what a method finds.
_EM = ("mixture", "max_iter", "tol", "reg_covar")
IDLE = {
    "sift": ("weights",),
    "cnn-features": ("image_size", *_EM),
    "mask-rcnn": ("image_size", "seed", *_EM),
    "grid": ("weights", "image_size", "seed", *_EM),
    "random": ("weights", *_EM),
    NONE: ("primary", "kinds", "weights", "image_size", "slot_order", "seed", *_EM),
}
MIXTURES = ("closed-form", "scikit-learn")
# Every slot owns weights in the network, so slots need an order that means something. None of these
# depends on the augmentation: order is fixed on the original image and travels with the pixels.
SLOT_ORDERS = {
    "weight": "hulls:by_weight",
    "left-to-right": "hulls:left_to_right",
    "top-to-bottom": "hulls:top_to_bottom",
    "mixture": "hulls:as_found",
}


@dataclass(frozen=True)
class EM:
    """When expectation maximisation stops, and what keeps it well-posed; scikit-learn's defaults and the paper's."""

    max_iter: int = 100  #: iterations at most
    tol: float = 1e-3  #: stop when the mean log-likelihood gains less
    reg_covar: float = 1e-6  #: added to the covariances' diagonals, squared units of the points


@dataclass(frozen=True)
class ProposalSettings:
    """The paper's values by default (section III-A of the paper); the image's pixels are the rest."""

    method: str = "sift"  #: what proposes: a key of `METHODS`
    primary: int = 8  #: κ, mixture components = primary regions
    kinds: str = "both"  #: which regions an image has: primary, secondary or both
    weights: str = "default"  #: of `NETWORKS`, as `name_of_weights` names them
    image_size: int = 224  #: side in pixels of the squashed image on which keypoints are found
    mixture: str = "closed-form"  #: who fits the mixture
    slot_order: str = "weight"  #: which component is slot 0, 1, ...
    max_iter: int = EM.max_iter
    tol: float = EM.tol
    reg_covar: float = EM.reg_covar  #: squared pixels of the squashed image
    seed: int = 0  #: of k-means and random boxes, together with each image's own content
    max_pixels: int = 100_000_000  #: `data.images.MAX_PIXELS`; an image with more is unreadable

    def __post_init__(self) -> None:
        _one_of("method", self.method, METHODS)
        _one_of("mixture", self.mixture, MIXTURES)
        _one_of("slot_order", self.slot_order, SLOT_ORDERS)
        if (self.method == NONE) != ((self.primary, self.kinds) == (0, NONE)):
            raise ConfigurationError(
                f"proposal setting 'method': {NONE} goes with primary 0 and kinds {NONE}, and nothing else does; got "
                f"{self.method} with primary {self.primary} and kinds {self.kinds}"
            )
        _ = self.layout  # raises if there are too many or none
        _between("image_size", self.image_size, 32, 4096)
        _between("max_iter", self.max_iter, 1, 10_000)
        _between("tol", self.tol, 0, 1)
        _between("reg_covar", self.reg_covar, 1e-12, 1e6)
        _between("seed", self.seed, 0, 2**32 - 1)
        _between("max_pixels", self.max_pixels, 1, 2**31 - 1)

    @property
    def layout(self) -> Layout:
        from ..data.regions import Layout

        return Layout(self.primary, self.kinds)

    @property
    def idle(self) -> tuple[str, ...]:
        """Settings that decide nothing of what this method finds."""
        return IDLE[self.method]

    @property
    def em(self) -> EM:
        return EM(self.max_iter, self.tol, self.reg_covar)

    def to_dict(self) -> dict[str, str | int | float]:
        """By name. The limit of pixels is there only where it is another than the usual one: older files have none."""
        values = asdict(self)
        if self.max_pixels == ProposalSettings.max_pixels:
            del values["max_pixels"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> ProposalSettings:
        """The settings with these values. Raises: `ConfigurationError` on unknown names and bad values."""
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
    """What settings record of a network's weights: ``default`` for torchvision's own, else the file's digest.

    Raises: `CheckpointError` when the file cannot be read.
    """
    if file is None:
        return ProposalSettings.weights
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from None


def _one_of(name: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        meant = did_you_mean(value, choices)
        raise ConfigurationError(f"proposal setting {name!r}: wanted one of {', '.join(choices)}, got {value!r}{meant}")


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigurationError(f"proposal setting {name!r}: wanted {low} to {high}, got {value!r}")
