"""A data set looked at as a whole: what is missing, broken, odd, or there twice."""

import io
import json
import shutil
from dataclasses import replace

import joblib
import numpy as np
import pytest
from PIL import Image, ImageOps

from agnet.data.errors import DatasetError
from agnet.data.images import decode_image
from agnet.data.sets import near_duplicates
from agnet.data.sets.catalogue import open_dataset
from agnet.data.sets.examination import examine, see_chunk
from agnet.data.sets.examination_report import examination_text, near_duplicate_sheet
from agnet.data.sets.near_duplicates import Looks, closest, look_of


def opened(folder):
    return open_dataset("folder", folder, val_fraction=0)


def looks_like(examination):
    return {pair.image.image: pair.looks_like.image for pair in examination.near_duplicates}


def test_a_sound_data_set_is_sound(folder):
    found = examine(opened(folder), classes=3, counts={"train": 12, "test": 6})
    assert found.sound and found.by_the_book and found.images == 18 and found.counts == {"train": 12, "test": 6}
    assert not (found.wrong or found.unreadable or found.odd or found.duplicates or found.near_duplicates)
    assert examination_text(found).startswith("images: 18 images of 3 classes (12 train, 6 test): as published\n")


def test_counts_that_are_not_the_books_are_wrong(folder):
    found = examine(opened(folder), classes=4, counts={"train": 12, "test": 7})
    assert not found.sound and found.by_the_book is False
    assert found.wrong == ("3 classes instead of 4", "6 test images instead of 7")
    assert "NOT AS PUBLISHED\n    3 classes instead of 4\n" in examination_text(found)
    assert examine(opened(folder)).by_the_book is None


def test_every_image_that_cannot_be_decoded_is_named_with_its_reason(folder):
    index = opened(folder)
    whole = (folder / "train/ant/0.png").read_bytes()
    (folder / "train/ant/0.png").write_bytes(whole[: len(whole) // 2])
    (folder / "train/bee/1.png").write_bytes(b"")
    (folder / "val/ant/1.png").write_text("<html>not found</html>")
    (folder / "val/bee/0.png").unlink()
    done = []
    found = examine(index, progress=lambda *values: done.append(values))
    reasons = {odd.image: odd.reason for odd in found.unreadable}
    assert set(reasons) == {"train/ant/0.png", "train/bee/1.png", "val/ant/1.png", "val/bee/0.png"}
    assert "empty" in reasons["train/bee/1.png"] and "No such file" in reasons["val/bee/0.png"]
    assert "not in a supported image format" in reasons["val/ant/1.png"] and str(folder) not in json.dumps(
        found.to_dict()
    )
    assert not found.sound and not found.duplicates and done[-1] == (18, 4)


def test_what_is_hardly_a_photograph_is_told_but_no_fault(folder, textured):
    Image.fromarray(textured(1, 20, 90)).save(folder / "train/ant/0.png")
    Image.fromarray(textured(2, 600, 40)).save(folder / "train/ant/1.png")
    Image.new("RGB", (90, 90), "#345").save(folder / "train/bee/2.png")
    Image.new("RGB", (90, 90), "#543").save(folder / "val/bee/0.png")
    found = examine(opened(folder))
    assert {odd.image: odd.reason for odd in found.odd} == {
        "train/ant/0.png": "is only 20 x 90 pixels",
        "train/ant/1.png": "is a strip of 600 x 40 pixels",
        "train/bee/2.png": "is all of one colour",
        "val/bee/0.png": "is all of one colour",
    }
    # Two empty pictures look like nothing, so not like each other.
    assert found.sound and not found.near_duplicates


def test_copies_are_found_within_and_across_splits_and_in_other_classes(folder):
    shutil.copy(folder / "train/ant/0.png", folder / "train/ant/again.png")
    shutil.copy(folder / "train/ant/1.png", folder / "train/bee/again.png")
    shutil.copy(folder / "train/bee/0.png", folder / "val/bee/again.png")
    shutil.copy(folder / "train/bee/1.png", folder / "val/ant/again.png")
    found = examine(opened(folder))
    groups = [
        ({copy.image for copy in group.copies}, group.across_splits, group.different_classes)
        for group in found.duplicates
    ]
    assert groups == [
        ({"train/bee/1.png", "val/ant/again.png"}, True, True),
        ({"train/bee/0.png", "val/bee/again.png"}, True, False),
        ({"train/ant/1.png", "train/bee/again.png"}, False, True),
        ({"train/ant/0.png", "train/ant/again.png"}, False, False),
    ]
    # What is a copy to the byte is not told again as looking alike.
    assert found.sound and not found.near_duplicates
    text = examination_text(found)
    assert "two splits or more: 2\n" in text and "DIFFERENT CLASSES" in text


def resaved(pixels, **options):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", **options)
    return decode_image(content.getvalue())


CHANGES = {
    "saved again": lambda pixels: resaved(pixels, quality=40),
    "halved": lambda pixels: np.asarray(Image.fromarray(pixels).reduce(2)),
    "brighter": lambda pixels: np.clip(pixels * 1.15 + 12, 0, 255).astype(np.uint8),
    "cropped": lambda pixels: np.ascontiguousarray(pixels[3:-3, 4:-4]),
    "grey": lambda pixels: np.asarray(ImageOps.grayscale(Image.fromarray(pixels)).convert("RGB")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_across_splits_is_found_and_nothing_else(folder, textured, change):
    original = textured(77, 320, 240)
    Image.fromarray(original).save(folder / "train/bee/original.png")
    Image.fromarray(CHANGES[change](original)).save(folder / "val/ant/changed.png")
    found = examine(opened(folder))
    assert looks_like(found) == {"val/ant/changed.png": "train/bee/original.png"}
    pair = found.near_duplicates[0]
    assert (pair.image.split, pair.looks_like.split) == ("test", "train")
    assert (pair.image.class_name, pair.looks_like.class_name) == ("ant", "bee")
    assert found.sound and "different classes" in examination_text(found)


def test_a_photograph_stored_lying_down_looks_like_itself_upright(folder, textured):
    original = Image.fromarray(textured(78, 320, 240))
    original.save(folder / "train/bee/original.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    original.transpose(Image.Transpose.ROTATE_90).save(folder / "val/bee/lying.jpg", quality=90, exif=exif)
    assert looks_like(examine(opened(folder))) == {"val/bee/lying.jpg": "train/bee/original.png"}


def test_near_duplicates_within_one_split_are_nobodys_leak(folder, textured):
    original = textured(79, 320, 240)
    Image.fromarray(original).save(folder / "train/bee/original.png")
    Image.fromarray(CHANGES["halved"](original)).save(folder / "train/bee/half.png")
    assert not examine(opened(folder)).near_duplicates


def test_three_splits_are_compared_with_each_other(folder, textured):
    index = opened(folder)
    for seed, (one, other) in enumerate([(0, 4), (8, 12)]):  # train and train; the second pair's become val and test
        pixels = textured(90 + seed, 320, 240)
        Image.fromarray(pixels).save(folder / index.names[one])
        Image.fromarray(CHANGES["halved"](pixels)).save(folder / index.names[other])
    splits = index.splits.copy()
    splits[4] = splits[8] = "val"
    index = replace(index, splits=splits)
    assert index.splits[[0, 4, 8, 12]].tolist() == ["train", "val", "val", "test"]
    assert looks_like(examine(index)) == {index.names[4]: index.names[0], index.names[12]: index.names[8]}


def brute_force(looks, queries, others, distance, likeness):
    for row in queries:
        best = None
        for other in others:
            bits = bin(int(looks.hashes[row]) ^ int(looks.hashes[other])).count("1")
            one, two = looks.thumbnails[row].astype(float), looks.thumbnails[other].astype(float)
            alike = np.corrcoef(one, two)[0, 1]
            if looks.flat[row] or looks.flat[other] or bits > distance or alike < likeness:
                continue
            if best is None or (bits, -alike) < best[:2]:
                best = bits, -alike, other
        if best:
            yield row, best[2], best[0], -best[1]


@pytest.mark.parametrize("numpy_2", [True, False])
def test_the_closest_are_those_of_comparing_one_by_one(numpy_2, monkeypatch):
    generator = np.random.default_rng(5)
    hashes = generator.integers(0, 2**63, 200, dtype=np.uint64)
    thumbnails = generator.integers(0, 256, (200, 64), dtype=np.uint8)
    for row in range(100, 200):  # each of the second half is one of the first with some bits and colours changed
        hashes[row] = hashes[row - 100 - row % 3]
        for bit in generator.choice(63, row % 16, replace=False).tolist():
            hashes[row] ^= np.uint64(1 << bit)
        noise = generator.integers(-row // 2, row // 2 + 1, 64)
        thumbnails[row] = np.clip(thumbnails[row - 100 - row % 3].astype(int) + noise, 0, 255)
    looks = Looks(hashes, thumbnails, generator.random(200) < 0.05)
    queries, others = np.arange(100, 200), np.arange(100)
    if not numpy_2:
        monkeypatch.delattr(np, "bitwise_count", raising=False)
    expected = list(brute_force(looks, queries.tolist(), others.tolist(), 10, 0.8))
    assert 20 < len(expected) < 90
    found = list(closest(looks, queries, others, 10, 0.8))
    assert [pair[:3] for pair in found] == [pair[:3] for pair in expected]
    assert [pair[3] for pair in found] == pytest.approx([pair[3] for pair in expected], abs=1e-5)


def test_the_same_look_for_any_size_and_none_for_one_colour(textured):
    image = textured(3, 300, 200)
    one, other = look_of(image), look_of(np.asarray(Image.fromarray(image).resize((600, 500))))
    assert bin(one[0] ^ other[0]).count("1") <= 4 and one[0] < 2**63
    assert look_of(np.full((50, 60, 3), 200, np.uint8)) is None
    assert bin(one[0]).count("1") in (31, 32)


def test_strangers_do_not_look_alike(textured):
    found = [look_of(textured(seed, 160, 120)) for seed in range(300)]
    looks = Looks.empty(300)
    for row, (hashed, thumbnail) in enumerate(found):
        looks.hashes[row], looks.flat[row] = hashed, False
        looks.thumbnails[row] = np.frombuffer(thumbnail, np.uint8)
    assert list(closest(looks, np.arange(150), np.arange(150, 300))) == []


def test_nothing_to_compare_is_nothing_found():
    none = np.zeros(0, np.int64)
    looks = Looks.empty(3)
    assert list(closest(looks, none, np.arange(3))) == list(closest(looks, np.arange(3), none)) == []


def test_a_thousand_frames_of_one_scene_do_not_take_forever(monkeypatch):
    monkeypatch.setattr(near_duplicates, "_CANDIDATES", 7)
    looks = Looks(np.zeros(5000, np.uint64), np.tile(np.arange(64, dtype=np.uint8), (5000, 1)), np.zeros(5000, bool))
    assert len(list(closest(looks, np.arange(100), np.arange(100, 5000)))) == 100


def test_any_number_of_processes_finds_the_same(folder):
    (folder / "train/ant/0.png").write_bytes(b"broken")
    alone = examine(opened(folder))
    with joblib.parallel_config(backend="loky"):
        assert examine(opened(folder), jobs=2) == alone
        assert examine(opened(folder), jobs=1) == alone


def test_an_image_that_kills_its_decoder_costs_itself_alone(folder, tmp_path, monkeypatch):
    """Workers read a module that dies on one file, as a decoder with a bug would."""
    module = tmp_path / "deadly_decoder.py"
    module.write_text(
        "import os\n"
        "from agnet.data.sets.examination import see_chunk\n"
        "def see(root, names, max_pixels):\n"
        "    if any(name.endswith('bee/2.png') for name in names):\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return see_chunk(root, names, max_pixels)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    import deadly_decoder

    monkeypatch.setattr("agnet.data.sets.examination.see_chunk", deadly_decoder.see)
    monkeypatch.setattr("agnet.data.sets.examination._CHUNK", 5)
    with joblib.parallel_config(backend="loky"):
        found = examine(opened(folder), jobs=2)
    assert [odd.image for odd in found.unreadable] == ["train/bee/2.png"]
    assert "killed" in found.unreadable[0].reason and found.images == 18 and not found.duplicates


def test_a_folder_or_a_pipe_in_an_images_place_is_told(tmp_path):
    (tmp_path / "a.jpg").mkdir()
    (seen,) = see_chunk(str(tmp_path), ["a.jpg"])
    assert seen.reason == "is not a file" and seen.content == ""


def test_content_hashes_are_those_of_the_boxes_file(folder, boxes_file):
    from agnet.data.boxes.reader import read_boxes

    boxes = read_boxes(boxes_file)
    seen = see_chunk(str(folder), [name.decode() for name in boxes.names.tolist()])
    assert [one.content.encode() for one in seen] == boxes.contents.tolist()


def test_the_sheet_shows_each_pair_side_by_side(folder, textured):
    original = textured(80, 300, 200)
    Image.fromarray(original).save(folder / "train/côté/original.png")
    Image.fromarray(CHANGES["brighter"](original)).save(folder / "val/côté/changed.png")
    found = examine(opened(folder))
    sheet, count = near_duplicate_sheet(found, folder)
    assert count == 1 and sheet.dtype == np.uint8 and sheet.shape[1] > sheet.shape[0] > 200
    half = sheet.shape[1] // 2
    assert sheet[:, :half].std() > 20 and sheet[:, half:].std() > 20
    (folder / "val/côté/changed.png").unlink()
    with pytest.raises(DatasetError, match="nothing to draw"):
        near_duplicate_sheet(found, folder)


def test_a_report_of_many_names_the_first_and_counts_the_rest(folder):
    for number in range(12):
        (folder / f"train/ant/broken-{number}.png").write_bytes(b"?")
    text = examination_text(examine(opened(folder)))
    assert "cannot be read: 12\n" in text and "    and 7 others\n" in text
    assert text.index("broken-0") < text.index("broken-1.png") and "broken-5.png: " not in text


def test_verify_reports_and_draws(agnet, folder, textured):
    original = textured(81, 300, 200)
    Image.fromarray(original).save(folder / "train/bee/original.png")
    Image.fromarray(CHANGES["grey"](original)).save(folder / "val/bee/changed.png")
    told = agnet("datasets", "folder", "--verify", "--root", folder, "--sheet", "alike.png")
    assert "val/bee/changed.png [test, bee] ~ train/bee/original.png [train, bee]" in told.stdout
    assert "1 of the 1 near-duplicate pairs" in told.stderr
    with Image.open("alike.png") as sheet:
        assert sheet.width > sheet.height > 200
    found = json.loads(agnet("datasets", "folder", "--verify", "--root", folder, "--json", "--jobs", 1).stdout)
    assert found["sound"] is True and found["images"] == 20 and found["by_the_book"] is None
    assert found["near_duplicates"][0]["looks_like"]["image"] == "train/bee/original.png"


def test_verify_fails_on_a_broken_image_in_one_line_after_the_report(agnet, folder):
    (folder / "val/bee/0.png").write_bytes(b"not an image")
    failed = agnet("datasets", "folder", "--verify", "--root", folder, "--sheet", "alike.png", code=1)
    assert "val/bee/0.png: its content is not in a supported image format" in failed.stdout
    assert failed.stderr.splitlines()[-1] == f"Error: folder under {folder}: 1 image cannot be read"
    assert "alike.png is not written" in failed.stderr
    told = agnet("datasets", "folder", "--verify", "--root", folder, "--json", code=1).stdout
    assert json.loads(told)["unreadable"] == [
        {"image": "val/bee/0.png", "reason": "its content is not in a supported image format"}
    ]


def test_verify_names_what_the_book_says(agnet, tmp_path, textured):
    """Two of Food-101's classes, one image of each split: the counts are wrong, and all else is looked at as well."""
    place = tmp_path / "datasets" / "food-101"
    (place / "meta").mkdir(parents=True)
    for number, split in enumerate(("train", "test")):
        names = [f"{name}/{number}" for name in ("apple_pie", "waffles")]
        (place / "meta" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for label, name in enumerate(names):
            (place / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(textured([label, number], 100, 80)).save(place / "images" / f"{name}.jpg")
    failed = agnet("datasets", "food101", "--verify", code=1)
    assert "NOT AS PUBLISHED\n    2 classes instead of 101\n    2 train images instead of 75,750\n" in failed.stdout
    assert failed.stderr.splitlines()[-1].startswith("Error: food101 under datasets: 2 classes instead of 101, 2 train")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--verify"],
        ["folder", "--verify"],
        ["csv", "--verify"],
        ["folder", "--verify", "--root", ".", "--csv", "list.csv"],
        ["folder", "--sheet", "alike.png"],
        ["folder", "--jobs", "2"],
    ],
)
def test_verify_used_wrongly_has_exit_code_2(agnet, arguments):
    agnet("datasets", *arguments, code=2)
