"""COCO JSON: images, one annotation for each region, and categories. https://cocodataset.org/#format-data"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ..boxes.reader import Boxes
from .selection import UPRIGHT, ExportedImage, Progress, Selection


def write_coco(selection: Selection, output: Path, progress: Progress) -> int:
    """Write a COCO JSON file, one object a line.

    Boxes are ``[x, y, width, height]`` in pixels of the upright photograph, as are ``width`` and ``height`` of an
    image. ``id`` of an image is its row in the boxes file; annotations are in the order of images, then slots.

    Returns: number of photographs that are turned by their metadata.
    """
    names = sorted(set(selection.categories_of_slots), key=selection.categories_of_slots.index)
    numbers = {name: number for number, name in enumerate(names, 1)}
    turned = 0
    with output.open("w", encoding="ascii", newline="\n") as file:
        file.write(f'{{"info": {json.dumps(about(selection.boxes))},\n"licenses": [],\n"images": [')
        for done, image in enumerate(selection, 1):
            orientation = selection.orientation(image)
            turned += orientation != UPRIGHT
            file.write(f"{',' if done > 1 else ''}\n{json.dumps(_image(selection, image, orientation))}")
            progress(done)
        file.write('\n],\n"annotations": [')
        for number, annotation in enumerate(_annotations(selection, numbers), 1):
            file.write(f"{',' if number > 1 else ''}\n{json.dumps({'id': number, **annotation})}")
        categories = [{"id": numbers[name], "name": name, "supercategory": "region"} for name in names]
        file.write(f'\n],\n"categories": {json.dumps(categories)}}}\n')
    return turned


def about(boxes: Boxes) -> dict[str, object]:
    """Where the data come from."""
    return {
        "description": f"Regions of the images of {boxes.title}, made by agnet",
        "version": "1.0",
        "dataset": boxes.dataset,
        "boxes_fingerprint": boxes.fingerprint,
        "proposals": boxes.settings.get("proposals", {}),
    }


def _image(selection: Selection, image: ExportedImage, orientation: int) -> dict[str, object]:
    classes = selection.boxes.classes
    width, height = image.size_wh
    record = {"id": image.number, "file_name": image.name, "width": width, "height": height}
    record |= {"split": image.split, "label": classes[image.label]}
    if image.predicted is not None:
        record |= {"prediction": classes[image.predicted], "confidence": image.confidence}
    return record if orientation == UPRIGHT else record | {"exif_orientation": orientation}


def _annotations(selection: Selection, numbers: dict[str, int]) -> Iterator[dict[str, object]]:
    """The annotations without their ``id``. There is no mask: ``segmentation`` is empty, as in other files of boxes."""
    categories = [numbers[name] for name in selection.categories_of_slots]
    for image in selection:
        for slot, category, (x0, y0, x1, y1) in zip(
            selection.slots, categories, image.boxes_xyxy.tolist(), strict=True
        ):
            width, height = round(x1 - x0, 3), round(y1 - y0, 3)
            weight = selection.weight_of(image, slot)
            yield {
                "image_id": image.number,
                "category_id": category,
                "bbox": [x0, y0, width, height],
                "area": round(width * height, 3),
                "iscrowd": 0,
                "segmentation": [],
                "slot": slot.number,
                **({} if weight is None else {"score": weight}),
            }
