"""`agnet datasets`: what there is, what of it is here, and bringing the rest, from a server on this machine."""

import io
import json
import zipfile
from dataclasses import replace

import pytest
from PIL import Image

from agnet.data.sets import availability
from agnet.data.sets.availability import look_up
from agnet.data.sets.catalogue import CATALOGUE
from agnet.data.sets.entry import Download

ACTIONS = ("blowing_bubbles", "riding_a_bike")
IMAGES, LISTS = "Stanford40_JPEGImages.zip", "Stanford40_ImageSplits.zip"


def zipped(files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, contents in files.items():
            archive.writestr(name, contents)
    return file.getvalue()


@pytest.fixture
def stanford40(site, textured, monkeypatch):
    """The site gives a Stanford-40 of two actions with three images each, one of them to train on, as its makers do."""
    images, lists = {"__MACOSX/._JPEGImages": b"Mac"}, {}
    parts = {"train": [], "test": []}
    for label, action in enumerate(ACTIONS):
        names = [f"{action}_{number:03d}.jpg" for number in (1, 2, 3)]
        for number, name in enumerate(names):
            file = io.BytesIO()
            Image.fromarray(textured([label, number], 96, 80)).save(file, "JPEG")
            images[f"JPEGImages/{name}"] = file.getvalue()
        for split, mine in (("train", names[:2]), ("test", names[2:])):
            lists[f"ImageSplits/{action}_{split}.txt"] = "\n".join(mine) + "\n"
            parts[split] += mine
    for split, names in parts.items():
        lists[f"ImageSplits/{split}.txt"] = "\n".join(names)
    lists["ImageSplits/actions.txt"] = "action_name\tnumber\n" + "".join(f"{action}\t3\n" for action in ACTIONS)
    site.files = {f"/{IMAGES}": zipped(images), f"/{LISTS}": zipped(lists)}
    downloads = tuple(Download(site.url + name, bytes=len(contents)) for name, contents in site.files.items())
    entry = replace(CATALOGUE["stanford40"], classes=2, counts={"train": 4, "test": 2}, downloads=downloads)
    monkeypatch.setitem(CATALOGUE, "stanford40", entry)
    return site


def state(root):
    return look_up("stanford40", root).state


def test_the_table_has_a_line_for_every_data_set_and_makes_nothing(agnet, tmp_path):
    lines = agnet("datasets").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(CATALOGUE)
    food = next(line for line in lines if line.startswith("food101"))
    assert all(word in food for word in ("75,750", "25,250", "101", "5 GB", "not there", "--download"))
    assert "by hand" in next(line for line in lines if line.startswith("auc-v2"))
    assert max(map(len, lines)) <= 140
    assert list(tmp_path.iterdir()) == []


def test_json_has_all_of_it(agnet):
    told = {one["name"]: one for one in json.loads(agnet("datasets", "--json").stdout)}
    assert list(told) == list(CATALOGUE)
    assert told["ppmi24"]["images"] == {"train": 2400, "test": 2400} and told["ppmi24"]["classes"] == 24
    assert told["caltech256"]["state"] == availability.NOT_THERE and told["caltech256"]["downloads"][0]["md5"]
    assert json.loads(agnet("datasets", "auc-v1", "--json").stdout) == told["auc-v1"]


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_data_set_tells_of_itself(agnet, name):
    text = agnet("datasets", name).stdout
    entry = CATALOGUE[name]
    assert text.startswith(f"name      {name}: {entry.title}\n") and entry.split in text and entry.licence in text
    assert entry.how in text and entry.flaws in text
    for download in entry.downloads:
        assert download.url in text
        assert ("checked by" if download.md5 or download.sha256 else "no checksum is known") in text


def test_official_downloads_are_web_addresses_of_archives_with_well_formed_checksums():
    for entry in CATALOGUE.values():
        for download in entry.downloads:
            assert download.url.startswith(("https://", "http://")) and download.url.endswith(
                (".zip", ".tar", ".tar.gz", ".tgz")
            )
            assert download.md5 is None or (len(download.md5) == 32 and int(download.md5, 16))
            assert download.sha256 is None or (len(download.sha256) == 64 and int(download.sha256, 16))
        assert entry.folder or not entry.downloads


def test_a_data_set_is_fetched_unpacked_and_proposed(agnet, stanford40, tmp_path):
    result = agnet("datasets", "stanford40", "--download", "--root", "data sets")
    assert result.stdout == "data sets/Stanford40\n"
    assert result.stderr.count("the archive may be deleted") == 2
    assert {path.name for path in (tmp_path / "data sets").iterdir()} == {IMAGES, LISTS, "Stanford40"}
    assert {path.name for path in (tmp_path / "data sets" / "Stanford40").iterdir()} == {"JPEGImages", "ImageSplits"}
    assert state(tmp_path / "data sets") == availability.COMPLETE
    asked = len(stanford40.asked)
    agnet("datasets", "--download", "stanford40", "--root", "data sets")
    assert len(stanford40.asked) == asked, "what is complete is not fetched again"
    agnet("propose", "--dataset", "stanford40", "--root", "data sets", "--primary", 3, "--jobs", 1)
    assert json.loads(agnet("inspect", "--json").stdout)["dataset"] == "stanford40"


def test_an_interrupted_download_is_told_of_and_goes_on(agnet, stanford40, tmp_path):
    root = tmp_path / "datasets"
    stanford40.behaviours = [("cut", 1000)] + [("cut", 0)] * 9
    result = agnet("datasets", "stanford40", "--download", code=1)
    assert "run the same again to resume" in result.stderr and "Traceback" not in result.stderr
    assert state(root) == availability.HALF_A_DOWNLOAD
    assert "half a download" in agnet("datasets").stdout
    stanford40.behaviours = []
    stanford40.asked.clear()
    agnet("datasets", "stanford40", "--download")
    assert stanford40.asked[0][1] == "bytes=1000-" and state(root) == availability.COMPLETE


@pytest.mark.parametrize("place", ["datasets", "datasets/Stanford40"])
def test_archives_fetched_by_hand_are_taken(agnet, stanford40, tmp_path, place):
    (tmp_path / place).mkdir(parents=True)
    for name, contents in stanford40.files.items():
        (tmp_path / place / name[1:]).write_bytes(contents)
    assert state(tmp_path / "datasets") == availability.NOT_EXTRACTED
    agnet("datasets", "stanford40", "--download")
    assert stanford40.asked == [] and state(tmp_path / "datasets") == availability.COMPLETE


def test_what_is_partly_there_is_left_alone(agnet, stanford40, tmp_path):
    agnet("datasets", "stanford40", "--download")
    lost = tmp_path / "datasets" / "Stanford40" / "JPEGImages" / f"{ACTIONS[0]}_001.jpg"
    lost.unlink()
    asked = len(stanford40.asked)
    result = agnet("datasets", "stanford40", "--download", code=1)
    assert f"{lost.name}" in result.stderr and "move the existing files away" in result.stderr
    assert state(tmp_path / "datasets") == availability.PARTLY and len(stanford40.asked) == asked


@pytest.mark.parametrize("obstacle", ["an archive in both places", "a plain file", "another file"])
def test_what_is_in_the_way_is_told_before_anything_is_fetched(agnet, stanford40, tmp_path, obstacle):
    root = tmp_path / "datasets"
    folder = root / "Stanford40"
    root.mkdir()
    if obstacle == "a plain file":
        folder.write_text("notes")
        named = folder
    else:
        folder.mkdir()
        (folder / ".DS_Store").write_bytes(b"Mac")
        named = folder / (IMAGES if "archive" in obstacle else "notes.txt")
        named.write_bytes(stanford40.files[f"/{IMAGES}"])
    if obstacle == "an archive in both places":
        (root / IMAGES).write_bytes(stanford40.files[f"/{IMAGES}"])
    before = {path: path.is_file() and path.read_bytes() for path in root.rglob("*")}
    result = agnet("datasets", "stanford40", "--download", code=1)
    assert f"{named.relative_to(tmp_path)} is in the way of the files to be unpacked: delete it" in result.stderr
    assert stanford40.asked == []
    assert {path: path.is_file() and path.read_bytes() for path in root.rglob("*")} == before


@pytest.mark.parametrize("name", [".DS_Store", "._JPEGImages"])
def test_what_a_mac_leaves_in_the_folder_is_not_in_the_way(agnet, stanford40, tmp_path, name):
    folder = tmp_path / "datasets" / "Stanford40"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(b"Mac")
    agnet("datasets", "stanford40", "--download")
    assert state(tmp_path / "datasets") == availability.COMPLETE and not (folder / name).exists()


def test_a_web_page_in_place_of_an_archive_is_not_kept(agnet, stanford40, tmp_path, monkeypatch):
    downloads = tuple(Download(one.url) for one in CATALOGUE["stanford40"].downloads)
    monkeypatch.setitem(CATALOGUE, "stanford40", replace(CATALOGUE["stanford40"], downloads=downloads))
    archive, stanford40.files[f"/{IMAGES}"] = stanford40.files[f"/{IMAGES}"], b"<html>We have moved</html>"
    assert "a web page instead of a .zip file" in agnet("datasets", "stanford40", "--download", code=1).stderr
    stanford40.files[f"/{IMAGES}"] = archive
    agnet("datasets", "stanford40", "--download")
    assert state(tmp_path / "datasets") == availability.COMPLETE


def test_a_damaged_archive_leaves_no_data_set(agnet, stanford40, tmp_path):
    broken = bytearray(stanford40.files[f"/{IMAGES}"])
    broken[len(broken) // 2] ^= 1
    stanford40.files[f"/{IMAGES}"] = bytes(broken)
    result = agnet("datasets", "stanford40", "--download", code=1)
    assert f"{IMAGES} is damaged or cut short" in result.stderr and "delete it and download it again" in result.stderr
    assert {path.name for path in (tmp_path / "datasets").iterdir()} == {IMAGES, LISTS}


def test_an_archive_with_other_images_than_the_book_says_is_told(agnet, stanford40, monkeypatch):
    monkeypatch.setitem(CATALOGUE, "stanford40", replace(CATALOGUE["stanford40"], counts={"train": 5, "test": 2}))
    assert "is not as distributed" in agnet("datasets", "stanford40", "--download", code=1).stderr


def test_ctrl_c_tells_how_to_go_on(agnet, stanford40, monkeypatch):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("agnet.data.sets.fetch.extract", interrupted)
    result = agnet("datasets", "stanford40", "--download", code=130)
    assert "Interrupted. The partial download is kept in datasets: run the same command to resume" in result.stderr


@pytest.mark.parametrize("name", ["auc-v1", "auc-v2"])
def test_a_data_set_behind_a_form_comes_with_instructions(agnet, tmp_path, name):
    result = agnet("datasets", name, "--download", code=1)
    assert "cannot be downloaded automatically: sign the licence agreement at https://" in result.stderr
    assert result.stdout == "" and list(tmp_path.iterdir()) == []
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "auc.distracted.driver.dataset_v2.zip").write_bytes(b"PK")
    assert look_up(name, tmp_path / "datasets").state == availability.NOT_EXTRACTED
    assert "is not extracted: extract it there" in agnet("datasets", name, "--download", code=1).stderr


@pytest.mark.parametrize("name", ["demo", "folder", "csv"])
def test_there_is_nothing_to_fetch_for_ones_own_and_the_demo(agnet, name):
    assert "there is nothing to download for" in agnet("datasets", name, "--download", code=1).stderr


def test_a_download_needs_a_name_that_is_known(agnet):
    assert "--download needs the NAME" in agnet("datasets", "--download", code=2).stderr
    agnet("datasets", "imagenet", "--download", code=2)


def test_clips_are_called_clips_and_verified(agnet, clip_folder):
    assert "clips     3,570 train, 1,530 test\n" in agnet("datasets", "hmdb51").stdout
    asked = ["datasets", "clips", "--verify", "--root", clip_folder, "--jobs", "1", "--group-pattern", r"(p\d)_[^/]*$"]
    text = agnet(*asked).stdout
    assert text.startswith(f"{clip_folder.name}: 12 clips of 3 classes (9 train, 3 test)\ncannot be read: none\n")
    assert "groups, of 4, that are in two splits or more: none" in text
    found = json.loads(agnet(*asked, "--json").stdout)
    assert found["sound"] and found["of_clips"] and (found["groups"], found["divided_groups"]) == (4, [])
    assert "clips are not compared by their looks" in agnet(*asked, "--sheet", "a.png", code=2).stderr
    assert "need --verify" in agnet("datasets", "hmdb51", "--split-number", "2", code=2).stderr


def test_a_protocol_that_leaks_is_said_to_leak_before_anything_is_proposed(agnet, tmp_path):
    lists = tmp_path / "hmdb51/testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    for label in ("wave", "run"):
        (tmp_path / "hmdb51" / label).mkdir()
        names = [f"Film{number}_{label}_f_cm_np1_fr_med_0.avi" for number in range(6)]
        for name in names:
            (tmp_path / "hmdb51" / label / name).touch()
        labels = [f"{name} {number % 3} " for number, name in enumerate(names)]
        (lists / f"{label}_test_split3.txt").write_text("\n".join(labels))
    asked = ["propose", "hmdb51", "--root", tmp_path, "--split-number", "3", "--any-counts", "--method", "none"]
    said = agnet(*asked, "--protocol", "tutorial", code=1).stderr
    assert "Warning: the tutorial's protocol trains on" in said
    assert (
        "hmdb51, split 3, tutorial's protocol (test clips leak): 12 clips of 2 classes (8 train, 2 val, 2 test)" in said
    )
    assert "the split number of hmdb51 is 1 to 3, got 4" in agnet(*asked, "--split-number", "4", code=1).stderr
    assert "has no tutorial's protocol" in agnet("propose", "demo", "--protocol", "tutorial", code=1).stderr
