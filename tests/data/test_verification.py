"""Whether images are still those of a boxes file, before anybody trains on them or measures with them."""

import os
import shutil
import time
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from agnet.data.boxes import verification
from agnet.data.boxes.reader import read_boxes
from agnet.data.boxes.verification import changed_images, look_at_images, stamps_of
from agnet.data.errors import DatasetError, MismatchError
from agnet.data.regions import NOT_THERE
from agnet.data.sets.catalogue import open_dataset
from agnet.proposals.run import propose_dataset
from agnet.proposals.settings import ProposalSettings

pytestmark = pytest.mark.usefixtures("small_mobilenet")

TRAIN = ["--backbone", "mobilenet-v3-small", "--weights", "none", "--workers", 0, "--device", "cpu", "--epochs", 1]


@pytest.fixture
def boxes(boxes_file, folder):
    """The boxes file's content; its images are copies whose times of change are another day's."""
    return read_boxes(boxes_file)


@pytest.fixture
def fresh(folder, tmp_path):
    """The folder's boxes file, its images as they were."""
    propose_dataset(open_dataset("folder", folder), ProposalSettings(method="grid"), tmp_path / "boxes.h5")
    return read_boxes(tmp_path / "boxes.h5")


@pytest.fixture
def read(monkeypatch):
    """Names of the files that were read to compare their content."""
    found = []
    original = verification._other_content
    monkeypatch.setattr(
        verification, "_other_content", lambda path, digest: found.append(path.name) or original(path, digest)
    )
    return found


def check_images(*arguments, **others):
    if error := look_at_images(*arguments, **others).error():
        raise error


def every(boxes):
    return np.arange(len(boxes.names))


def retime(folder, seconds=1):
    for path in folder.rglob("*.png"):
        os.utime(path, (seconds, seconds))


def test_images_as_they_were_cost_a_look_at_their_times(fresh, folder, read):
    check_images(fresh, folder, every(fresh))
    assert read == []


@pytest.mark.parametrize("seconds", [-(10**9), 0, 1, 2**33, 10**11])  # 1938, 1970, 2242, and past what 64 bits hold
def test_a_copy_with_other_times_is_read_and_taken(fresh, folder, read, seconds):
    retime(folder, seconds)
    said, shown = [], []
    check_images(
        fresh,
        folder,
        every(fresh),
        watch=lambda what, images: lambda done, values: shown.append((done, images)),
        say=said.append,
    )
    assert len(read) == 18 and not said and shown == [(done, 18) for done in range(1, 19)]


@pytest.mark.parametrize("seconds", [-(10**9), 0, 2**33, 10**11])
def test_a_file_may_be_of_any_time(folder, tmp_path, seconds, read):
    retime(folder, seconds)
    index = open_dataset("folder", folder)
    propose_dataset(index, ProposalSettings(method="grid"), tmp_path / "boxes.h5")
    found = read_boxes(tmp_path / "boxes.h5")
    check_images(found, folder, every(found))
    assert read == [] and propose_dataset(index, ProposalSettings(method="grid"), tmp_path / "boxes.h5").reused == 18
    kept = time.gmtime((folder / "val" / "ant" / "0.png").stat().st_mtime).tm_year  # some disks go no further
    assert {int(text[:4]) for text in found.modified_utc.tolist()} == {min(kept, 2262)}


def test_other_sizes_and_other_contents_are_counted_and_the_first_is_named(boxes, folder):
    smaller, other = folder / "train" / "ant" / "2.png", folder / "val" / "bee" / "1.png"
    smaller.write_bytes(smaller.read_bytes()[:-1])
    other.write_bytes(other.read_bytes()[:-1] + b"?")
    had = smaller.stat().st_size + 1
    with pytest.raises(MismatchError) as raised:
        check_images(boxes, folder, every(boxes))
    assert str(raised.value) == (
        f"2 of the 18 images of {boxes.path} have changed since that file was made, first {smaller} "
        f"(had {had:,} bytes and has {had - 1:,} now); restore the original images, or run the same agnet propose with "
        "--restart"
    )
    smaller.write_bytes(smaller.read_bytes() + b"?")
    with pytest.raises(MismatchError, match=r"2 of the 18 .*first .*train/ant/2\.png \(has different content\)"):
        check_images(boxes, folder, every(boxes))


def test_only_images_that_are_to_be_used_are_looked_at(boxes, folder):
    shutil.rmtree(folder / "val")
    check_images(boxes, folder, np.flatnonzero(boxes.splits != "test"))
    check_images(boxes, folder, np.zeros(0, dtype=np.int64))


def lose(path):
    path.unlink()


def make_folder(path):
    path.unlink()
    path.mkdir()


def break_link(path):
    path.unlink()
    path.symlink_to(path.with_name("nowhere.png"))


def rename_class(path):
    path.parent.rename(path.parent.with_name("wasp"))


def take_apart(path):
    path.parent.rename(path.parent.with_name(unicodedata.normalize("NFD", path.parent.name)))


@pytest.mark.parametrize(
    ("name", "change", "count", "why"),
    [
        ("train/bee/1.png", lose, 1, "No such file or directory"),
        ("train/bee/1.png", make_folder, 1, "it is a folder or device now"),
        ("train/bee/1.png", break_link, 1, "it is a link that leads nowhere"),
        (
            "train/bee/1.png",
            lambda path: path.rename(path.with_name("1.PNG")),
            1,
            "train/bee/1.PNG there, in another spelling",
        ),
        ("train/bee/0.png", rename_class, 4, "there is no folder .*/train/bee"),
        ("train/côté/0.png", take_apart, 4, "train/co.*/0.png there, in another spelling"),
    ],
)
def test_some_that_are_missing_are_no_wrong_root(boxes, folder, name, change, count, why):
    change(folder / name)
    with pytest.raises(
        DatasetError, match=rf"{count} of the 18 images of .* (is|are) missing under .*, first {name} \(.*{why}"
    ):
        check_images(boxes, folder, every(boxes))
    with pytest.raises(DatasetError) as raised:
        check_images(boxes, folder, every(boxes))
    assert "restore the original images, or run the same agnet propose with --restart" in str(raised.value)
    assert "--root" not in str(raised.value)


def test_missing_and_changed_ones_are_told_together(boxes, folder):
    (folder / "train" / "ant" / "0.png").write_bytes(b"")
    for _ in range(11):
        next(folder.glob("*/[bc]*/*.png")).unlink()
    expected = r"11 of the 18 images .* missing .*; 1 of the 18 images .* or say with --root where they are$"
    with pytest.raises(DatasetError, match=expected):
        check_images(boxes, folder, every(boxes))


@pytest.mark.parametrize("place", ["elsewhere", "."])
def test_where_none_is_there_the_root_is_asked_for(boxes, folder, tmp_path, place):
    with pytest.raises(DatasetError, match=r"are not under .* \(looked for .*/train/ant/0\.png: there is no .*--root$"):
        check_images(boxes, tmp_path / place, every(boxes))


def test_a_file_that_does_not_say_what_its_images_are_is_believed(boxes, folder):
    (folder / "train" / "ant" / "0.png").write_bytes(b"another")
    check_images(replace(boxes, contents=np.full(18, b"", "S16")), folder, every(boxes))


def test_of_very_many_bytes_some_files_are_read_and_that_is_said(fresh, folder, read, monkeypatch):
    retime(folder)
    total = sum(path.stat().st_size for path in folder.rglob("*.png"))
    monkeypatch.setattr(verification, "READ_AT_MOST", total // 3)
    said = []
    check_images(fresh, folder, every(fresh), say=said.append)
    assert 4 <= len(read) <= 6
    assert len(said) == 1 and said[0].startswith("18 images have another time of change")
    assert (
        f"; {len(read)} of them were read, of which {len(read)} are the same; agnet inspect --verify reads all"
        in said[0]
    )


def test_stamps_are_those_of_each_file_however_many_ask(tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "_STAMPS", 3)
    names = [f"{number}.jpg" for number in range(10)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(b"x" * number)
        os.utime(tmp_path / name, ns=(0, 10 * number))
    (tmp_path / "4.jpg").unlink()
    sizes, times = stamps_of(tmp_path, names)
    assert sizes.tolist() == [0, 1, 2, 3, 0, 5, 6, 7, 8, 9]
    assert times.tolist() == [0, 10, 20, 30, NOT_THERE, 50, 60, 70, 80, 90]
    assert [len(column) for column in stamps_of(tmp_path, [])] == [0, 0]


def turn(path):
    """Save a picture again upside down: the same size in pixels, other bytes."""
    with Image.open(path) as picture:
        picture.transpose(Image.Transpose.ROTATE_180).save(path, compress_level=1)


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--seeds", 0, 1)])
def test_nothing_is_trained_on_other_images(agnet, boxes_file, folder, more):
    for path in sorted(folder.rglob("*.png")):
        turn(path)
    refused = agnet("train", "--root", folder, "--run", "run", *TRAIN, *more, code=1)
    assert "18 of the 18 images of boxes.h5 have changed since" in refused.stderr
    assert not (folder.parent / "run").exists()


def test_a_run_is_not_resumed_with_other_images_nor_measured_on_them(agnet, boxes_file, folder):
    start = ["train", "--root", folder, "--run", "run", *TRAIN[:-2], "--epochs", 2, "--image-size", 64]
    agnet(*start, "--stop-after", 1)
    evaluate = ["evaluate", "--root", folder, "--run", "run", "--workers", 0, "--device", "cpu"]
    tested = folder / "val" / "ant" / "0.png"
    content = tested.read_bytes()
    turn(tested)
    refused = agnet(*evaluate, code=1)
    assert "1 of the 6 test images of" in refused.stderr and f"first {tested} (had" in refused.stderr
    agnet(*evaluate, "--split", "val")
    learnt = next(path for path in sorted(folder.rglob("*.png")) if "train" in path.parts)
    whole = learnt.read_bytes()
    learnt.write_bytes(whole[:-1])
    assert "2 of the 18 images of" in agnet(*start, "--resume", code=1).stderr
    learnt.write_bytes(whole)
    tested.unlink()
    assert "1 of the 6 test images of" in agnet(*evaluate, code=1).stderr
    warned = agnet(*start, "--resume")  # training does not look at the test part
    assert "Warning: the test split cannot be evaluated later: 1 of the 18 images of" in warned.stderr
    tested.write_bytes(content)
    agnet(*evaluate)


def test_a_picture_of_other_pixels_is_drawn_with_a_warning(agnet, boxes_file, folder):
    turn(folder / "val" / "ant" / "1.png")
    drawn = agnet("inspect", "--root", folder, "--image", "val/ant/1.png", "--save", "one.png")
    assert "Warning: 1 of the 1 drawn images of" in drawn.stderr
    drawn = agnet("inspect", "--root", folder, "--sheet", "all.png")
    assert "Warning: 1 of the 18 drawn images of" in drawn.stderr
    (folder / "val" / "ant" / "1.png").unlink()
    lost = agnet("inspect", "--root", folder, "--image", "val/ant/1.png", "--save", "two.png", code=1)
    assert "1.png is not there, though others are" in lost.stderr and "--root" not in lost.stderr


def test_an_interrupt_does_not_wait_for_all_that_was_to_be_read(fresh, folder, read, monkeypatch):
    retime(folder)
    monkeypatch.setattr(verification, "_THREADS", 1)
    slow = verification._other_content
    monkeypatch.setattr(verification, "_other_content", lambda *arguments: time.sleep(0.02) or slow(*arguments))

    def interrupt(done, values):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look_at_images(fresh, folder, every(fresh), watch=lambda what, images: interrupt)
    assert len(read) < 9


@pytest.fixture
def locked(monkeypatch):
    """A function that locks a folder; as root may enter every folder, the system's answer is played."""
    stat = os.stat

    def lock(folder):
        def guarded(path, *arguments, **others):
            if os.fspath(path).startswith(f"{folder}{os.sep}"):
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return stat(path, *arguments, **others)

        monkeypatch.setattr(os, "stat", guarded)

    return lock


@pytest.mark.parametrize(("place", "count"), [("train/bee", 4), (".", 18)])
def test_a_folder_that_may_not_be_entered_is_told_as_that(boxes, folder, locked, place, count):
    place = folder / place
    locked(place)
    with pytest.raises(DatasetError) as raised:
        check_images(boxes, folder, every(boxes))
    first = "train/bee/0.png" if count < 18 else "train/ant/0.png"
    assert str(raised.value) == (
        f"{count} of the 18 images of {boxes.path} cannot be read under {folder}, first {first} (no permission to "
        f"enter the folder {place}); make them readable for this user (if they are yours: chmod -R u+rX {folder})"
    )
    differences = dict(changed_images(boxes, folder, trust_times=True))
    assert set(differences.values()) == {f"cannot be read: no permission to enter the folder {place}"}
    assert len(differences) == count


def test_locked_and_missing_images_are_told_apart(boxes, folder, locked):
    (folder / "train" / "ant" / "1.png").unlink()
    locked(folder / "train" / "bee")
    with pytest.raises(DatasetError, match=r"4 of the 18 .* cannot be read .*; 1 of the 18 .* is missing .*restore"):
        check_images(boxes, folder, every(boxes))


def test_a_file_that_cannot_be_read_has_not_changed(boxes, folder, monkeypatch):
    retime(folder)
    monkeypatch.setattr(verification, "_other_content", lambda path, digest: "cannot be read: Permission denied")
    with pytest.raises(DatasetError) as raised:
        check_images(boxes, folder, every(boxes))
    assert "18 of the 18 images" in str(raised.value) and "(Permission denied); make them" in str(raised.value)
    assert "changed" not in str(raised.value)
