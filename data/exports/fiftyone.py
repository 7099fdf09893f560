"""FiftyOne: a folder in the layout ``FiftyOneDataset``, which its importer reads without a copy of the photographs.

https://docs.voxel51.com/user_guide/import_datasets.html#fiftyonedataset
"""

from __future__ import annotations

import json
from pathlib import Path

from .coco import about
from .selection import UPRIGHT, ExportedImage, Progress, Selection


def write_fiftyone(selection: Selection, output: Path, progress: Progress) -> int:
    """Write ``metadata.json`` and ``samples.json`` into the folder ``output``.

    A sample has the fields ``ground_truth``, ``regions`` where there are some, and ``prediction`` if there is one; its
    split is a tag. Boxes are ``[x, y, width, height]`` in fractions of the upright photograph. Paths are relative to
    the data set's root: FiftyOne's ``rel_dir``.

    Returns: number of photographs that are turned by their metadata.
    """
    # Without a version, FiftyOne reads the fields from the samples, in any of its own versions.
    metadata = {"media_type": "image", "info": about(selection.boxes) | {"classes": list(selection.boxes.classes)}}
    (output / "metadata.json").write_text(json.dumps(metadata, indent=1) + "\n", encoding="ascii", newline="\n")
    turned = 0
    with (output / "samples.json").open("w", encoding="ascii", newline="\n") as file:
        file.write('{"samples": [')
        for done, image in enumerate(selection, 1):
            orientation = selection.orientation(image)
            turned += orientation != UPRIGHT
            file.write(f"{',' if done > 1 else ''}\n{json.dumps(_sample(selection, image, orientation))}")
            progress(done)
        file.write("\n]}\n")
    return turned


def _sample(selection: Selection, image: ExportedImage, orientation: int) -> dict[str, object]:
    classes, (width, height) = selection.boxes.classes, image.size_wh
    metadata = {"_cls": "ImageMetadata", "width": width, "height": height}
    sample: dict[str, object] = {"filepath": image.name, "tags": [image.split], "metadata": metadata}
    sample["ground_truth"] = _classification(classes[image.label], None)
    if image.predicted is not None:
        sample["prediction"] = _classification(classes[image.predicted], image.confidence)
    if selection.slots:
        sample["regions"] = {"_cls": "Detections", "detections": _detections(selection, image)}
    return sample if orientation == UPRIGHT else sample | {"exif_orientation": orientation}


def _classification(label: str, confidence: float | None) -> dict[str, object]:
    return {"_cls": "Classification", "label": label, **({} if confidence is None else {"confidence": confidence})}


def _detections(selection: Selection, image: ExportedImage) -> list[dict[str, object]]:
    width, height = image.size_wh
    found = []
    for slot, label, (x0, y0, x1, y1) in zip(
        selection.slots, selection.categories_of_slots, image.boxes_xyxy.tolist(), strict=True
    ):
        box = [round(value, 7) for value in (x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height)]
        detection = {"_cls": "Detection", "label": label, "bounding_box": box, "slot": slot.number}
        weight = selection.weight_of(image, slot)
        found.append(detection if weight is None else detection | {"weight": weight})
    return found
