"""The boxes file: what its tables and columns are called, hold and mean. Writer and reader both follow this.

HDF5 with flat, one-dimensional tables of named columns, which HDFView shows as spreadsheets. README.md
documents it for people who want to write one; a change here needs a new `FORMAT_VERSION`.
"""

from __future__ import annotations

import h5py
import numpy as np

from ..regions import NOT_THERE

FORMAT = "agnet boxes"
FORMAT_VERSION = 2

STATUS_OK, STATUS_FEW, STATUS_UNREADABLE = "ok", "few keypoints", "unreadable"
STATUSES = (STATUS_OK, STATUS_FEW, STATUS_UNREADABLE)

# Filters every HDF5 reader brings along; others (lzf, blosc, zstd) HDFView cannot open.
GZIP_LEVEL = 4
ALLOWED_FILTERS = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})

TABLES = {
    "failures": "One row for each image that could not be used, with the reason.",
    "hulls": (
        "The vertices of the primary regions' convex hulls, in pixels of the upright original. Regions move with "
        "the pixels under augmentation: the box of a moved hull is exactly the box of the moved keypoints."
    ),
    "images": (
        "One row for each image of the data set, in its order; other tables name an image by its row number here, "
        "from 0. status: ok; few keypoints (every region is the whole image); unreadable (see failures)."
    ),
    "labels": "One row for each class; label is its number.",
    "primary": (
        "One row for each primary region, sorted by image, then region: the tight box of the keypoints one mixture "
        "component claims (or the points of another method). A region with 0 keypoints is the whole image. hull_first "
        "and hull_count say which rows of hulls are its hull."
    ),
    "secondary": (
        "One row for each pair of an image's primary regions (first, second): the box around both. Derived from "
        "primary; region numbers go on from the last primary's."
    ),
    "settings": "What made these boxes.",
}

DESCRIPTION = (
    "Salient regions of the images of a data set, for AG-Net (Bera et al., IEEE TIP 30, 2021). Begin with the pictures "
    "in preview, then the table images; primary and secondary hold the boxes, settings tells what made them. Each "
    "table explains its rows in its attribute description."
)

DESCRIPTION_WITHOUT_PREVIEW = DESCRIPTION.replace("the pictures in preview, then ", "")

SHEET = "contact_sheet"  #: in the group ``preview``, all its other pictures in one

UNITS = (
    "x0 y0 x1 y1 and x y are pixels of the upright original (orientation in its metadata applied); (0, 0) is the "
    "outer corner of the first pixel, x1 and y1 are exclusive. weight is a share of 1."
)

_BOX = [("x0", "<f4"), ("y0", "<f4"), ("x1", "<f4"), ("y1", "<f4")]

PRIMARY = np.dtype(
    [
        ("image", "<i4"),
        ("region", "<i2"),
        *_BOX,
        ("keypoints", "<i4"),
        ("weight", "<f4"),
        ("hull_first", "<i4"),
        ("hull_count", "<i4"),
    ]
)
SECONDARY = np.dtype([("image", "<i4"), ("region", "<i2"), ("first", "<i2"), ("second", "<i2"), *_BOX])
HULLS = np.dtype([("image", "<i4"), ("region", "<i2"), ("x", "<f4"), ("y", "<f4")])

PATH = "path_relative_to_the_dataset_root"
CLASS = "name_of_the_class"
SETTING, VALUE = "name_of_the_setting", "value_used_when_the_boxes_were_computed"
REASON = "reason_the_image_could_not_be_used"

# Reasons are sentences for people; longer ones are cut.
MAX_REASON = 300


def modified_text(nanoseconds: np.ndarray) -> np.ndarray:
    """Times of change since 1970 as texts ``2026-11-21T13:14:10.123456789``; empty for `NOT_THERE`."""
    texts = np.datetime_as_string(np.asarray(nanoseconds, dtype="<i8").view("<M8[ns]")).astype("S29")
    return np.where(np.asarray(nanoseconds) == NOT_THERE, b"", texts)


def text(width: int) -> np.dtype:
    """UTF-8 bytes of fixed length: variable-length strings garble, do not compress and are slow inside tables."""
    return np.dtype(f"S{max(1, width)}")


def stored(dtype: np.dtype) -> np.dtype:
    """The same table type with its texts marked as UTF-8, which HDF5 needs and NumPy's own formats cannot keep."""
    columns = [(name, dtype[name]) for name in dtype.names or ()]
    return np.dtype(
        [(name, h5py.string_dtype("utf-8", kind.itemsize) if kind.kind == "S" else kind) for name, kind in columns]
    )


def images_dtype(path_width: int) -> np.dtype:
    return np.dtype(
        [
            (PATH, text(path_width)),
            ("split", text(5)),
            ("label", "<i2"),
            ("width", "<i4"),
            ("height", "<i4"),
            ("keypoints", "<i4"),
            ("distinct_keypoints", "<i4"),
            ("distinct_regions", "<i2"),
            ("status", text(max(map(len, STATUSES)))),
            ("file_bytes", "<i8"),
            ("modified_utc", text(29)),
            ("content_blake2b", text(16)),
        ]
    )


def labels_dtype(class_width: int) -> np.dtype:
    counts = [(f"images_in_{split}", "<i4") for split in ("train", "val", "test")]
    return np.dtype([("label", "<i2"), (CLASS, text(class_width)), *counts])


def settings_dtype(name_width: int, value_width: int) -> np.dtype:
    return np.dtype([(SETTING, text(name_width)), (VALUE, text(value_width))])


def failures_dtype(path_width: int, reason_width: int) -> np.dtype:
    return np.dtype([("image", "<i4"), (PATH, text(path_width)), (REASON, text(reason_width))])
