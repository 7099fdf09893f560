"""The boxes file: names, types and meaning of its tables and columns, shared by writer and reader.

It is HDF5 with flat, one-dimensional tables of named columns, which HDFView shows as spreadsheets. docs/boxes-file.md
documents the format for other writers; a change here needs a new `FORMAT_VERSION`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import h5py
import numpy as np

from ..index import ALL_SPLITS, SPLITS
from ..regions import NOT_THERE

FORMAT = "agnet boxes"
FORMAT_VERSION = 3
VERSIONS = (2, FORMAT_VERSION)  #: versions that can be read

STATUS_OK, STATUS_FEW, STATUS_UNREADABLE = "ok", "few keypoints", "unreadable"
STATUSES = (STATUS_OK, STATUS_FEW, STATUS_UNREADABLE)

# Filters that every HDF5 reader includes; HDFView cannot open others (lzf, blosc, zstd).
GZIP_LEVEL = 4
ALLOWED_FILTERS = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})

READ_ME = "00_read_me"
TABLES = {
    READ_ME: "What this file holds, a sentence of at most 60 characters in each row.",
    "failures": "One row for each image that could not be used, with the reason.",
    "hulls": (
        "The vertices of the primary regions' convex hulls, in pixels of the upright original. Regions move with "
        "the pixels under augmentation: the box of a moved hull is exactly the box of the moved keypoints."
    ),
    "images": (
        "One row for each image of the data set, in its order; other tables name an image by its row number here, "
        "from 0. status_of_the_image: ok; few keypoints (every region is the whole image); unreadable (see failures). "
        "first_row_in_primary: where the image's regions begin; -1 where it has none."
    ),
    "labels": "One row for each class; label is its number.",
    "primary": (
        "One row for each primary region, sorted by image, then region: the tight box of the keypoints one mixture "
        "component claims (or the points of another method). A region with 0 keypoints is the whole image. hull_first "
        "and hull_count say which rows of hulls are its hull."
    ),
    "secondary": (
        "One row for each pair of an image's primary regions (first, second): the box around both. Derived from "
        "primary; region numbers continue from the last primary's."
    ),
    "settings": "What made these boxes, and whether this method uses them.",
}

#: What these descriptions continue with in a file of clips.
OF_CLIPS = {
    "failures": "Here an image is a clip.",
    "hulls": "Rows are in the order of the rows of primary, frame after frame.",
    "images": (
        "Here an image is a clip, a video file or a folder of frames: frames is the number of its frames, "
        "frames_a_second their average rate; width, height and distinct_regions are of its first frame with regions."
    ),
    "primary": (
        "Here rows are sorted by clip, then frame, then region; frame is the number of the frame in its clip, from 0. "
        "A region is the same thing in all frames of its clip. Where valid is 0 it has no keypoint in the frame, and "
        "the box is filled in between those of the nearest frames that have some."
    ),
    "secondary": "Here there is one for each pair of each frame of a clip.",
}

DESCRIPTION = f"Regions of the images of a data set, for attention networks. Begin with the table {READ_ME}."

PREVIEW = "preview"  #: the group of pictures
SHEET = "00_contact_sheet"  #: picture in that group that combines all others
_SHEETS = frozenset({SHEET, "contact_sheet"})  # version 2 sorts it last

UNITS = (
    "x0 y0 x1 y1 and x y are pixels of the upright original (orientation in its metadata applied); (0, 0) is the "
    "outer corner of the first pixel, x1 and y1 are exclusive. weight is a share of 1."
)

# HDFView makes a column as wide as its header, in a table 694 pixels wide, at about 7 pixels per letter. So columns for
# reading have headers as long as their texts and come first; numbers have short headers.
FILE = "name_of_the_image_file_and_ending"
CLASS_OF = "class_of_the_image"
STATUS = "status_of_the_image"
FIRST_ROW = "first_row_in_primary"
PATH = "path_relative_to_the_dataset_root"
CLASS = "name_of_the_class"
SETTING, VALUE, USED = (
    "name_of_the_setting_of_the_run",
    "value_used_when_the_boxes_were_computed",
    "used_by_this_method",
)
FAULT, FAILED_FILE = "what_is_wrong_with_it", "name_of_the_image_file"
REASON = "the_whole_reason_why_this_image_could_not_be_used_for_any_regions"
SENTENCE = "what_this_file_holds_and_how_to_read_it_one_sentence_in_each_row"

READ_ME_LETTERS = 60  #: maximum per row
# Reasons are full sentences; longer ones are cut.
MAX_REASON, MAX_FAULT = 300, len(FAULT)

_TEXT = "S1"  # width to be set
_BOX = [("x0", "<f4"), ("y0", "<f4"), ("x1", "<f4"), ("y1", "<f4")]
_FRAME, _VALID = ("frame", "<i2"), ("valid", "i1")

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
PRIMARY_OF_CLIPS = np.dtype([PRIMARY.descr[0], _FRAME, *PRIMARY.descr[1:], _VALID])
SECONDARY = np.dtype([("image", "<i4"), ("region", "<i2"), ("first", "<i2"), ("second", "<i2"), *_BOX])
SECONDARY_OF_CLIPS = np.dtype([SECONDARY.descr[0], _FRAME, *SECONDARY.descr[1:]])
HULLS = np.dtype([("image", "<i4"), ("region", "<i2"), ("x", "<f4"), ("y", "<f4")])

#: Every column that is read from these tables, in order; texts may be wider.
COLUMNS = {
    "images": np.dtype(
        [
            ("image", "<i4"),
            (FILE, _TEXT),
            (CLASS_OF, _TEXT),
            ("split", _TEXT),
            (STATUS, _TEXT),
            (FIRST_ROW, "<i8"),
            ("width", "<i4"),
            ("height", "<i4"),
            ("keypoints", "<i4"),
            ("distinct_keypoints", "<i4"),
            ("distinct_regions", "<i2"),
            ("label", "<i2"),
            ("group", _TEXT),
            ("camera", _TEXT),
            ("first_frame", "<i4"),
            ("frames", "<i4"),
            ("frames_a_second", "<f4"),
            (PATH, _TEXT),
            ("file_bytes", "<i8"),
            ("modified_utc", _TEXT),
            ("content_blake2b", _TEXT),
        ]
    ),
    "labels": np.dtype([("label", "<i2"), (CLASS, _TEXT), *((f"images_in_{split}", "<i4") for split in ALL_SPLITS)]),
    "primary": PRIMARY_OF_CLIPS,
    "hulls": HULLS,
    "failures": np.dtype([("image", "<i4"), (FAULT, _TEXT), (FAILED_FILE, _TEXT), (REASON, _TEXT)]),
}

GROUPS, CLIPS = ("group", "camera"), ("first_frame", "frames", "frames_a_second")
#: Columns that may be absent.
OPTIONAL = frozenset({*GROUPS, *CLIPS, *(f"images_in_{split}" for split in ALL_SPLITS), "frame", "valid"})

_PATH_2, _REASON_2 = "path_relative_to_the_dataset_root", "reason_the_image_could_not_be_used"
#: The same for version 2, in which no column may be absent.
COLUMNS_2 = {
    "images": np.dtype(
        [
            (_PATH_2, _TEXT),
            ("split", _TEXT),
            ("label", "<i2"),
            ("width", "<i4"),
            ("height", "<i4"),
            ("keypoints", "<i4"),
            ("distinct_keypoints", "<i4"),
            ("distinct_regions", "<i2"),
            ("status", _TEXT),
            ("file_bytes", "<i8"),
            ("modified_utc", _TEXT),
            ("content_blake2b", _TEXT),
        ]
    ),
    "labels": np.dtype([("label", "<i2"), (CLASS, _TEXT), *((f"images_in_{split}", "<i4") for split in SPLITS)]),
    "primary": PRIMARY,
    "hulls": HULLS,
    "failures": np.dtype([("image", "<i4"), (_PATH_2, _TEXT), (_REASON_2, _TEXT)]),
}
#: Their names in version 3.
RENAMED = {_PATH_2: PATH, _REASON_2: REASON, "status": STATUS}


def is_sheet(picture: str) -> bool:
    """Whether a preview is the contact sheet rather than a single photograph."""
    return picture in _SHEETS


def modified_text(nanoseconds: np.ndarray) -> np.ndarray:
    """Modification times since 1970 as texts ``2026-11-21T13:14:10.123456789``; empty for `NOT_THERE`."""
    texts = np.datetime_as_string(np.asarray(nanoseconds, dtype="<i8").view("<M8[ns]")).astype("S29")
    return np.where(np.asarray(nanoseconds) == NOT_THERE, b"", texts)


def text(width: int) -> np.dtype:
    """A type of fixed-length UTF-8: variable-length texts are slow in tables, do not compress and may be garbled."""
    return np.dtype(f"S{max(1, width)}")


def stored(dtype: np.dtype) -> np.dtype:
    """The same table type with texts marked as UTF-8, which HDF5 needs and NumPy's own types cannot express."""
    columns = [(name, dtype[name]) for name in dtype.names or ()]
    return np.dtype(
        [(name, h5py.string_dtype("utf-8", kind.itemsize) if kind.kind == "S" else kind) for name, kind in columns]
    )


def images_dtype(widths: Mapping[str, int], optional: Collection[str] = ()) -> np.dtype:
    """The type of the written table ``images``, with ``optional`` columns and texts of these ``widths`` in bytes."""
    known = {STATUS: max(map(len, STATUSES)), "modified_utc": 29, "content_blake2b": 16, **widths}
    columns = COLUMNS["images"]
    return np.dtype(
        [
            (name, text(known[name]) if columns[name].kind == "S" else columns[name])
            for name in columns.names or ()
            if name not in OPTIONAL or name in optional
        ]
    )


def labels_dtype(class_width: int, splits: Sequence[str] = SPLITS) -> np.dtype:
    counts = [(f"images_in_{split}", "<i4") for split in splits]
    return np.dtype([("label", "<i2"), (CLASS, text(class_width)), *counts])


def read_me_dtype(width: int) -> np.dtype:
    return np.dtype([(SENTENCE, text(width))])


def settings_dtype(name_width: int, value_width: int) -> np.dtype:
    return np.dtype([(SETTING, text(name_width)), (VALUE, text(value_width)), (USED, text(3))])


def failures_dtype(file_width: int, reason_width: int) -> np.dtype:
    reasons = (FAULT, text(MAX_FAULT)), (FAILED_FILE, text(file_width)), (REASON, text(reason_width))
    return np.dtype([("image", "<i4"), *reasons])
