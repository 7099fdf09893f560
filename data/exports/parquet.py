"""Parquet with the photographs in it, as the Hugging Face library ``datasets`` stores and shows them.

https://huggingface.co/docs/datasets/image_dataset and the feature ``Image``: a struct of the file's bytes and its path.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..images import read_content
from .coco import about
from .selection import ExportedImage, Progress, Selection

_ROWS, _BYTES = 100, 64 * 2**20  # most of a row group: the library itself writes 100 images


def write_parquet(selection: Selection, output: Path, progress: Progress) -> int:
    """Write one row for each image, with the bytes of its file as they are.

    Columns: ``image`` (bytes, path), ``label``, ``split``, ``regions``: a list of boxes ``[x0, y0, x1, y1]`` in pixels
    of the upright photograph, in the order of the slots; with predictions, ``prediction`` and ``confidence``. One row
    group is in memory at a time; it ends with its 100th image, or with the one that brings it to 64 MiB.

    Returns: 0: ``datasets`` applies the orientation in a file's metadata.
    """
    import pyarrow
    from pyarrow import parquet

    schema = _schema(selection)
    with parquet.ParquetWriter(output, schema, use_dictionary=["split"], compression="snappy") as writer:
        rows: list[dict[str, Any]] = []
        size = 0
        for done, image in enumerate(selection, 1):
            rows.append(_row(selection, image))
            size += len(rows[-1]["image"]["bytes"])
            if len(rows) == _ROWS or size >= _BYTES or done == len(selection):
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
                rows, size = [], 0
            progress(done)
    return 0


def _row(selection: Selection, image: ExportedImage) -> dict[str, Any]:
    row: dict[str, Any] = {"image": {"bytes": read_content(selection.root / image.name), "path": image.name}}
    row |= {"label": image.label, "split": image.split}
    if selection.slots:
        row["regions"] = image.boxes_xyxy.tolist()
    return row if image.predicted is None else row | {"prediction": image.predicted, "confidence": image.confidence}


def _schema(selection: Selection) -> Any:
    """The columns, and for ``datasets`` what they mean, in the metadata under its own key."""
    import pyarrow

    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    number = {"dtype": "float32", "_type": "Value"}
    classes = {"names": list(selection.boxes.classes), "_type": "ClassLabel"}
    # A list of lists as every version of the library reads it.
    boxes = {"feature": {"feature": number, "_type": "Sequence"}, "_type": "Sequence"}
    columns: dict[str, tuple[Any, dict[str, Any]]] = {
        "image": (image, {"_type": "Image"}),
        "label": (pyarrow.int64(), classes),
        "split": (pyarrow.string(), {"dtype": "string", "_type": "Value"}),
    }
    if selection.slots:
        columns["regions"] = (pyarrow.list_(pyarrow.list_(pyarrow.float32())), boxes)
    if selection.predictions is not None:
        columns["prediction"] = (pyarrow.int64(), classes)
        columns["confidence"] = (pyarrow.float32(), number)
    features = {name: feature for name, (_, feature) in columns.items()}
    metadata = {
        "huggingface": json.dumps({"info": {"features": features}}),
        "agnet": json.dumps(about(selection.boxes)),
    }
    return pyarrow.schema([(name, kind) for name, (kind, _) in columns.items()], metadata)
