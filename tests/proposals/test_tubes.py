"""Keypoint tubes: a region is the same thing in all frames of a clip."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from agnet.data.boxes.reader import read_boxes
from agnet.data.contents import hash_of
from agnet.data.errors import ConfigurationError, ImageError
from agnet.data.regions import boxes_of_hulls
from agnet.proposals import tubes as tubes_module
from agnet.proposals.run import propose_dataset
from agnet.proposals.settings import ProposalSettings
from agnet.proposals.tubes import keypoint_tubes, propose_clip

SETTINGS = ProposalSettings(primary=2, frames=6)


def moving_squares(frames, hidden=()):
    """Grey frames with a textured square that moves right at the top and one that moves left at the bottom."""
    generator = np.random.default_rng(3)
    textures = [cv2.resize(generator.integers(0, 256, (12, 12), np.uint8), (60, 60)) for _ in range(2)]
    found = []
    for number in range(frames):
        frame = np.full((224, 224), 128, np.uint8)
        frame[20:80, 10 + 4 * number : 70 + 4 * number] = textures[0]
        if number not in hidden:
            frame[140:200, 150 - 4 * number : 210 - 4 * number] = textures[1]
        found.append(frame)
    return found


def test_tubes_follow_what_moves():
    regions, valid = keypoint_tubes(moving_squares(8), SETTINGS, (224, 224))
    boxes = np.stack([one.primary_xyxy for one in regions])
    top = int(boxes[0, 1, 1] < boxes[0, 0, 1])  # the slot of the upper square
    for number in range(8):
        for slot, square in ((top, (10 + 4 * number, 20)), (1 - top, (150 - 4 * number, 140))):
            assert np.abs(boxes[number, slot] - [*square, square[0] + 60, square[1] + 60]).max() < 14
    assert valid.all() and {one.total_keypoints for one in regions} == {sum(one.keypoints.sum() for one in regions)}


def test_an_empty_box_is_filled_in_between_its_neighbours_and_marked():
    regions, valid = keypoint_tubes(moving_squares(8, hidden=(2, 3, 7)), SETTINGS, (448, 224))
    low = int(regions[0].primary_xyxy[0, 1] < regions[0].primary_xyxy[1, 1])  # the slot of the lower square
    assert valid[:, low].tolist() == [True, True, False, False, True, True, True, False] and valid[:, 1 - low].all()
    boxes = np.stack([one.primary_xyxy[low] for one in regions])
    np.testing.assert_allclose(boxes[2], boxes[1] + (boxes[4] - boxes[1]) / 3, atol=0.11)
    np.testing.assert_allclose(boxes[7], boxes[6], atol=0.11)
    one = regions[2]
    assert one.keypoints[low] == 0
    np.testing.assert_array_equal(boxes_of_hulls(one.hull_xy, one.hull_counts, one.size_wh), one.primary_xyxy)
    assert boxes[0, 0] > 250  # in pixels of the frame, which is twice as wide as the squashed one


@pytest.mark.parametrize("kind", ["space", "space-time"])
def test_either_mixture_is_repeatable_and_of_few_keypoints_the_whole_frame(kind):
    settings = replace(SETTINGS, tubes=kind)
    frames = moving_squares(4)
    first, again = (keypoint_tubes(frames, settings, (224, 224))[0] for _ in range(2))
    assert all(np.array_equal(a.hull_xy, b.hull_xy) for a, b in zip(first, again, strict=True))
    regions, valid = keypoint_tubes([np.zeros((224, 224), np.uint8)] * 3, settings, (100, 50))
    assert not valid.any() and (np.stack([one.primary_xyxy for one in regions]) == [0, 0, 100, 50]).all()
    assert not regions[0].enough_keypoints


def test_a_clip_is_read_by_time_and_long_ones_in_little_memory(clip_folder, monkeypatch):
    path = clip_folder / "test" / "right" / "p3_right.mp4"
    tubes = propose_clip(path, SETTINGS)
    assert (tubes.frames, round(tubes.frames_a_second, 3)) == (14, 10)
    assert tubes.numbers.tolist() == [1, 3, 5, 8, 10, 12]
    monkeypatch.setattr(tubes_module, "_KEPT", 7)
    few = propose_clip(path, SETTINGS)
    assert few.frames == 14 and set(few.numbers.tolist()) <= set(range(0, 14, 2))
    monkeypatch.setattr(tubes_module, "MAX_FRAMES", 12)
    with pytest.raises(ImageError, match="has 14 frames, more than the 12 of a clip; cut it"):
        propose_clip(path, SETTINGS)
    for method in ("grid", "random"):
        still = propose_clip(path, ProposalSettings(primary=2, frames=6, method=method))
        assert still.numbers.tolist() == [0] and still.valid.all()
    nothing = propose_clip(path, ProposalSettings(method="none", primary=0, kinds="none", frames=6))
    assert (nothing.frames, nothing.regions[0].size_wh) == (14, (64, 48))


def test_a_data_set_of_clips_has_the_same_file_however_it_is_made(clip_index, tmp_path):
    (tmp_path / "clips").mkdir()
    for name in clip_index.names:
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clips" / name).write_bytes((clip_index.root / name).read_bytes())
    broken = tmp_path / "clips" / clip_index.names[4]
    broken.write_bytes(broken.read_bytes()[:-200])
    index = replace(clip_index, root=tmp_path / "clips")
    straight, stopped = tmp_path / "a.h5", tmp_path / "b.h5"
    propose_dataset(index, SETTINGS, straight, jobs=1)

    def stop(done, unreadable):
        if done > 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        propose_dataset(index, SETTINGS, stopped, jobs=1, progress=stop)
    summary = propose_dataset(index, SETTINGS, stopped, jobs=1)
    assert straight.read_bytes() == stopped.read_bytes() and summary.unreadable == 1
    boxes = read_boxes(straight)
    ((name, reason),) = boxes.failures
    assert name == clip_index.names[4] and reason == "it has no readable frame"
    row = boxes.rows("test")[0]
    assert boxes.frames_of(row).tolist() == [1, 3, 5, 8, 10, 12] and boxes.regions(row, 8).primary_xyxy.shape == (2, 4)
    for settings, rows in ((ProposalSettings(), index), (SETTINGS, replace(index, of_clips=False))):
        with pytest.raises(ConfigurationError, match="proposal setting 'frames'"):
            propose_dataset(rows, settings, tmp_path / "c.h5")


def test_a_clip_that_kills_its_decoder_costs_itself_alone(clip_index, tmp_path, monkeypatch):
    victim = clip_index.names[4]

    def in_workers_that_die(chunks, task, lost, jobs):
        for chunk in chunks:
            yield [lost(name, "its worker was killed") if name == victim else task([name])[0] for name in chunk]

    monkeypatch.setattr("agnet.proposals.run.in_parallel", in_workers_that_die)
    summary = propose_dataset(clip_index, SETTINGS, tmp_path / "a.h5", previews=False)
    boxes = read_boxes(tmp_path / "a.h5")
    assert summary.unreadable == 1 and boxes.failures == ((victim, "its worker was killed"),)
    assert boxes.contents[4].decode() == hash_of(clip_index.root / victim)  # so that it is not tried again


def test_methods_for_images_alone_are_refused_for_clips():
    with pytest.raises(ConfigurationError, match="mask-rcnn is for images, not for clips"):
        ProposalSettings(method="mask-rcnn", frames=8)
    assert "frames" not in ProposalSettings().to_dict() and ProposalSettings(frames=8).to_dict()["tubes"] == "space"
