"""Exports for other tools: boxes, order and labels are those of a file made by hand, in every format."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import box_corners
from PIL import Image, ImageDraw
from report_runs import predictions_of, write_run

import agnet.data.exports.pictures as pictures
from agnet.data.boxes.reader import read_boxes
from agnet.data.boxes.writer import build_part, write_boxes
from agnet.data.contents import hash_of
from agnet.data.errors import ConfigurationError, DatasetError, MismatchError
from agnet.data.exports.export import export_data
from agnet.data.exports.selection import Predictions, select
from agnet.data.images import read_image, read_orientation
from agnet.data.index import build_index
from agnet.data.regions import Layout, Proposal, Regions

RED, BLUE, GREY = (230, 20, 20), (20, 20, 230), (128, 128, 128)
NAMES = ("one/a.png", "two/A.png", "turned.png", "broken.png")
# Upright size, and the first corner of a red square of 20 pixels and of a blue one of 16.
FACTS = {"one/a.png": ((80, 60), (10, 20), (50, 10)), "two/A.png": ((64, 48), (0, 0), (48, 32))}
FACTS["turned.png"] = ((60, 80), (10, 20), (40, 50))
# x, y, width, height: red, blue, and the box around both.
BOXES = {
    "one/a.png": [[10, 20, 20, 20], [50, 10, 16, 16], [10, 10, 56, 30]],
    "two/A.png": [[0, 0, 20, 20], [48, 32, 16, 16], [0, 0, 64, 48]],
    "turned.png": [[10, 20, 20, 20], [40, 50, 16, 16], [10, 20, 46, 46]],
}


def write_image(path, size, red, blue, turned):
    """Paint an upright image, and store it as a camera does that was held upright, if ``turned``."""
    image = Image.new("RGB", size, GREY)
    pen = ImageDraw.Draw(image)
    for (x, y), side, colour in ((red, 20, RED), (blue, 16, BLUE)):
        pen.rectangle((x, y, x + side - 1, y + side - 1), fill=colour)
    exif = Image.Exif()
    if turned:
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif[0x0112] = 6
    image.save(path, exif=exif)


def proposal(path, size, red, blue):
    status = path.stat()
    regions = Regions(
        hull_xy=np.concatenate([box_corners(*red, 20), box_corners(*blue, 16)]),
        hull_counts=np.array([4, 4], np.int32),
        keypoints=np.array([9, 3], np.int32),
        weights=np.array([0.75, 0.25], np.float32),
        size_wh=size,
        total_keypoints=12,
        distinct_keypoints=12,
        layout=Layout(2),
    )
    return Proposal(regions, status.st_size, status.st_mtime_ns, hash_of(path))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder with ``photos`` and ``boxes.h5``: two images in train, one in test that is turned by its metadata, and
    one that was unreadable.
    """
    folder = tmp_path_factory.mktemp("exports")
    root = folder / "photos"
    for name, facts in FACTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(root / name, *facts, turned=name == "turned.png")
    classes, splits = ("ant", "ant", "bée", "bée"), ("train", "train", "test", "test")
    index = build_index("folder", root, list(zip(NAMES, classes, splits, strict=True)))
    found = [proposal(root / name, *facts) for name, facts in FACTS.items()]
    part = build_part(index, 0, [*found, Proposal(None, reason="cut off", fault="cut off")])
    attributes = {"fingerprint": "e" * 32, "root_relative_to_this_file": "photos"}
    write_boxes(folder / "boxes.h5", index, [lambda: part], Layout(2), attributes, {"proposals": {"primary": 2}}, {})
    return folder


@pytest.fixture
def export(made, tmp_path):
    """A function that exports to a name in ``tmp_path`` and returns its path."""

    def run(format, name, split=None, **others):
        selection = select(read_boxes(made / "boxes.h5"), made / "photos", split, **others)
        return export_data(selection, format, tmp_path / name).path

    return run


def answers(classes=("ant", "bée")):
    """Predictions for train in another order than the file's."""
    return Predictions(("two/A.png", "one/a.png"), ("", ""), classes, np.array([1, 0]), np.array([0.6, 0.9]))


def test_coco_has_every_image_and_region_in_order_with_boxes_of_the_upright_photograph(export):
    found = json.loads(export("coco", "o.json").read_text())
    assert found["categories"] == [
        {"id": 1, "name": "primary", "supercategory": "region"},
        {"id": 2, "name": "secondary", "supercategory": "region"},
    ]
    assert [(image["id"], image["file_name"]) for image in found["images"]] == list(enumerate(NAMES[:3]))
    assert [(image["width"], image["height"]) for image in found["images"]] == [(80, 60), (64, 48), (60, 80)]
    assert [image.get("exif_orientation") for image in found["images"]] == [None, None, 6]
    assert [image["label"] for image in found["images"]] == ["ant", "ant", "bée"]
    rows = [(one["id"], one["image_id"], one["category_id"], one["slot"]) for one in found["annotations"]]
    wanted = [(image, category, slot) for image in range(3) for slot, category in enumerate((1, 1, 2))]
    assert rows == [(number, *row) for number, row in enumerate(wanted, 1)]
    assert [one["bbox"] for one in found["annotations"]] == [box for name in NAMES[:3] for box in BOXES[name]]
    assert [one["area"] for one in found["annotations"][:3]] == [400, 256, 1680]
    assert [one.get("score") for one in found["annotations"][:3]] == [0.75, 0.25, None]
    assert {one["iscrowd"] for one in found["annotations"]} == {0}


def test_coco_is_read_by_pycocotools(export, capsys):
    coco = pytest.importorskip("pycocotools.coco")
    api = coco.COCO(str(export("coco", "o.json", categories="slot")))
    assert [category["name"] for category in api.loadCats(api.getCatIds())] == [
        "primary-0",
        "primary-1",
        "secondary-0-1",
    ]
    (pair,) = api.loadAnns(api.getAnnIds(imgIds=[2], catIds=api.getCatIds(["secondary-0-1"])))
    assert pair["bbox"] == BOXES["turned.png"][2] and api.loadImgs([2])[0]["file_name"] == "turned.png"


def test_predictions_belong_to_their_image_in_whatever_order_they_come(export):
    images = json.loads(export("coco", "o.json", "train", predictions=answers()).read_text())["images"]
    assert [(one["file_name"], one["prediction"], one["confidence"]) for one in images] == [
        ("one/a.png", "ant", 0.9),
        ("two/A.png", "bée", 0.6),
    ]


def test_fiftyone_has_relative_boxes_ground_truth_and_prediction(export):
    folder = export("fiftyone", "o", "train", predictions=answers(), regions="secondary")
    assert json.loads((folder / "metadata.json").read_text())["info"]["classes"] == ["ant", "bée"]
    first, second = json.loads((folder / "samples.json").read_text())["samples"]
    assert (first["filepath"], first["tags"]) == ("one/a.png", ["train"])
    assert second["ground_truth"] == {"_cls": "Classification", "label": "ant"}
    assert second["prediction"] == {"_cls": "Classification", "label": "bée", "confidence": 0.6}
    (box,) = first["regions"]["detections"]
    assert first["regions"]["_cls"] == "Detections"
    assert box == {
        "_cls": "Detection",
        "label": "secondary",
        "slot": 2,
        "bounding_box": [10 / 80, round(10 / 60, 7), 56 / 80, 30 / 60],
    }


def test_fiftyones_own_importer_reads_it(export, made):
    importers = pytest.importorskip("fiftyone.utils.data.importers")
    folder = export("fiftyone", "o", predictions=None)
    with importers.LegacyFiftyOneDatasetImporter(str(folder), rel_dir=str(made / "photos")) as importer:
        samples = list(importer)
    assert [sample.filepath for sample in samples] == [str(made / "photos" / name) for name in NAMES[:3]]
    assert samples[2].regions.detections[0].bounding_box == [round(10 / 60, 7), 0.25, round(20 / 60, 7), 0.25]
    assert samples[2].ground_truth.label == "bée" and samples[2].tags == ["test"]


def test_crops_are_cut_from_the_upright_photograph(export):
    folder = export("crops", "o")
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    # one/a and two/A are one name where case does not count, so both are numbered.
    stems = ("train/ant/000000-a", "train/ant/000001-A", "test/bée/turned")
    assert files == sorted(f"{stem}_{slot:02d}.jpg" for stem in stems for slot in range(3))
    for slot, colour, size in ((0, RED, (20, 20)), (1, BLUE, (16, 16))):
        crop = read_image(folder / f"test/bée/turned_{slot:02d}.jpg")
        assert crop.shape == (*size, 3)
        assert np.abs(crop.reshape(-1, 3).mean(axis=0) - colour).max() < 6
    assert read_image(folder / "test/bée/turned_02.jpg").shape == (46, 46, 3)


def test_boxes_are_drawn_where_the_squares_are_in_a_smaller_picture_too(export, monkeypatch):
    drawn = read_image(export("drawn", "o", "test", regions="primary") / "test/bée/turned.jpg").astype(int)
    inside, line, outside = drawn[61, 53], drawn[65, 53], drawn[70, 53]  # of the blue square, (40, 50) to (56, 66)
    assert inside[2] > inside[1] + 80 and line[1] > line[2] + 30 and np.ptp(outside) < 40
    monkeypatch.setattr(pictures, "_LONGEST", 60)
    small = read_image(export("drawn", "p", "test", regions="primary") / "test/bée/turned.jpg").astype(int)
    assert small.shape == (60, 45, 3) and small[48, 36, 1] > small[48, 36, 2] + 30


def test_parquet_is_what_the_library_datasets_shows(export, made):
    parquet = pytest.importorskip("pyarrow.parquet")
    file = export("parquet", "o.parquet", "train", predictions=answers())
    table = parquet.read_table(file)
    rows = table.to_pylist()
    assert [row["image"]["path"] for row in rows] == list(NAMES[:2])
    assert rows[1]["image"]["bytes"] == (made / "photos/two/A.png").read_bytes()
    assert [[x, y, x + w, y + h] for x, y, w, h in BOXES["two/A.png"]] == rows[1]["regions"]
    assert [(row["label"], row["prediction"], round(row["confidence"], 6)) for row in rows] == [
        (0, 0, 0.9),
        (0, 1, 0.6),
    ]
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"} and features["label"]["names"] == ["ant", "bée"]
    assert features["regions"]["feature"]["feature"] == {"dtype": "float32", "_type": "Value"}


def test_parquet_is_written_in_row_groups(export, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("agnet.data.exports.parquet._BYTES", 1)
    assert parquet.ParquetFile(export("parquet", "o.parquet")).num_row_groups == 3


@pytest.mark.parametrize("format", ["coco", "fiftyone", "crops", "drawn", "parquet"])
def test_the_same_selection_gives_the_same_bytes(export, format):
    if format == "parquet":
        pytest.importorskip("pyarrow")
    suffix = {"coco": ".json", "parquet": ".parquet"}.get(format, "")
    first, second = (export(format, f"{name}{suffix}") for name in "ab")
    contents = [
        {path.name: path.read_bytes() for path in ([place] if suffix else sorted(place.rglob("*.*")))}
        for place in (first, second)
    ]
    assert list(contents[0].values()) == list(contents[1].values())
    told = b"".join(contents[0].values())
    assert str(first.parent).encode() not in told


@pytest.mark.parametrize("format", ["coco", "crops"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")], ids=["ctrl-c", "full"])
def test_an_interrupted_export_leaves_what_was_there(made, tmp_path, format, error):
    output = tmp_path / ("o.json" if format == "coco" else "o")
    selection = select(read_boxes(made / "boxes.h5"), made / "photos")
    export_data(selection, format, output)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}

    def fail(done):
        if done == 2:
            raise error if isinstance(error, type) else OSError(*error.args)

    with pytest.raises(type(error) if isinstance(error, OSError) else error):
        export_data(selection, format, output, fail, force=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()} == before
    output.rename(tmp_path / "elsewhere")
    with pytest.raises(type(error) if isinstance(error, OSError) else error) as raised:
        export_data(selection, format, output, fail)
    assert isinstance(error, type) or raised.value.filename == str(output)
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


def test_what_is_no_export_is_never_replaced(made, export, tmp_path):
    (tmp_path / "mine").mkdir()
    export("crops", "mine")  # an empty folder
    with pytest.raises(ConfigurationError, match=r"mine exists; name another .*, or replace it with --force"):
        export("crops", "mine")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"mine")
    selection = select(read_boxes(made / "boxes.h5"), made / "photos")
    with pytest.raises(ConfigurationError, match=r"photos is a folder of other files and will not be replaced"):
        export_data(selection, "crops", tmp_path / "photos", force=True)
    with pytest.raises(ConfigurationError, match=r"photos\.h5: a file of --format coco must end in \.json"):
        export_data(selection, "coco", tmp_path / "photos.h5")


def test_selections_that_cannot_be_exported(made, clip_boxes):
    boxes, root = read_boxes(made / "boxes.h5"), made / "photos"
    with pytest.raises(ConfigurationError, match=r"the rows of .* are clips, and these formats hold single images"):
        select(clip_boxes, root)
    with pytest.raises(DatasetError, match=r"no usable images in val; it has train, test"):
        select(boxes, root, "val")
    with pytest.raises(MismatchError, match=r"for 2 images, of which 0 are among the 1 .*, first turned\.png"):
        select(boxes, root, "test", predictions=answers())
    with pytest.raises(MismatchError, match="for other classes"):
        select(boxes, root, "train", predictions=answers(classes=("ant", "bee")))
    other = replace(answers(), contents=("0" * 16,) * 2)
    with pytest.raises(MismatchError, match=r"one/a\.png was another photograph when the run was evaluated"):
        select(boxes, root, "train", predictions=other)


def test_pictures_of_regions_are_refused_without_regions_before_any_image_is_read(agnet, made, monkeypatch):
    agnet("propose", made / "photos", "--boxes", "none.h5", "--method", "none")
    monkeypatch.setattr("agnet.data.boxes.verification.look_at_images", lambda *a, **b: pytest.fail("images were read"))
    for format in ("crops", "drawn"):
        said = agnet("export-data", "--boxes", "none.h5", "--format", format, "--output", "o", code=1).stderr
        assert said.startswith(f"Error: --format {format} needs regions, and none.h5 has none: ")
        assert not Path("o").exists()


def test_orientations_are_read_without_decoding(made):
    assert [read_orientation(made / "photos" / name) for name in NAMES[:3]] == [1, 1, 6]


def test_the_command_says_what_it_wrote_and_what_to_beware_of(made, agnet):
    run = write_run(Path("run"), predictions_of([(1, 0)], ("ant", "bée"), ("?",), ("turned.png",)))
    told = agnet("export-data", "--boxes", made / "boxes.h5", "--run", run, "--format", "coco", "--output", "o.json")
    assert told.stdout == "o.json\n"
    assert told.stderr == (
        "left out: 1 that could not be read when regions were proposed\n"
        "1 of the 1 photographs are turned by their metadata (exif_orientation); the boxes are those of the upright "
        "photographs, so read them with the orientation applied\n"
        "1 image, 3 regions\n"
    )
    assert json.loads(Path("o.json").read_text())["images"][0]["prediction"] == "ant"
    arguments = ("export-data", "--boxes", made / "boxes.h5", "--format", "coco", "--output")
    assert "o.json exists" in agnet(*arguments, "o.json", code=1).stderr
    done = json.loads(agnet(*arguments, "o.json", "--force", "--json").stdout)
    assert done == {"path": "o.json", "format": "coco", "images": 3, "regions": 9, "unreadable": 1, "turned": 1}
    lost = agnet(*arguments, "p.json", "--root", "nowhere", code=1).stderr
    assert lost.startswith("Error: the images of ") and "say where with --root" in lost
    assert (
        "changes nothing in --format crops"
        in agnet("export-data", "--format", "crops", "--output", "x", "--categories", "slot", code=2).stderr
    )


def test_a_run_on_the_hub_has_no_predictions_and_is_to_be_copied(agnet):
    said = agnet("export-data", "--run", "hf://some/one", "--format", "coco", "--output", "o.json", code=2).stderr
    assert "hf://some/one is on the hub" in said and "agnet pull some/one --run FOLDER" in said


def test_a_missing_package_is_said_before_the_work(agnet, monkeypatch):
    monkeypatch.setattr("agnet.data.exports.export.find_spec", lambda name: None)
    said = agnet("export-data", "--format", "parquet", "--output", "o.parquet", code=1).stderr
    assert said.startswith("Error: --format parquet needs pyarrow: ") and "pip install" in said
