"""`agnet predict --gallery` and what it is made of: rankings, what is left out of them, and their pictures."""

import csv
import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import agnet as package
from agnet.data.drawing import draw_frame_around
from agnet.data.errors import ConfigurationError
from agnet.data.palette import RIGHT, WRONG
from agnet.data.persons import person_and_camera
from agnet.training.answers.embedding import Embedding
from agnet.training.answers.nearest import ITSELF, OF_JUNK, SAME_CAMERA, Nearest, Neighbour, Subject, Subjects
from agnet.training.answers.nearest import find_nearest as find
from agnet.training.answers.nearest_pictures import draw_nearest, save_nearest
from agnet.training.answers.truth import Truth
from agnet.training.models.registry import ModelSettings
from agnet.training.runs.checkpoints import save_checkpoint
from agnet.training.samples.reading import Unreadable

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")


def embeddings(vectors, names):
    return [Embedding(name, vector) for name, vector in zip(names, vectors, strict=True)]


def unit(*shape):
    vectors = np.random.default_rng(shape).normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# --- rankings


def test_the_nearest_are_those_of_sorting_all_cosines():
    queries, gallery = unit(5, 8), unit(150, 8)  # more than are compared at once
    gallery[100] = gallery[3] = queries[2]  # equally similar: the first comes first
    names = [f"g{number}" for number in range(150)]
    items = embeddings(gallery, names)
    items.insert(70, Unreadable("broken", "broken: no image"))
    lost = []
    found = find(embeddings(queries, "abcde"), iter(items), 7, lost=lost.append)
    assert [one.name for one in lost] == ["broken"]
    for row, one in enumerate(found):
        cosines = [
            float(sum(float(x) * float(y) for x, y in zip(queries[row], other, strict=True))) for other in gallery
        ]
        expected = sorted(range(150), key=lambda number: -round(cosines[number], 5))[:7]
        assert [near.name for near in one.neighbours] == [names[number] for number in expected]
        assert [near.similarity for near in one.neighbours] == pytest.approx([cosines[k] for k in expected], abs=1e-6)
        assert one.ranked == 150 and one.left_out == {} and {near.right for near in one.neighbours} == {None}
    assert [near.name for near in found[2].neighbours[:2]] == ["g3", "g100"]


def test_a_small_gallery_an_empty_one_and_no_photographs():
    queries = embeddings(unit(1, 4), "a")
    (found,) = find(queries, embeddings(unit(2, 4), "xy"), 5)
    assert sorted(near.name for near in found.neighbours) == ["x", "y"]
    with pytest.raises(ConfigurationError, match="no image of the gallery can be read"):
        find(queries, [Unreadable("x", "x: no image")], 5)
    assert find([], iter(()), 5) == []


NAMES = {
    "itself": "0002_c1s1_000001_01.jpg",
    "same camera": "0002_c1s2_000002_01.jpg",
    "other camera": "0002_c2s1_000003_01.jpg",
    "other person": "0007_c1s1_000004_01.jpg",
    "distractor": "0000_c1s1_000005_01.jpg",
    "junk": "-1_c3s1_000006_01.jpg",
    "unknown": "IMG_0002.jpg",
}


def test_the_protocol_of_market_1501_leaves_out_what_is_no_evidence(tmp_path):
    for name in NAMES.values():
        (tmp_path / name).touch()
    (tmp_path / "link.jpg").symlink_to(tmp_path / NAMES["itself"])
    gallery = embeddings(unit(8, 4), [str(tmp_path / name) for name in [*NAMES.values(), "link.jpg"]])
    queries = embeddings(unit(2, 4), [str(tmp_path / NAMES["itself"]), str(tmp_path / NAMES["distractor"])])
    person, distractor = find(queries, gallery, 9, Subjects(None).of)
    by_name = {value: key for key, value in NAMES.items()}
    judged = {by_name[Path(near.name).name]: near.right for near in person.neighbours}
    assert judged == {"other camera": True, "other person": False, "distractor": False, "unknown": None}
    assert person.left_out == {ITSELF: 2, SAME_CAMERA: 1, OF_JUNK: 1} and person.ranked == 4
    # A distractor is anybody: nothing is right or wrong, and no other distractor is the same person.
    assert distractor.left_out == {ITSELF: 1, OF_JUNK: 1} and {near.right for near in distractor.neighbours} == {None}


def test_persons_and_cameras_are_read_from_whole_names_only():
    assert person_and_camera("0002_c1s1_000451_03.jpg") == ("0002", "1")
    assert person_and_camera("-1_c3s2_000451_03.jpg") == ("-1", "3")
    for name in ("2023_12_01.jpg", "0002_c1.jpg", "10002_c1s1_000451_03.jpg", "0002_c1s1_000451_03"):
        assert person_and_camera(name) is None


def test_the_boxes_file_of_the_run_is_asked_first():
    listing = SimpleNamespace(is_retrieval=False)
    truths = {"0002_c1s1_000451_03.jpg": Truth("rose", "in the test split")}
    subjects = Subjects(SimpleNamespace(listing=listing, truth=truths.get))
    rose, person = subjects.of("0002_c1s1_000451_03.jpg"), subjects.of("0007_c1s1_000451_03.jpg")
    assert (rose.name, rose.part, rose.is_person) == ("rose", "in the test split", False)
    assert (person.name, person.camera, person.is_person) == ("0007", "1", True)
    assert rose.same(person) is None and rose.same(Subject("rose")) is True and rose.same(Subject("0000")) is False
    assert subjects.of("photo.jpg") is None


# --- pictures


def found(count, rights=(True, False, None)):
    neighbours = [Neighbour(f"g/{number}.jpg", 0.5, None, rights[number % len(rights)]) for number in range(count)]
    return Nearest("some/photo.jpg", Subject("0002", "1", is_person=True), tuple(neighbours), 40, {ITSELF: 1})


def coloured(page, colour):
    return (page == tuple(bytes.fromhex(colour[1:]))).all(axis=2)


def test_a_picture_holds_every_image_and_its_frame():
    image = np.full((128, 64, 3), 200, np.uint8)
    page = draw_nearest([image] * 4, found(3))
    pixels = (page == 200).all(axis=2)
    # Each is drawn whole, 208 pixels high, and nothing covers it; letters have a few pixels of this grey, too.
    assert 0 <= pixels.sum() - 4 * 104 * 208 < 200
    heights = {name: coloured(page, colour)[:, 150:].any(axis=1).sum() for name, colour in (("r", RIGHT), ("w", WRONG))}
    assert heights["r"] >= 218 and coloured(page, RIGHT).sum() > 1.5 * coloured(page, WRONG).sum()  # solid, and dashed
    assert draw_nearest([image], found(0)).shape[1] == 560


@pytest.mark.parametrize("shape", [(128, 64), (300, 400), (20, 4000), (1, 1)])
def test_pictures_of_many_images_stay_narrow(shape):
    page = draw_nearest([np.zeros((*shape, 3), np.uint8)] * 21, found(20))
    assert page.shape[1] <= 1600 and page.dtype == np.uint8


def test_a_dashed_frame_lies_around_its_box_and_has_gaps():
    page = Image.new("RGB", (60, 60))
    draw_frame_around(page, (10, 20, 50, 40), "#ff0000", 4, dashed=True)
    red = np.asarray(page)[..., 0] == 255
    assert not red[20:40, 10:50].any() and red[16:20, 6:10].all() and red[40:44, 50:54].all()
    assert 0.3 < red[16:44, 6:54].sum() / (28 * 48 - 20 * 40) < 0.8
    assert not red[:16].any() and not red[44:].any() and not red[:, :6].any() and not red[:, 54:].any()


def test_an_image_that_is_gone_by_then_is_told(tmp_path):
    lost = save_nearest(tmp_path / "out", found(1))
    assert lost.name == "some/photo.jpg" and lost.reason.startswith("some/photo.jpg: cannot be read")
    assert not (tmp_path / "out").exists()


# --- the command


@pytest.fixture(scope="module")
def run(tmp_path_factory, untrained, textured):
    """A run whose network was never trained, but tells one image from another."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    checkpoint = untrained(ModelSettings(classes=3, model="plain", backbone="mobilenet-v3-small"))
    seen = torch.from_numpy(np.stack([textured(number, 64, 64) for number in range(8)])).permute(0, 3, 1, 2)
    for module in checkpoint.model.train().modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.5  # the backbone's 0.01 would take hundreds of steps to know the images
    with torch.no_grad():
        for _ in range(8):
            checkpoint.model(seen)
    checkpoint.model.eval().size_hw = (64, 64)
    save_checkpoint(folder / "best.safetensors", checkpoint)
    return folder


@pytest.fixture
def photographs(tmp_path, textured):
    """A gallery of six photographs in a folder and its subfolder, a broken one and a video, and a query."""
    (tmp_path / "gallery" / "more").mkdir(parents=True)
    for number in range(6):
        place = "gallery/more" if number > 3 else "gallery"
        Image.fromarray(textured(number, 90, 60)).save(tmp_path / place / f"{number}.png")
    shutil.copy(tmp_path / "gallery" / "2.png", tmp_path / "query.png")
    (tmp_path / "gallery" / "broken.png").write_bytes(b"not an image")
    (tmp_path / "gallery" / "clip.mp4").write_bytes(b"not looked at")
    return tmp_path


def test_every_format_lists_the_nearest_and_counts_what_is_lost(agnet, run, photographs):
    arguments = ["predict", "--run", run, "--gallery", "gallery", "query.png", "gallery/0.png", "--top", 3]
    told = agnet(*arguments, "--json", "--save", "out", code=1)
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    network = package.load(run, device="cpu")
    gallery = [f"gallery/{name}.png" for name in ("0", "1", "2", "3", "more/4", "more/5")]
    cosines = network.embed(["query.png", "gallery/0.png"]) @ network.embed(gallery).T
    cosines[1, 0] = -2  # itself
    for row, values in zip(rows, cosines, strict=True):
        order = np.argsort(-values)[:3]
        assert [one["image"] for one in row["nearest"]] == [gallery[number] for number in order]
        assert [one["similarity"] for one in row["nearest"]] == pytest.approx(values[order], abs=1e-5)
    assert rows[0]["nearest"][0]["similarity"] == pytest.approx(1, abs=1e-5)  # the copy, which is another file
    assert [(row["image"], row["ranked"], row["left_out"]) for row in rows] == [
        ("query.png", 6, {}),
        ("gallery/0.png", 5, {"itself": 1}),
    ]
    assert [row["picture"] for row in rows] == ["query.png", "gallery-0.png"]
    with Image.open("out/query.png") as picture:
        assert picture.width > 560 and picture.height > 300
    errors = [line for line in told.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and errors[0].startswith("Error: gallery/broken.png: ")
    assert "skipped in the gallery, videos: 1 .mp4" in told.stderr

    table = list(csv.DictReader(io.StringIO(agnet(*arguments, "--format", "csv", code=1).stdout)))
    listed = [(row["image"], near["image"], near["similarity"]) for row in rows for near in row["nearest"]]
    assert [(row["image"], row["nearest"]) for row in table] == [one[:2] for one in listed]
    assert [float(row["similarity"]) for row in table] == pytest.approx([one[2] for one in listed])
    assert [row["rank"] for row in table] == ["1", "2", "3"] * 2 and {row["right"] for row in table} == {""}

    text = agnet(*arguments, code=1).stdout.splitlines()
    assert [text[0], text[4]] == ["query.png:", "gallery/0.png: (left out: the photograph itself)"]
    assert text[1].split() == ["1", "1.000", "gallery/2.png"]


def test_persons_known_by_name_are_judged(agnet, run, photographs):
    for number, name in enumerate(["0001_c1s1_000001_01", "0001_c2s1_000001_01", "0002_c2s1_000001_01"]):
        Path(f"gallery/{number}.png").rename(f"gallery/{name}.png")
    arguments = ["predict", "--run", run, "--gallery", "gallery/000*.png", "gallery/0001_c1s1_000001_01.png"]
    (row,) = map(json.loads, agnet(*arguments, "--json").stdout.splitlines())
    assert row["truth"] == "0001" and {one["image"][8:15]: one["right"] for one in row["nearest"]} == {
        "0001_c2": True,
        "0002_c2": False,
    }
    text = agnet(*arguments).stdout
    assert text.count("✓ gallery/0001_c2") == text.count("✗ gallery/0002_c2") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["query.png", "--threshold", "0.5"], 2, "--threshold changes nothing with --gallery"),
        (["query.png", "--every", "2"], 2, "--every changes nothing with --gallery"),
        (["query.png", "--smooth", "1"], 2, "--smooth changes nothing with --gallery"),
        (["-", "--gallery", "-"], 2, "standard input can list the photographs or the gallery, not both"),
        (["gallery/clip.mp4"], 1, "clip.mp4 is a video: --gallery searches for photographs"),
        (["nothing.png"], 1, "nothing.png: cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(agnet, run, photographs, arguments, code, message):
    assert message in agnet("predict", "--run", run, "--gallery", "gallery", *arguments, code=code).stderr


def test_a_gallery_without_images_is_refused(agnet, run, photographs):
    for place in ("gallery/broken.png", "nothing"):
        told = agnet("predict", "--run", run, "--gallery", place, "query.png", "--output", "out.txt", code=1).stderr
        assert place in told and told.splitlines()[-1].startswith("Error: no image of the gallery can be read")
    assert not Path("out.txt").exists()


# --- the library


def test_the_library_finds_what_the_command_finds(agnet, run, photographs):
    network = package.load(run, device="cpu")
    told = agnet("predict", "--run", run, "--gallery", "gallery", "query.png", "--json", "--device", "cpu", code=1)
    expected = [(one["image"], one["similarity"]) for one in json.loads(told.stdout)["nearest"]]
    with pytest.warns(UserWarning, match=r"left out of the gallery: .*broken\.png"):
        (found, lost) = network.nearest(["query.png", "gallery/broken.png"], "gallery/[0-9b]*.png", top=2)
    assert lost.error and not found.error and len(found.nearest) == 2
    (found,) = network.nearest("query.png", [*Path("gallery").rglob("[0-9].png")])
    assert [name for name, _ in found.nearest] == [name for name, _ in expected]
    assert [cosine for _, cosine in found.nearest] == pytest.approx([cosine for _, cosine in expected], abs=1e-5)
    arrays = [np.asarray(Image.open(name)) for name in ("query.png", "gallery/1.png")]
    (found,) = network.nearest(arrays[0], arrays)  # images without files are never "itself"
    assert found.nearest[0] == ("image 0", pytest.approx(1, abs=1e-5))
    vectors = network.embed(arrays)
    assert vectors.dtype == np.float32 and np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-6)
    with pytest.raises(package.predictor.ImageError, match="broken"):
        network.embed(["query.png", "gallery/broken.png"])
