"""The embedded data set: sixteen real photographs that ship with scikit-image and scikit-learn.

Each class is one photograph. Its images show that photograph from random viewpoints, in different light, partly
occluded, in front of a blurred piece of another one. Train and test are disjoint draws. The data set is small and easy:
it shows that everything works, not how well AG-Net does.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ...extras import how_to_install
from ..errors import DatasetError
from .catalogue import DEMO
from .entry import Options, Rows
from .folder import folder_rows

FOLDER = DEMO.folder  # the number is the version of the recipe: another version must not reuse these files
IMAGES_OF_A_CLASS = {"train": 30, "test": 12}
SIZE_WH = (320, 240)

_SCIKIT_IMAGE = {
    "astronaut": "astronaut",
    "bricks": "brick",
    "cameraman": "camera",
    "cat": "chelsea",
    "coffee": "coffee",
    "coins": "coins",
    "galaxies": "hubble_deep_field",
    "grass": "grass",
    "gravel": "gravel",
    "moon": "moon",
    "page": "page",
    "retina": "retina",
    "rocket": "rocket",
    "tissue": "immunohistochemistry",
}
_SCIKIT_LEARN = {"pagoda": "china.jpg", "flower": "flower.jpg"}


def demo_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Rows of the embedded data set, which is made under ``root`` on first use; see `ensure_demo`."""
    place = ensure_demo(root)
    return [(f"{place.name}/{name}", label, split) for name, label, split in folder_rows(place, left_out, options)]


def ensure_demo(root: Path) -> Path:
    """Return the data set's folder under ``root``, written on first use (672 JPEG files, 15 MB, seconds).

    Raises: `DatasetError` if scikit-image is missing or the folder cannot be written.
    """
    place = root / FOLDER
    if place.is_dir():
        return place
    photographs = _photographs()
    try:
        root.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{FOLDER}-", dir=root))
        try:
            for split, count in IMAGES_OF_A_CLASS.items():
                for label, name in enumerate(photographs):
                    folder = unfinished / split / name
                    folder.mkdir(parents=True)
                    for number in range(count):
                        generator = np.random.default_rng([label, number, list(IMAGES_OF_A_CLASS).index(split)])
                        view = _view(label, list(photographs.values()), generator)
                        Image.fromarray(view).save(folder / f"{number:03d}.jpg", quality=90)
            unfinished.chmod(0o755)
            unfinished.rename(place)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        if place.is_dir():  # another process finished first
            return place
        raise DatasetError(f"cannot write the embedded data set to {place}: {error.strerror}") from None
    return place


def _photographs() -> dict[str, np.ndarray]:
    """The photographs: class name -> uint8 RGB ``(H, W, 3)``, sorted by class."""
    try:
        import skimage.data
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise DatasetError(
            f"the embedded data set needs the package {error.name!r}: {how_to_install('scikit-image')}"
        ) from None
    found = {name: getattr(skimage.data, source)() for name, source in _SCIKIT_IMAGE.items()}
    found |= {name: load_sample_image(source) for name, source in _SCIKIT_LEARN.items()}
    return {
        name: np.ascontiguousarray(image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2))
        for name, image in sorted(found.items())
    }


def _view(label: int, photographs: list[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    others = [image for number, image in enumerate(photographs) if number != label]
    canvas = cv2.GaussianBlur(_piece(others[generator.integers(len(others))], SIZE_WH, generator), (0, 0), 5)
    canvas = _lay(photographs[label], canvas, generator)
    canvas = _occlude(canvas, others[generator.integers(len(others))], generator)
    gain, offset = generator.uniform(0.65, 1.25), generator.uniform(-25, 25)
    noise = generator.normal(0, 4, canvas.shape)
    return np.clip(canvas * gain + offset + noise, 0, 255).astype(np.uint8)


def _piece(image: np.ndarray, size_wh: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Crop a random piece of about half the image, resized to ``size_wh``."""
    height, width = image.shape[:2]
    crop_h, crop_w = (int(side * generator.uniform(0.4, 0.7)) for side in (height, width))
    top, left = generator.integers(height - crop_h), generator.integers(width - crop_w)
    return cv2.resize(image[top : top + crop_h, left : left + crop_w], size_wh, interpolation=cv2.INTER_AREA)


def _lay(image: np.ndarray, canvas: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Lay the image over the canvas at 55-85 % of its size, rotated, shifted and in perspective."""
    width, height = SIZE_WH
    scale = generator.uniform(0.55, 0.85) * min(width / image.shape[1], height / image.shape[0])
    resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    h, w = resized.shape[:2]
    corners = np.array([(0, 0), (w, 0), (w, h), (0, h)], dtype=np.float32)
    angle = np.deg2rad(generator.uniform(-20, 20))
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    centre = np.array([width / 2, height / 2]) + generator.uniform(-0.15, 0.15, 2) * SIZE_WH
    moved = (corners - (w / 2, h / 2)) @ turn.T + centre + generator.uniform(-0.06, 0.06, (4, 2)) * (w, h)
    homography = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    laid = cv2.warpPerspective(resized, homography, SIZE_WH)
    mask = cv2.warpPerspective(np.full((h, w), 255, np.uint8), homography, SIZE_WH)[..., None] / 255.0
    return laid * mask + canvas * (1 - mask)


def _occlude(canvas: np.ndarray, other: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Cover 4-9 % of the area with a rectangle of another photograph at a random position."""
    width, height = SIZE_WH
    w, h = (int(side * generator.uniform(0.2, 0.3)) for side in SIZE_WH)
    x, y = generator.integers(width - w), generator.integers(height - h)
    canvas[y : y + h, x : x + w] = _piece(other, (w, h), generator)
    return canvas
