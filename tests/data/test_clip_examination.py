"""A data set of clips looked at as a whole: broken tails, counts of frames, copies, groups on both sides."""

import shutil
import struct

import cv2
import numpy as np
import pytest

from agnet.data.sets.catalogue import open_dataset
from agnet.data.sets.examination import Copy, DividedGroup, examine
from agnet.data.sets.examination_report import examination_text
from agnet.data.videos import VideoWriter

PERSON = r"(p\d)_[^/]*$"


def film(path, frames, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
    with VideoWriter(path, 10) as video:
        for number in range(frames):
            video.write(np.roll(pixels, number, axis=1))


def film_with_lost_frames(path, frames, lost):
    """An AVI whose last frames hold no pictures."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), number, np.uint8))
    writer.release()
    content = bytearray(path.read_bytes())
    place = content.index(b"movi") + 4
    for number in range(frames):
        (length,) = struct.unpack_from("<I", content, place + 4)
        if number >= frames - lost:
            content[place + 8 : place + 8 + length] = bytes(length)
        place += 8 + length + length % 2
    path.write_bytes(content)


def photograph(path, width=64, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (48, width, 3), np.uint8))


@pytest.fixture
def clips(tmp_path):
    """Two classes, each of a video and a folder of frames by a person to train on and one to test on."""
    for seed, label in enumerate(("jump", "wave")):
        for split, person in (("train", "p1"), ("test", "p2")):
            film(tmp_path / split / label / f"{person}_{label}.mp4", 4 + seed, [seed, len(person), split == "train"])
            for number in range(3):
                frame = tmp_path / split / label / f"{person}_frames" / f"{number}.png"
                photograph(frame, seed=[seed, number, split == "train"])
    return tmp_path


def examined(root, **options):
    return examine(open_dataset("clips", root, val_fraction=0, **options), jobs=1)


def test_sound_clips_are_sound_and_called_clips(clips):
    found = examined(clips, group_pattern=PERSON)
    assert found.sound and found.of_clips and found.counts == {"train": 4, "test": 4} and found.groups == 2
    assert not (found.odd or found.duplicates or found.near_duplicates or found.divided_groups)
    text = examination_text(found)
    assert text.startswith(f"{clips.name}: 8 clips of 2 classes (4 train, 4 test)\n")
    assert "groups, of 2, that are in two splits or more: none\nclips that look alike are not searched for" in text


def test_broken_clips_are_named_with_their_reason_but_not_their_root(clips):
    video = clips / "train/jump/p1_jump.mp4"
    video.write_bytes(video.read_bytes()[:-100])
    (clips / "test/jump/p2_jump.mp4").write_bytes(b"")
    photograph(clips / "train/wave/p1_frames/1.png", width=60)
    frame = clips / "test/wave/p2_frames/2.png"
    frame.write_bytes(frame.read_bytes()[:200])
    reasons = {odd.image: odd.reason for odd in examined(clips).unreadable}
    assert reasons.keys() == {
        "train/jump/p1_jump.mp4",
        "test/jump/p2_jump.mp4",
        "train/wave/p1_frames",
        "test/wave/p2_frames",
    }
    assert reasons["test/jump/p2_jump.mp4"] == "the file is empty"
    assert reasons["train/wave/p1_frames"].startswith("1.png: has 60 x 48 pixels, but the clip's first frame 64")
    assert reasons["test/wave/p2_frames"].startswith("2.png: ")
    assert not any(str(clips) in reason for reason in reasons.values())


def test_odd_clips_are_told_but_no_fault(clips):
    film(clips / "train/jump/p3_short.mp4", 1)
    photograph(clips / "train/jump/p3_thin/0.png", width=400)
    photograph(clips / "train/jump/p3_thin/1.png", width=400)
    for name, lost in (("p3_few.avi", 4), ("p3_one.avi", 1)):
        film_with_lost_frames(clips / "train/wave" / name, 50, lost)
    found = examined(clips)
    assert found.sound and {odd.image: odd.reason for odd in found.odd} == {
        "train/jump/p3_short.mp4": "has a single frame",
        "train/jump/p3_thin": "is a strip of 400 x 48 pixels",
        "train/wave/p3_few.avi": "has 46 frames, but announces 50",
    }


def test_copies_of_videos_and_of_frames_are_found_across_splits(clips):
    shutil.copy(clips / "train/jump/p1_jump.mp4", clips / "test/wave/p2_again.mp4")
    shutil.copytree(clips / "train/jump/p1_frames", clips / "test/jump/p2_again")
    found = examined(clips)
    assert all(copies.across_splits for copies in found.duplicates)
    assert {(copies.copies, copies.different_classes) for copies in found.duplicates} == {
        ((Copy("train/jump/p1_frames", "train", "jump"), Copy("test/jump/p2_again", "test", "jump")), False),
        ((Copy("train/jump/p1_jump.mp4", "train", "jump"), Copy("test/wave/p2_again.mp4", "test", "wave")), True),
    }


def test_groups_on_both_sides_are_found(clips):
    film(clips / "test/wave/p1_more.mp4", 4, seed=9)
    found = examined(clips, group_pattern=PERSON)
    assert found.sound and found.divided_groups == (DividedGroup("p1", {"train": 4, "test": 1}),)
    assert "that are in two splits or more: 1\n    p1: 4 train, 1 test\n" in examination_text(found)
    assert found.to_dict()["divided_groups"] == ({"group": "p1", "counts": {"train": 4, "test": 1}},)
