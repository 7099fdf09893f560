"""Folders of pictures: the regions cut out, or the photographs with the boxes drawn over them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from ..drawing import draw_boxes, fit_within
from ..text import file_name
from .selection import ExportedImage, Progress, Selection

_LONGEST = 1024  # pixels of the longer side of a photograph with boxes


def write_crops(selection: Selection, output: Path, progress: Progress) -> int:
    """Write every region as ``SPLIT/CLASS/IMAGE_SLOT.jpg``, the layout of torchvision's and other ``ImageFolder``.

    A crop holds every pixel that its box touches, of the upright photograph. Slots count from 0 in the layout's order.

    Returns: 0, as crops are upright.
    """
    places = _places(selection)
    for done, image in enumerate(selection, 1):
        pixels, place = selection.pixels(image), output / places[image.number]
        place.parent.mkdir(parents=True, exist_ok=True)
        for slot, box in zip(selection.slots, image.boxes_xyxy, strict=True):
            _save(_crop(pixels, box), place.with_name(f"{place.name}_{slot.number:02d}.jpg"))
        progress(done)
    return 0


def write_drawn(selection: Selection, output: Path, progress: Progress) -> int:
    """Write every photograph as ``SPLIT/CLASS/IMAGE.jpg``, its regions drawn and numbered by slot.

    Photographs of more than 1,024 pixels are made smaller.

    Returns: 0, as pictures are upright.
    """
    places = _places(selection)
    for done, image in enumerate(selection, 1):
        place = output / places[image.number]
        place.parent.mkdir(parents=True, exist_ok=True)
        _save(_drawn(selection, image), place.with_name(f"{place.name}.jpg"))
        progress(done)
    return 0


def _drawn(selection: Selection, image: ExportedImage) -> np.ndarray:
    pixels = selection.pixels(image)
    if max(image.size_wh) > _LONGEST:
        pixels = fit_within(pixels, _LONGEST)
    scale = np.array(pixels.shape[1::-1]) / image.size_wh
    slots = selection.slots
    # Pairs first, so that the primaries, which they are made of, are drawn over them.
    order = sorted(range(len(slots)), key=lambda k: slots[k].kind == "primary")
    boxes = image.boxes_xyxy[order] * np.tile(scale, 2)
    return draw_boxes(pixels, boxes, [str(slots[k].number) if slots[k].kind == "primary" else "" for k in order])


def _crop(pixels: np.ndarray, box_xyxy: np.ndarray) -> np.ndarray:
    (x0, y0), (x1, y1) = np.floor(box_xyxy[:2]).astype(int), np.ceil(box_xyxy[2:]).astype(int)
    return pixels[y0:y1, x0:x1]


def _save(picture: np.ndarray, path: Path) -> None:
    Image.fromarray(picture).save(path, format="JPEG", quality=92)


def _places(selection: Selection) -> dict[int, Path]:
    """Where the pictures of each image belong, ``SPLIT/CLASS/IMAGE``, distinct on every file system.

    Where two images or classes would have one name, all of them are numbered.
    """
    classes = _distinct(dict(enumerate(selection.boxes.classes)))
    folders: dict[str, dict[int, str]] = {}
    for image in selection:
        stem = image.name.rpartition("/")[2].rpartition(".")[0] or image.name
        folders.setdefault(f"{image.split}/{classes[image.label]}", {})[image.number] = stem
    return {
        number: Path(folder) / name for folder, stems in folders.items() for number, name in _distinct(stems).items()
    }


def _distinct(texts: dict[int, str]) -> dict[int, str]:
    names = {number: file_name(text) for number, text in texts.items()}
    if max(Counter(name.casefold() for name in names.values()).values()) == 1:
        return names
    return {number: f"{number:06d}-{name}" for number, name in names.items()}
