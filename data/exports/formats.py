"""Formats of exported data. Nothing heavy is imported here: the command line lists them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataFormat:
    """A file format; ``write`` names a function of this package as ``module:function``."""

    what: str  #: for the help
    suffix: str  #: of the file; empty for a folder
    write: str
    needs_regions: bool = False
    packages: tuple[str, ...] = ()  #: required packages


DATA_FORMATS = {
    "coco": DataFormat("COCO JSON", ".json", "coco:write_coco"),
    "fiftyone": DataFormat("a folder that FiftyOne loads as FiftyOneDataset", "", "fiftyone:write_fiftyone"),
    "crops": DataFormat(
        "a folder of crops, SPLIT/CLASS/IMAGE_SLOT.jpg", "", "pictures:write_crops", needs_regions=True
    ),
    "drawn": DataFormat("a folder of photographs with their boxes", "", "pictures:write_drawn", needs_regions=True),
    "parquet": DataFormat(
        "a table with the photographs in it", ".parquet", "parquet:write_parquet", packages=("pyarrow",)
    ),
}
CATEGORIES = ("kind", "slot")  #: what the category of a region is
