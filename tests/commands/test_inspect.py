"""`agnet inspect` as a user meets it."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def inspect(agnet, boxes_file, folder):
    """Run ``agnet inspect`` on `boxes_file` and `folder`; returns click's result."""

    def run(*arguments, code=0, root=folder):
        return agnet("inspect", "--boxes", "boxes.h5", "--root", root, *arguments, code=code)

    return run


def last_line(result):
    return result.stderr.strip().splitlines()[-1]


def test_the_summary_is_text_or_json(inspect):
    values = json.loads(inspect("--json").stdout)
    text = inspect().stdout
    assert values["images"] == 18 and values["images_there"] == 18
    assert text.startswith("boxes.h5: 18 images of 3 classes")
    assert values["fingerprint"] in text and "all there" in text and "côté" in text
    assert "none is there" in inspect(root="elsewhere").stdout


def test_the_file_may_come_without_its_option(agnet, inspect):
    assert agnet("inspect", "boxes.h5", "--json").stdout == agnet("inspect", "--json").stdout
    said = inspect("other.h5", code=2).stderr
    assert "other.h5 and --boxes boxes.h5 both name a boxes file: give one of them" in said


def test_one_image_is_text_or_json(inspect):
    values = json.loads(inspect("--image", "val/ant/1.png", "--json").stdout)
    assert (values["class_name"], values["split"], len(values["regions"])) == ("ant", "test", 6)
    assert inspect("--image", "val/ant/1.png").stdout.startswith(f"val/ant/1.png (image {values['row']})")


@pytest.mark.parametrize("name", ["one.png", "one.JPG", "one.webp"])
def test_a_picture_of_one_image_is_written(inspect, tmp_path, name):
    (tmp_path / name).write_bytes(b"an older one")
    result = inspect("--image", "val/ant/1.png", "--save", name)
    assert result.stdout == f"{name}\n" and not result.stderr
    with Image.open(tmp_path / name) as picture:
        assert picture.width > 900 and np.asarray(picture).std() > 20


def test_a_sheet_is_written(inspect, tmp_path):
    assert inspect("--sheet", "sheet.png").stdout == "sheet.png\n"
    inspect("--sheet", "small.png", "--count", 3)
    with Image.open(tmp_path / "sheet.png") as sheet, Image.open(tmp_path / "small.png") as small:
        assert sheet.height > small.height


def test_a_changed_image_is_drawn_with_a_warning(inspect, folder, textured):
    Image.fromarray(textured(99, 128, 80)).save(folder / "val" / "ant" / "1.png")
    result = inspect("--image", "val/ant/1.png", "--save", "one.png")
    assert result.stdout == "one.png\n"
    assert "Warning: val/ant/1.png: other regions are found now than those in the file" in result.stderr


def test_a_sheet_with_a_missing_image_says_so(inspect, folder):
    (folder / "val" / "ant" / "1.png").unlink()
    result = inspect("--sheet", "sheet.png")
    assert "Warning: 1 image can no longer be read" in result.stderr and "1.png is not there" in result.stderr


def test_verify_finds_what_has_changed(inspect, folder):
    assert inspect("--verify").stdout == "18 images are unchanged\n"
    (folder / "val" / "ant" / "1.png").unlink()
    touched = folder / "train" / "bee" / "0.png"
    touched.write_bytes(touched.read_bytes())  # another time, the same content
    other = folder / "train" / "bee" / "1.png"
    other.write_bytes(other.read_bytes()[:-1] + b"?")  # the same size
    result = inspect("--verify", code=1)
    assert sorted(result.stdout.splitlines()) == ["train/bee/1.png has different content", "val/ant/1.png is gone"]
    assert last_line(result).startswith("Error: 2 of the 18 images")
    values = json.loads(inspect("--verify", "--json", code=1).stdout)
    assert values["images"] == 18
    assert {change["image"] for change in values["changed"]} == {"train/bee/1.png", "val/ant/1.png"}


def test_verify_names_twenty_and_counts_the_others(inspect, folder, monkeypatch):
    monkeypatch.setattr("agnet.commands.inspect._SHOWN", 4)
    for path in folder.rglob("*.png"):
        path.unlink()
    result = inspect("--verify", code=1)
    assert len(result.stdout.splitlines()) == 5 and result.stdout.endswith("and 14 more\n")
    assert "--root" in last_line(result)
    assert len(json.loads(inspect("--verify", "--json", code=1).stdout)["changed"]) == 18


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--image", "ant/9.png"], "has no image ant/9.png; did you mean"),
        (["--image", "3", "--save", "nowhere/a.png"], "there is no folder nowhere"),
        (["--image", "3", "--save", "images"], "images is a folder"),
        (["--image", "3", "--save", "a.txt"], "no pictures with the suffix '.txt'"),
        (["--image", "3", "--save", "picture"], "no pictures with the suffix ''"),
        (["--image", "3", "--save", "a.xbm"], "a.xbm: cannot be written as XBM"),
        (["--sheet", "nowhere/a.png"], "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_line(inspect, tmp_path, arguments, complaint):
    before = sorted(tmp_path.iterdir())
    result = inspect(*arguments, code=1)
    assert complaint in last_line(result) and last_line(result).startswith("Error: ")
    assert result.stderr.count("\n") == 1 and not result.stdout
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("arguments", [["--image", "3", "--save", "a.png"], ["--sheet", "a.png"]])
def test_images_elsewhere_are_asked_for(inspect, arguments):
    assert "with --root" in last_line(inspect(*arguments, root="elsewhere", code=1))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--image", "3", "--verify"],
        ["--image", "3", "--sheet", "a.png"],
        ["--sheet", "a.png", "--verify"],
        ["--save", "a.png"],
        ["--count", "24"],
        ["--sheet", "a.png", "--count", "0"],
        ["--sheet", "a.png", "--json"],
        ["--image", "3", "--save", "a.png", "--json"],
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(inspect, arguments):
    inspect(*arguments, code=2)


def test_a_file_of_version_2_is_looked_into(inspect, boxes_file, as_version_2):
    new = json.loads(inspect("--json").stdout)
    as_version_2(boxes_file)
    old = json.loads(inspect("--json").stdout)
    assert (new["format_version"], old["format_version"]) == (3, 2)
    same = set(new) - {"format_version", "file_bytes", "bytes_per_image", "table_bytes"}
    assert {name: new[name] for name in same} == {name: old[name] for name in same}
    assert inspect("--verify").stdout == "18 images are unchanged\n"
    assert inspect("--image", "val/ant/1.png", "--save", "one.png").stdout == "one.png\n"


def test_tables_and_previews_are_sized_apart(inspect):
    values = json.loads(inspect("--json").stdout)
    assert 0 < values["table_bytes"] < values["preview_bytes"] < values["file_bytes"]
    line = next(line for line in inspect().stdout.splitlines() if line.startswith("  file "))
    assert f"previews {values['preview_bytes'] / 1e6:,.2f} MB" in line


def test_a_file_without_regions_is_told_and_not_drawn(agnet, folder):
    agnet("propose", "images", "--method", "none", "--boxes", "none.h5", "--no-preview")
    assert "regions      none" in (text := agnet("inspect", "--boxes", "none.h5").stdout) and "no previews" in text
    assert "area" not in text and "keypoints   " not in text
    assert "96 x 80 pixels" in agnet("inspect", "--boxes", "none.h5", "--image", "train/ant/0.png").stdout
    for what in (["--sheet", "a.png"], ["--image", "0", "--save", "a.png"]):
        result = agnet("inspect", "--boxes", "none.h5", *what, code=1)
        assert "a picture of regions needs regions, and none.h5 has none" in last_line(result)
    assert "--model agnet needs regions" in last_line(agnet("train", "--boxes", "none.h5", code=1))
    for idle in (["--primary", "4"], ["--seed", "1"], ["--kinds", "both"]):
        assert "none.h5" not in agnet("propose", "images", "--method", "none", "--boxes", "2.h5", *idle, code=2).stdout


def test_a_file_of_clips_says_so(agnet, clip_boxes, clip_folder):
    def run(*arguments, code=0):
        return agnet("inspect", "--boxes", clip_boxes.path, "--root", clip_folder, *arguments, code=code)

    values, text = json.loads(run("--json").stdout), run().stdout
    assert values["clips"]["frames"] == {"min": 3, "median": 7, "mean": 7.75, "max": 14}
    assert values["clips"]["frames_with_regions"]["mean"] == 4.25
    filled_in = 1 - clip_boxes.primary_valid.mean()
    assert values["clips"]["filled_in"] == pytest.approx(filled_in)
    assert "12 clips of 3 classes" in text and "3 to 14 a clip, 10.0 a second" in text
    assert "36" not in text.partition("\n")[2]  # the first line names the file's folder
    assert f"regions in 2 to 7 of them; {filled_in:.1%} of the boxes filled in" in text and "image" not in text[:1300]
    clip = json.loads(run("--image", "p3_right.mp4", "--json").stdout)
    row = int(np.flatnonzero(clip_boxes.names == b"test/right/p3_right.mp4")[0])
    usable = int(np.searchsorted(clip_boxes.usable, row))
    assert [frame["frame"] for frame in clip["clip"]["with_regions"]] == [0, 2, 4, 6, 8, 10, 12]
    for frame in clip["clip"]["with_regions"]:
        boxes = [region["box_xyxy"] for region in frame["regions"]]
        np.testing.assert_allclose(boxes, clip_boxes.regions(usable, frame["frame"]).boxes_xyxy, atol=0.005)
        assert frame["valid"] == clip_boxes.region_valid(usable, frame["frame"]).tolist()
    text = run("--image", "p3_right.mp4").stdout
    assert f"(clip {row})" in text and "14, 10 a second" in text and "0, 2, 4, 6, 8, 10, 12" in text
    assert "12 clips are unchanged" in run("--verify").stdout or "12 of the 12 clips" in run("--verify", code=1).stderr
    assert "has no clip nobody" in last_line(run("--image", "nobody", code=1))
