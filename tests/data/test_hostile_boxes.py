"""Boxes files that this program did not write, or that are no longer as it wrote them."""

import json
import os
import struct
import subprocess
import sys
import zlib
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest

from agnet.data.boxes import schema
from agnet.data.boxes.reader import Boxes, read_boxes, read_listing
from agnet.data.errors import BoxesFileError

PATH = "path_relative_to_the_dataset_root"
CLASS = "name_of_the_class"

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs pipes and limits of a process")


def write_by_the_page(path, **storage):
    """A boxes file as the page "The boxes file" tells strangers to write one, and no more than that."""
    images = [
        (0, "1.png", "b", "train", "ok", 0, 40, 30, 9, 9, 3, 1, "b/1.png", 100, "", "00" * 8),
        (1, "broken.png", "b", "train", "unreadable", -1, 0, 0, 0, 0, 0, 1, "b/broken.png", 7, "", ""),
        (2, "é.png", "a", "test", "few keypoints", 2, 20, 10, 0, 0, 1, 0, "a/é.png", 300, "", "11" * 8),
    ]
    image_columns = "image:i4 name_of_the_image_file_and_ending:S10 class_of_the_image:S1 split:S5 "
    image_columns += "status_of_the_image:S13 first_row_in_primary:i8 width:i4 height:i4 keypoints:i4 "
    image_columns += f"distinct_keypoints:i4 distinct_regions:i2 label:i2 {PATH}:S12 file_bytes:i8 modified_utc:S29 "
    image_columns += "content_blake2b:S16"
    hulls = [[(1, 2), (9, 2), (5, 8)], [(20, 3), (28, 19.5)]] + [[(0, 0), (20, 0), (20, 10), (0, 10)]] * 2
    primary, vertices = [], []
    for (image, region, keypoints), hull in zip([(0, 0, 7), (0, 1, 2), (2, 0, 0), (2, 1, 0)], hulls, strict=True):
        box = [*np.min(hull, axis=0), *np.max(hull, axis=0)]
        primary.append((image, region, *box, keypoints, 0.5, len(vertices), len(hull)))
        vertices += [(image, region, *vertex) for vertex in hull]
    tables = {
        "images": (images, image_columns),
        "labels": (
            [(0, "a", 0, 0, 1), (1, "b", 2, 0, 0)],
            f"label:i2 {CLASS}:S1 images_in_train:i4 images_in_val:i4 images_in_test:i4",
        ),
        "primary": (
            primary,
            "image:i4 region:i2 x0:f4 y0:f4 x1:f4 y1:f4 keypoints:i4 weight:f4 hull_first:i4 hull_count:i4",
        ),
        "hulls": (vertices, "image:i4 region:i2 x:f4 y:f4"),
        "failures": (
            [(1, "not an image", "broken.png", "no image")],
            "image:i4 what_is_wrong_with_it:S12 name_of_the_image_file:S10 "
            "the_whole_reason_why_this_image_could_not_be_used_for_any_regions:S8",
        ),
    }
    with h5py.File(path, "w", libver=("earliest", "v110")) as file:
        for name, (rows, columns) in tables.items():
            dtype = np.dtype([tuple(column.split(":")) for column in columns.split()])
            encoded = [tuple(cell.encode() if isinstance(cell, str) else cell for cell in row) for row in rows]
            file.create_dataset(name, data=np.array(encoded, dtype), **storage)
        file.attrs["format"], file.attrs["format_version"] = np.bytes_("agnet boxes"), schema.FORMAT_VERSION
        file.attrs["settings"] = np.bytes_(json.dumps({"dataset": {"name": "x"}, "proposals": {"primary": 2}}))
        file.attrs["fingerprint"], file.attrs["complete"] = np.bytes_("mine"), 1
    return path


@pytest.mark.parametrize("storage", [{}, {"compression": "gzip", "shuffle": True, "fletcher32": True}])
def test_a_stranger_can_write_a_file_from_the_page(tmp_path, storage):
    boxes = read_boxes(write_by_the_page(tmp_path / "boxes.h5", **storage))
    assert boxes.classes == ("a", "b")
    assert [name.decode() for name in boxes.names] == ["b/1.png", "b/broken.png", "a/é.png"]
    assert boxes.primary_xyxy.tolist() == [[[1, 2, 9, 8], [20, 3, 28, 19.5]], [[0, 0, 20, 10]] * 2]
    assert boxes.regions(1).hull_xy.tolist() == [[0, 0], [20, 0], [20, 10], [0, 10]] * 2
    assert boxes.failures == (("b/broken.png", "no image"),) and boxes.faults == ("not an image",)


def same_content(one, other):
    """Whether two files were read alike; their paths may differ."""
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Boxes) if field.name != "path"]
    return all(np.array_equal(*pair) if isinstance(pair[0], np.ndarray) else pair[0] == pair[1] for pair in pairs)


def remake(file, name, rows=None, **options):
    """Replace a table, keeping its rows unless others are given."""
    old = file[name][:]
    del file[name]
    if "shape" not in options:
        options["data"] = old if rows is None else rows
    return file.create_dataset(name, dtype=options.pop("dtype", None), **options)


def with_cell(table, row, column, value):
    def damage(file):
        rows = file[table][:]
        rows[column][row] = value
        file[table][:] = rows

    return damage


def with_column_type(table, column, kind):
    def damage(file):
        old = file[table][:]
        dtype = np.dtype([(name, kind if name == column else old.dtype[name]) for name in old.dtype.names])
        rows = np.zeros(len(old), dtype)
        remake(file, table, rows)

    return damage


def without(table, *columns):
    def damage(file):
        old = file[table][:]
        kept = [(name, old.dtype[name]) for name in old.dtype.names if name not in columns]
        rows = np.zeros(len(old), kept)
        for name, _ in kept:
            rows[name] = old[name]
        remake(file, table, rows)

    return damage


def with_variable_length_text(file):
    rows = [(row["label"], row["name_of_the_class"].decode(), 0, 0, 0) for row in file["labels"][:]]
    kinds = [("label", "<i2"), ("name_of_the_class", h5py.string_dtype()), *file["labels"].dtype.descr[2:]]
    remake(file, "labels", np.array(rows, np.dtype(kinds)))


def remake_compact(file, name):
    """Replace a table by one whose rows lie within its header."""
    rows, kinds = file[name][:], file[name].id.get_type()
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.COMPACT)
    del file[name]
    table = h5py.h5d.create(file.id, name.encode(), kinds, h5py.h5s.create_simple(rows.shape), creation)
    table.write(h5py.h5s.ALL, h5py.h5s.ALL, rows)


def copied(path, to, **options):
    """The same content in a file made with other options of `h5py.File`."""
    with h5py.File(path) as old, h5py.File(to, "w", **options) as new:
        for name in old:
            new.create_dataset(name, data=old[name][:], chunks=True, compression="gzip") if name != "preview" else None
        new.attrs.update(old.attrs)
    return to


def with_external_storage(file):
    aside = Path(file.filename).with_name("aside.bin")
    old = file["primary"][:]
    aside.write_bytes(old.tobytes())
    remake(file, "primary", shape=old.shape, dtype=old.dtype, external=[(str(aside), 0, h5py.h5f.UNLIMITED)])


def with_virtual_table(file):
    aside = Path(file.filename).with_name("aside.h5")
    old = file["primary"][:]
    with h5py.File(aside, "w") as other:
        other["primary"] = old
    layout = h5py.VirtualLayout(shape=old.shape, dtype=old.dtype)
    layout[:] = h5py.VirtualSource(str(aside), "primary", shape=old.shape, dtype=old.dtype)
    del file["primary"]
    file.create_virtual_dataset("primary", layout)


def with_soft_link(file):
    file.move("primary", "elsewhere")
    file["primary"] = h5py.SoftLink("/elsewhere")


def with_external_link(file):
    aside = Path(file.filename).with_name("aside.h5")
    with h5py.File(aside, "w") as other:
        other["primary"] = file["primary"][:]
    del file["primary"]
    file["primary"] = h5py.ExternalLink(str(aside), "/primary")


def with_a_type_for_a_table(file):
    dtype = file["hulls"].dtype
    del file["hulls"]
    file["hulls"] = dtype


def with_references(file):
    kinds = [(name, h5py.ref_dtype if name == "image" else kind) for name, kind in file["hulls"].dtype.descr]
    remake(file, "hulls", shape=(3,), dtype=np.dtype(kinds))


def with_a_number_of_odd_bits(file):
    """What h5py takes for an int16 that has, in truth, 12 bits."""
    kinds = h5py.h5t.py_create(file["labels"].dtype)
    narrow = h5py.h5t.STD_I16LE.copy()
    narrow.set_precision(12)
    odd = h5py.h5t.create(h5py.h5t.COMPOUND, kinds.get_size())
    for column in range(kinds.get_nmembers()):
        kind = narrow if column == 0 else kinds.get_member_type(column)
        odd.insert(kinds.get_member_name(column), kinds.get_member_offset(column), kind)
    shape = file["labels"].shape
    del file["labels"]
    h5py.h5d.create(file.id, b"labels", odd, h5py.h5s.create_simple(shape))


def with_a_group_for_a_table(file):
    del file["hulls"]
    file.create_group("hulls")


def with_attribute(name, value):
    def damage(file):
        file.attrs[name] = np.bytes_(value) if isinstance(value, str) else value

    return damage


def with_variable_length_attribute(file):
    file.attrs["fingerprint"] = "f" * 32


def with_a_reference_for_an_attribute(file):
    file.attrs["best"] = file["primary"].ref


def without_attribute(name):
    return lambda file: file.attrs.__delitem__(name)


def with_setting(name, value):
    def damage(file):
        settings = json.loads(file.attrs["settings"])
        settings["proposals"][name] = value
        file.attrs["settings"] = np.bytes_(json.dumps(settings))

    return damage


def without_regions_by_its_settings(file):
    with_setting("primary", 0)(file)
    with_setting("kinds", "none")(file)
    with_cell("images", slice(None), "first_row_in_primary", -1)(file)


def with_columns(table, **values):
    """More columns, which `schema.COLUMNS` has in their place, each of one value."""

    def damage(file):
        old = file[table][:]
        known = [name for name in schema.COLUMNS[table].names if name in old.dtype.names or name in values]
        kinds = {name: old.dtype[name] for name in old.dtype.names} | {
            name: np.dtype(f"S{len(value)}") if isinstance(value, bytes) else schema.COLUMNS[table][name]
            for name, value in values.items()
        }
        rows = np.zeros(len(old), np.dtype([(name, kinds[name]) for name in known]))
        for name in known:
            rows[name] = values[name] if name in values else old[name]
        remake(file, table, rows)

    return damage


def with_two_columns_swapped(file):
    old = file["images"][:]
    first, second, *others = old.dtype.names
    names = [second, first, *others]
    rows = np.zeros(len(old), np.dtype([(name, old.dtype[name]) for name in names]))
    for name in names:
        rows[name] = old[name]
    remake(file, "images", rows)


def with_fewer_rows(table, start, stop):
    return lambda file: remake(file, table, file[table][start:stop])


def with_a_moved_hull(file):
    rows = file["primary"][:]
    rows["hull_count"][0] += 1
    rows["hull_count"][1] -= 1
    file["primary"][:] = rows


def with_swapped_images(file):
    rows = file["primary"][:]
    rows[:6] = np.concatenate([rows[3:6], rows[:3]])
    file["primary"][:] = rows


def with_a_row_twice(table, column):
    def damage(file):
        rows = file[table][:]
        rows[column][1] = rows[column][0]
        file[table][:] = rows

    return damage


def with_a_vertex_less(file):
    """The first hull loses its leftmost vertex, consistently in all tables: its box stays."""
    primary, hulls = file["primary"][:], file["hulls"][:]
    first = primary["hull_count"][0]
    primary["hull_count"][0] -= 1
    primary["hull_first"][1:] -= 1
    file["primary"][:] = primary
    remake(file, "hulls", np.delete(hulls, hulls["x"][:first].argmin()))


def with_chunk(stored, skipped=0, **options):
    """The table hulls in one chunk of gzip, replaced by ``stored``."""

    def damage(file):
        rows = file["hulls"][:]
        table = remake(file, "hulls", rows, compression="gzip", **{"chunks": rows.shape, **options})
        content = stored(rows.tobytes()) if callable(stored) else stored
        table.id.write_direct_chunk((0,), content, skipped)

    return damage


def with_filters(*filters):
    """The table hulls in small chunks, stored by HDF5 through ``filters``, in their order."""

    def damage(file):
        rows, kinds = file["hulls"][:], file["hulls"].id.get_type()
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((7,))
        for name in filters:
            getattr(creation, f"set_{name}")()
        del file["hulls"]
        table = h5py.h5d.create(file.id, b"hulls", kinds, h5py.h5s.create_simple(rows.shape), creation)
        table.write(h5py.h5s.ALL, h5py.h5s.ALL, rows)

    return damage


REFUSED = {
    "no mark complete": (without_attribute("complete"), "incomplete"),
    "mark complete taken back": (with_attribute("complete", 0), "incomplete"),
    "another format": (with_attribute("format", "other boxes"), "not a boxes file"),
    "another version": (with_attribute("format_version", 999), "format version 999, this program reads"),
    "no settings": (without_attribute("settings"), "settings is not a JSON object"),
    "settings that are no JSON": (with_attribute("settings", "{"), "settings is not a JSON object"),
    "settings that are no object": (with_attribute("settings", "[1]"), "settings is not a JSON object"),
    "settings without sections": (
        with_attribute("settings", '{"primary": 3}'),
        "settings is not a JSON object",
    ),
    "settings nested thousands deep": (with_attribute("settings", "[" * 60_000), "settings is not a JSON"),
    "a version in two lines": (with_attribute("format_version", "2\n2"), r"format version '2\\n2', this program"),
    "no fingerprint": (without_attribute("fingerprint"), "fingerprint"),
    "a fingerprint that is a number": (with_attribute("fingerprint", 7), "fingerprint"),
    "a fingerprint that is no text": (with_attribute("fingerprint", np.bytes_(b"\xff")), "'fingerprint': .*UTF-8"),
    "text of variable length": (with_variable_length_attribute, "'fingerprint' is text of variable length"),
    "a hundred attributes too many": (
        lambda file: file.attrs.update({f"n{number}": 0 for number in range(100)}),
        "more than 100 root attributes",
    ),
    "a reference for an attribute": (with_a_reference_for_an_attribute, "'best' is not a single"),
    "a compound for an attribute": (with_attribute("pair", np.zeros((), "i4,i4")), "'pair' is not a single"),
    "an opaque attribute": (with_attribute("raw", np.void(b"raw")), "'raw' is not a single"),
    "an array for an attribute": (with_attribute("seeds", np.arange(4)), "'seeds' is not a single"),
    "an empty attribute": (with_attribute("nothing", h5py.Empty("i4")), "'nothing' is not a single"),
    "no primaries": (with_setting("primary", 0), "wanted 2 to 36"),
    "absurdly many primaries": (with_setting("primary", 10**9), "wanted 2 to 36"),
    "more digits than numbers have": (with_setting("primary", 10**4000), "wanted 2 to 36"),
    "primaries in words": (with_setting("primary", "3"), "primary'"),
    "primaries that are true": (with_setting("primary", True), "wanted the number .*, got True"),
    "a part of a primary": (with_setting("primary", 3.0), "primary'"),
    "unknown kinds": (with_setting("kinds", "all"), "'kinds': wanted one of both"),
    "kinds in a list": (with_setting("kinds", ["both"]), "kinds': wanted text"),
    "another number of primaries": (with_setting("primary", 2), "first_row_in_primary"),
    "no regions where there are some": (without_regions_by_its_settings, "primary: exists, though"),
    "a missing table": (lambda file: file.__delitem__("hulls"), "'hulls' is missing"),
    "a group for a table": (with_a_group_for_a_table, "'hulls' is not a one-dimensional table"),
    "a type for a table": (with_a_type_for_a_table, "'hulls' is not a one-dimensional table"),
    "two dimensions": (
        lambda file: remake(file, "hulls", file["hulls"][:].reshape(1, -1)),
        "'hulls' is not a one-dimensional table",
    ),
    "a scalar for a table": (lambda file: remake(file, "hulls", file["hulls"][0]), "one-dimensional"),
    "external storage": (with_external_storage, "other files"),
    "a virtual table": (with_virtual_table, "other files"),
    "a soft link": (with_soft_link, "link to another place"),
    "an external link": (with_external_link, "link to another place"),
    "a foreign filter": (lambda file: remake(file, "hulls", compression="lzf"), "filters other than gzip"),
    "doubles for floats": (with_column_type("primary", "x0", "<f8"), "<f8 in column 'x0', wanted <f4"),
    "references for numbers": (with_references, "TypeReferenceID in column 'image', wanted <i4"),
    "a number of odd bits": (with_a_number_of_odd_bits, "column 'label'"),
    "floats for integers": (with_column_type("images", "label", "<f4"), "column 'label'"),
    "big-endian numbers": (with_column_type("hulls", "y", ">f4"), ">f4 in column 'y', wanted <f4"),
    "numbers for text": (
        with_column_type("labels", "name_of_the_class", "<i4"),
        "column 'name_of_the_class'",
    ),
    "text of kilobytes a cell": (
        with_column_type("labels", "name_of_the_class", "S5000"),
        "name_of_the_class",
    ),
    "a column of arrays": (with_column_type("primary", "weight", ("<f4", (3,))), "column 'weight'"),
    "variable-length text": (with_variable_length_text, "variable-length .*name_of_the_class"),
    "a column missing": (without("primary", "weight"), "has columns"),
    "no columns": (lambda file: remake(file, "hulls", np.zeros(5, "<f4")), "has no columns"),
    "a million million rows": (
        lambda file: remake(file, "primary", shape=(10**12,), dtype=file["primary"].dtype, chunks=(64,)),
        "announces 1,000,000,000,000 rows",
    ),
    "more rows than it holds": (
        lambda file: remake(file, "hulls", shape=(10**8,), dtype=file["hulls"].dtype, chunks=(64,)),
        "announces 100,000,000 rows",
    ),
    "rows that were never written": (
        lambda file: remake(file, "hulls", shape=file["hulls"].shape, dtype=file["hulls"].dtype),
        "more rows than it holds",
    ),
    "chunks that were never written": (
        lambda file: remake(file, "hulls", shape=file["hulls"].shape, dtype=file["hulls"].dtype, chunks=(64,)),
        "damaged",
    ),
    "a chunk that inflates to more": (with_chunk(lambda rows: zlib.compress(rows + b"\0")), "'hulls'.*another size"),
    "a chunk of less, uncompressed": (with_chunk(lambda rows: rows[:-1], skipped=1), "'hulls'.*another size"),
    "a chunk cut short": (with_chunk(lambda rows: zlib.compress(rows)[:-1]), "'hulls'.*another size"),
    "a chunk that is no gzip": (with_chunk(b"hello"), "'hulls' is damaged at row 0"),
    "a chunk stored in too many bytes": (with_chunk(bytes(10**6)), "not an HDF5 file, or damaged"),
    "a wrong checksum": (
        with_chunk(lambda rows: zlib.compress(rows) + bytes(4), fletcher32=True),
        "'hulls'.*wrong checksum",
    ),
    "a chunk without room for its checksum": (with_chunk(b"\0", fletcher32=True), "'hulls' is damaged"),
    "twice the same filter": (with_filters("deflate", "deflate"), "filters other than"),
    "chunks that need gigabytes": (
        lambda file: remake(
            file,
            "hulls",
            shape=file["hulls"].shape,
            dtype=file["hulls"].dtype,
            chunks=(2**27,),
            maxshape=(None,),
        ),
        "chunks of 134,217,728 rows",
    ),
    "no rows": (with_fewer_rows("images", 0, 0), "none is usable"),
    "an image too few": (with_fewer_rows("images", 0, -1), "primary: .* rows, wanted .* for each usable image"),
    "a class too few": (with_fewer_rows("labels", 0, -1), "a label without a class"),
    "classes from 1": (with_fewer_rows("labels", 1, 3), "not numbered"),
    "hulls too few": (with_fewer_rows("hulls", 0, -1), "hulls: .* the sum of primary's hull_count"),
    "an unknown status": (with_cell("images", 0, "status_of_the_image", b"fine"), "a status_of_the_image other than"),
    "an unknown split": (with_cell("images", 0, "split", b"dev"), "a split other than"),
    "a label below 0": (with_cell("images", 0, "label", -1), "a label without a class"),
    "an image no pixel wide": (with_cell("images", 0, "width", 0), "width or height"),
    "a box with NaN": (with_cell("primary", 2, "x0", np.nan), "not finite"),
    "a box without end": (with_cell("primary", 2, "y1", np.inf), "not finite"),
    "a box from right to left": (with_cell("primary", 2, "x1", 0), "a box that is empty"),
    "a box left of its image": (with_cell("primary", 2, "x0", -1), "not in its image"),
    "a box below its image": (with_cell("primary", 2, "y1", 1000), "not in its image"),
    "a weight that is NaN": (with_cell("primary", 2, "weight", np.nan), "weight"),
    "a weight above 1": (with_cell("primary", 2, "weight", 7), "weight"),
    "a box that is not its hull's": (with_cell("primary", 2, "x0", 0.25), "off the box of its hull"),
    "a hull that is not its box's": (with_a_vertex_less, "off the box of its hull"),
    "keypoints below 0": (with_cell("primary", 2, "keypoints", -5), "keypoints"),
    "fewer keypoints than none": (with_cell("images", 0, "keypoints", -1), "below 0 in column 'keypoints'"),
    "a file of fewer bytes than none": (with_cell("images", 0, "file_bytes", -1), "column 'file_bytes'"),
    "fewer images than none": (with_cell("labels", 1, "images_in_val", -1), "column 'images_in_val'"),
    "a vertex with NaN": (with_cell("hulls", 2, "x", np.nan), "a vertex outside"),
    "a vertex left of its image": (with_cell("hulls", 2, "x", -1), "a vertex outside"),
    "vertices infinitely far off": (with_cell("hulls", slice(0, 2), "x", [np.inf, -np.inf]), "a vertex outside"),
    "a vertex outside": (with_cell("hulls", 2, "y", 1e6), "a vertex outside"),
    "regions out of order": (with_cell("primary", 2, "region", 0), "regions out of order"),
    "images out of order": (with_swapped_images, "not sorted by image"),
    "an image that does not exist": (with_cell("primary", 2, "image", 10_000), "not sorted by image"),
    "an empty hull": (with_cell("primary", 2, "hull_count", 0), "hull_count"),
    "a hull of another region": (with_a_moved_hull, "hull_first"),
    "a vertex of another image": (with_cell("hulls", 0, "image", 1), "hulls: rows are not sorted"),
    "a vertex of another region": (with_cell("hulls", 0, "region", 1), "hulls: rows are not sorted"),
    "vertices that were never written": (
        lambda file: remake(file, "hulls", np.zeros(file["hulls"].shape, file["hulls"].dtype)),
        "hulls: rows are not sorted",
    ),
    "more vertices than int32 counts": (with_cell("primary", slice(None), "hull_count", 2**31 - 1), "hulls: .* wanted"),
    "a hull before the first": (with_cell("primary", 0, "hull_first", -1), "hull_first"),
    "a path up": (with_cell("images", 1, PATH, b"../secret.png"), "leaves the data set's root"),
    "a path up from within": (with_cell("images", 1, PATH, b"a/../../secret"), "leaves the data set's root"),
    "an absolute path": (with_cell("images", 1, PATH, b"/etc/hosts"), "leaves the data set's root"),
    "a path with a drive": (with_cell("images", 1, PATH, b"C:secret"), "leaves the data set's root"),
    "a path of another system": (with_cell("images", 1, PATH, b"a\\b"), "leaves the data set's root"),
    "a path with a hole": (with_cell("images", 1, PATH, b"a\0b"), "control characters"),
    "a path in two lines": (with_cell("images", 1, PATH, b"a\nb"), "control characters"),
    "a path of no length": (with_cell("images", 1, PATH, b""), "leaves the data set's root"),
    "a path that is no text": (with_cell("images", 1, PATH, b"a\xff\xfe"), "images: .*UTF-8"),
    "a class that is no text": (with_cell("labels", 1, CLASS, b"\xff\xfe"), "labels: .*UTF-8"),
    "a path named twice": (with_a_row_twice("images", PATH), "a path is listed twice"),
    "images from 1": (with_cell("images", slice(None), "image", 1), "images: not numbered"),
    "another file's name": (with_cell("images", 1, "name_of_the_image_file_and_ending", b"9.png"), "not its path's"),
    "another class's name": (with_cell("images", 1, "class_of_the_image", b"bee"), "a class that is not its label's"),
    "another image's first row": (with_cell("images", 1, "first_row_in_primary", 0), "first_row_in_primary"),
    "a row beyond all": (with_cell("images", 1, "first_row_in_primary", 2**62), "first_row_in_primary"),
    "columns in another order": (with_two_columns_swapped, "'images' has columns"),
    "a group in two lines": (with_columns("images", group=b"a\nb"), "control characters"),
    "a camera that is no text": (with_columns("images", camera=b"\xff"), "UTF-8"),
    "a group in kilobytes": (with_columns("images", group=b"g" * 5000), "column 'group'"),
    "frames from nowhere": (with_columns("images", frames=8), "clips have the columns"),
    "a clip of no frame": (
        with_columns("images", first_frame=0, frames=0, frames_a_second=25.0),
        "a clip without frames",
    ),
    "a clip before the beginning": (
        with_columns("images", first_frame=-1, frames=8, frames_a_second=25.0),
        "a clip without frames",
    ),
    "frames at no rate": (
        with_columns("images", first_frame=0, frames=8, frames_a_second=np.nan),
        "a frames_a_second that is not a number above 0",
    ),
    "regions of a second frame": (with_columns("primary", frame=1), "a frame other than 0"),
    "a region that was filled in": (with_columns("primary", valid=0), "a valid other than 1"),
    "fewer queries than none": (with_columns("labels", images_in_query=-1), "column 'images_in_query'"),
    "a class named twice": (with_a_row_twice("labels", CLASS), "a class is listed twice"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_damaged_or_hostile_file_is_refused(what, boxes_file):
    damage, complaint = REFUSED[what]
    read_boxes(boxes_file)
    with h5py.File(boxes_file, "r+") as file:
        damage(file)
    with pytest.raises(BoxesFileError, match=complaint) as refusal:
        read_boxes(boxes_file)
    assert str(refusal.value).startswith(str(boxes_file))
    assert "\n" not in str(refusal.value)


REFUSED_OF_CLIPS = {
    "no number of frames": (without("images", "frames"), "clips have the columns"),
    "no first frame and no rate": (without("images", "first_frame", "frames_a_second"), "clips have the columns"),
    "regions without their frames": (without("primary", "frame"), "clips need the column 'frame'"),
    "regions that may be filled in": (without("primary", "valid"), "clips need the column 'valid'"),
    "a clip of no frame": (with_cell("images", 0, "frames", 0), "a clip without frames"),
    "frames at no rate": (with_cell("images", 0, "frames_a_second", 0), "a frames_a_second that is not"),
    "frames at an endless rate": (with_cell("images", 0, "frames_a_second", np.inf), "a frames_a_second that is not"),
    "a frame before the first": (with_cell("primary", [0, 1], "frame", -1), "a frame that no clip has"),
    "a frame behind the last": (with_cell("primary", [12, 13], "frame", 14), "a frame that no clip has"),
    "the highest number": (with_cell("primary", [12, 13], "frame", 2**15 - 1), "a frame that no clip has"),
    "frames that go back": (with_cell("primary", [2, 3], "frame", 6), "not sorted by frame"),
    "a frame twice": (with_cell("primary", [2, 3], "frame", 0), "not sorted by frame"),
    "one frame in two": (with_cell("primary", 1, "frame", 1), "frames out of order"),
    "half a frame": (with_fewer_rows("primary", 0, -1), "a frame without all of its regions"),
    "a frame of region 0 alone": (with_cell("primary", 1, "region", 0), "regions out of order"),
    "half valid": (with_cell("primary", 3, "valid", 2), "a valid other than 0 and 1"),
    "less than not valid": (with_cell("primary", 3, "valid", -1), "a valid other than 0 and 1"),
    "a frame of the next clip": (with_cell("primary", [12, 13], "image", 1), "not sorted by frame"),
    "a frame of no clip": (with_cell("primary", [12, 13], "image", 2**31 - 1), "not sorted by image"),
    "a frame before all clips": (with_cell("primary", [0, 1], "image", -1), "not sorted by image"),
    "a clip without regions": (with_cell("primary", slice(0, 14), "image", 1), "not sorted by image"),
    "a frame shared by two clips": (with_cell("primary", 13, "image", 1), "not sorted by image"),
    "another clip's first row": (with_cell("images", 1, "first_row_in_primary", 12), "that is not its first"),
    "a row beyond all": (with_cell("images", 11, "first_row_in_primary", 2**62), "that is not its first"),
    "no first row": (with_cell("images", 0, "first_row_in_primary", -1), "that is not its first"),
    "columns of images": (without("images", "first_frame", "frames", "frames_a_second"), "first_row_in_primary"),
}


@pytest.mark.parametrize("what", REFUSED_OF_CLIPS)
def test_a_damaged_or_hostile_file_of_clips_is_refused(what, clip_boxes, tmp_path):
    path = tmp_path / "clips.h5"
    path.write_bytes(clip_boxes.path.read_bytes())
    damage, complaint = REFUSED_OF_CLIPS[what]
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(BoxesFileError, match=complaint) as refusal:
        read_boxes(path)
    assert str(refusal.value).startswith(f"{path}: ") and "\n" not in str(refusal.value)


def test_an_absent_file_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(BoxesFileError, match=r"there is no boxes file .*agnet propose"):
        read_boxes(tmp_path / "absent.h5")


@pytest.mark.parametrize("read", [read_boxes, read_listing])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(2000)])
def test_a_file_that_is_not_hdf5_is_refused(content, read, tmp_path):
    path = tmp_path / "boxes.h5"
    path.write_bytes(content)
    with pytest.raises(BoxesFileError, match="not an HDF5 file"):
        read(path)


@pytest.mark.parametrize("read", [read_boxes, read_listing])
def test_someone_elses_hdf5_file_is_refused(read, tmp_path):
    path = tmp_path / "boxes.h5"
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((2, 3))
    with pytest.raises(BoxesFileError, match="not a boxes file"):
        read(path)


FINE = {
    "no filter": with_filters(),
    "gzip": with_filters("deflate"),
    "shuffle": with_filters("shuffle"),
    "a checksum": with_filters("fletcher32"),
    "all filters": with_filters("shuffle", "deflate", "fletcher32"),
    "all filters, the other way round": with_filters("fletcher32", "deflate", "shuffle"),
    "a checksum first": with_filters("fletcher32", "shuffle", "deflate"),
    "a checksum between": with_filters("shuffle", "fletcher32", "deflate"),
    "a chunk whose filter was left out": with_chunk(lambda rows: rows, skipped=1),
    "no chunks": lambda file: remake(file, "hulls"),
    "stored within the header": lambda file: remake_compact(file, "labels"),
    "a table under two names": lambda file: file.__setitem__("another name", file["primary"]),
    "columns of clips in primary": with_columns("primary", frame=0, valid=1),
    "other splits' numbers": with_columns("labels", images_in_query=0, images_in_gallery=7),
    "links that nobody needs": lambda file: file.update(
        {"outside": h5py.ExternalLink("/nowhere.h5", "/x"), "preview/gone": h5py.SoftLink("/nowhere")}
    ),
}


@pytest.mark.parametrize("what", FINE)
def test_content_may_be_stored_in_any_way_that_is_safe(what, boxes_file):
    before = read_boxes(boxes_file)
    with h5py.File(boxes_file, "r+") as file:
        FINE[what](file)
    assert same_content(read_boxes(boxes_file), before)


@pytest.mark.parametrize("options", [{"userblock_size": 512}, {"libver": "latest"}, {"libver": ("v108", "v110")}])
def test_every_version_of_the_container_is_read(options, boxes_file, tmp_path):
    copy = copied(boxes_file, tmp_path / "copy.h5", **options)
    assert same_content(read_boxes(copy), read_boxes(boxes_file))


def test_a_huge_attribute_is_not_read(boxes_file, tmp_path):
    copy = copied(boxes_file, tmp_path / "copy.h5", libver="latest")
    with h5py.File(copy, "r+") as file:
        file.attrs["huge"] = np.bytes_(b"x" * 2_000_000)
    with pytest.raises(BoxesFileError, match="'huge' is not a single number or text"):
        read_boxes(copy)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ((0, b"cut off", b"broken.png", b"no image"), "not the unreadable images"),
        ((1, b"cut off", b"1.png", b"no image"), "a file that is not its image's"),
        ((1, b"cut off", b"broken.png", b"no\nimage"), "control characters"),
        ((1, b"cut\noff", b"broken.png", b"no image"), "control characters"),
    ],
)
def test_failures_that_fit_no_image_are_refused(row, complaint, tmp_path):
    path = write_by_the_page(tmp_path / "boxes.h5")
    with h5py.File(path, "r+") as file:
        file["failures"][0] = row
    with pytest.raises(BoxesFileError, match=complaint):
        read_boxes(path)


def test_a_table_shuffled_by_another_width_is_refused(boxes_file):
    content = boxes_file.read_bytes()
    of_hulls = b"shuffle\0" + struct.pack("<I", schema.HULLS.itemsize)
    assert content.count(of_hulls) == 1
    boxes_file.write_bytes(content.replace(of_hulls, b"shuffle\0" + struct.pack("<I", 7)))
    with pytest.raises(BoxesFileError, match="'hulls' is shuffled by another width"):
        read_boxes(boxes_file)


@posix_only
@pytest.mark.parametrize("read", [read_boxes, read_listing])
def test_only_regular_files_are_opened(read, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(BoxesFileError, match="not a file, but a folder or device"):
            read(path)


@posix_only
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_says_so(boxes_file):
    boxes_file.chmod(0)
    with pytest.raises(BoxesFileError, match="no permission"):
        read_boxes(boxes_file)


def test_a_part_of_several_files_does_not_lead_to_the_others(tmp_path):
    with h5py.File(tmp_path / "boxes%d.h5", "w", driver="family", memb_size=4096) as file:
        file["x"] = np.arange(3000)
    with h5py.File(tmp_path / "boxes", "w", driver="split") as file:
        file["x"] = np.arange(3000)
    for path in (tmp_path / "boxes0.h5", tmp_path / "boxes-m.h5"):
        with pytest.raises(BoxesFileError, match="not an HDF5 file, or damaged"):
            read_boxes(path)


# The rest runs in processes of its own: should the C library crash, hang or run away with memory, one test fails
# rather than the suite.

PRELUDE = """
import resource, sys
from pathlib import Path
import numpy as np
from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import BoxesFileError

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
before = peak()
path = Path(sys.argv[1])
"""

READ = """
try:
    read_boxes(path)
    print("accepted")
except BoxesFileError as error:
    print(error)
print(peak() - before)
"""


def run(program, *arguments, timeout):
    """The lines a program printed; the last says by how many MB its memory grew."""
    command = [sys.executable, "-c", PRELUDE + program, *map(str, arguments)]
    # With a thread for each of a hundred cores, numpy alone would reserve what the limits below allow.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    *lines, megabytes = done.stdout.splitlines()
    return lines, int(megabytes)


def deflated_zeros(megabytes):
    """The same blocks for every megabyte: deflating a gigabyte takes seconds."""
    deflater = zlib.compressobj(wbits=-15)
    each = deflater.compress(bytes(2**20)) + deflater.flush(zlib.Z_FULL_FLUSH)
    adler32 = (megabytes * 2**20 % 65521) << 16 | 1
    return b"\x78\x9c" + each * megabytes + deflater.flush() + struct.pack(">I", adler32)


def with_damaged_reference(length=None, heap_object=None):
    """An attribute of 1,000 letters in the file's heap; then another length in the reference, or in the heap."""

    def damage(path):
        with h5py.File(path, "r+") as file:
            file.attrs["fingerprint"] = "f" * 1000
        content = bytearray(path.read_bytes())
        heap = content.index(b"GCOL")
        reference = content.index(struct.pack("<IQ", 1000, heap))
        stored = content.index(struct.pack("<Q", 1000), heap)
        if length:
            content[reference : reference + 4] = struct.pack("<I", length)
        if heap_object:
            content[stored : stored + 8] = struct.pack("<Q", heap_object)
        path.write_bytes(content)

    return damage


def with_a_virtual_shape(file):
    """A virtual table without end: asking for its length opens the file it comes from."""
    endless = (h5py.h5s.UNLIMITED,)
    source, view = h5py.h5s.create_simple((10,), endless), h5py.h5s.create_simple((0,), endless)
    for space in (source, view):
        space.select_hyperslab((0,), (1,), (1,), endless)
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_virtual(view, b"pipe", b"x", source)
    kinds = file["hulls"].id.get_type()
    del file["hulls"]
    h5py.h5d.create(file.id, b"hulls", kinds, h5py.h5s.create_simple((0,), endless), creation)


def with_link_to_a_pipe(name):
    def damage(file):
        if name in file:
            del file[name]
        file[name] = h5py.ExternalLink("pipe", "/x")

    return damage


def inside(damage):
    def damage_file(path):
        with h5py.File(path, "r+") as file:
            damage(file)

    return damage_file


DANGEROUS = {
    "a chunk of a gigabyte in a megabyte": (inside(with_chunk(deflated_zeros(1024))), "damaged"),
    "a chunk of a gigabyte in the space of a large one": (
        inside(with_chunk(deflated_zeros(1024), chunks=(2**20,), maxshape=(None,), shuffle=True)),
        "another size",
    ),
    "a chunk that inflates to less": (inside(with_chunk(zlib.compress(bytes(80)))), "another size"),
    "a chunk of less, uncompressed": (inside(with_chunk(bytes(80), skipped=1)), "another size"),
    "a text that announces gigabytes": (with_damaged_reference(length=4_000_000_000), "text of variable length"),
    "a heap to walk forever": (with_damaged_reference(heap_object=3000), "text of variable length"),
    "a virtual table without end": (inside(with_a_virtual_shape), "other files"),
    "a table in a pipe": (inside(with_link_to_a_pipe("hulls")), "link to another place"),
    "failures in a pipe": (inside(with_link_to_a_pipe("failures")), "link to another place"),
    "pictures in a pipe": (inside(with_link_to_a_pipe("preview")), "accepted"),
}


@posix_only
@pytest.mark.parametrize("what", DANGEROUS)
def test_what_takes_memory_time_or_the_interpreter_is_not_touched(what, boxes_file):
    damage, complaint = DANGEROUS[what]
    damage(boxes_file)
    os.mkfifo(boxes_file.with_name("pipe"))  # whoever opens it waits for the test's end
    lines, megabytes = run(READ, boxes_file, timeout=120)
    assert len(lines) == 1 and complaint in lines[0]
    assert megabytes < 50


DAMAGE = """
from dataclasses import fields
if sys.platform == "linux":  # others do not know this limit
    resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))

def content_of(boxes):
    # The root attributes and the settings bear no checksum.
    kept = [getattr(boxes, field.name) for field in fields(boxes) if field.name not in NO_CHECKSUM]
    return [value.tolist() if isinstance(value, np.ndarray) else value for value in kept]

NO_CHECKSUM = ("path", "attributes", "settings", "dataset")
original = path.read_bytes()
good = content_of(read_boxes(path))
generator = np.random.default_rng(20)
flips, lengths = map(int, sys.argv[2:])

def damaged():
    for flip in range(flips):
        content = np.frombuffer(original, np.uint8).copy()
        places = generator.integers(len(content), size=generator.integers(1, 4))
        content[places] ^= generator.integers(1, 256, len(places)).astype(np.uint8)
        yield f"flip {flip} at {places.tolist()}", content.tobytes()
    for length in np.linspace(0, len(original) - 1, lengths).astype(int):
        yield f"cut to {length} bytes", original[:length]

refused = unchanged = 0
for what, content in damaged():
    path.write_bytes(content)
    try:
        boxes = read_boxes(path)
    except BoxesFileError as error:
        assert str(error).startswith(f"{path}: ") and "\\n" not in str(error), (what, str(error))
        refused += 1
        continue
    except BaseException as error:
        sys.exit(f"{what}: {type(error).__name__}: {error}")
    if content_of(boxes) != good:
        sys.exit(f"{what}: accepted with other content")
    assert not what.startswith("cut"), what
    unchanged += 1
print(refused, unchanged)
print(peak() - before)
"""


@posix_only
def test_flipped_bytes_and_cut_files_are_refused_or_harmless(tmp_path):
    path = write_by_the_page(tmp_path / "boxes.h5", compression="gzip", shuffle=True, fletcher32=True)
    (counts,), megabytes = run(DAMAGE, path, 1000, 100, timeout=600)
    refused, unchanged = map(int, counts.split())
    assert refused + unchanged == 1100
    assert refused > 200
    assert unchanged > 100
    assert megabytes < 200
