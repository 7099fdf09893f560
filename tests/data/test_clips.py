"""Clips are sampled by time: which frames are chosen, from videos of any rate and from folders of frames."""

import cv2
import numpy as np
import pytest

from agnet.data.clips import FrameFolder, frames_at, open_clip
from agnet.data.contents import frame_files, hash_of, stamp_of_folder
from agnet.data.errors import ImageError
from agnet.data.regions import content_hash
from agnet.data.sampling import Sampling
from agnet.data.videos import Frame, VideoWriter


class Shown:
    """A clip whose frames start at given times."""

    def __init__(self, starts, rate):
        self.starts, self.rate = starts, rate

    def chosen(self, wanted):
        for number, seconds in enumerate(self.starts):
            if wanted(number, seconds):
                yield Frame(number, seconds, None)


def numbers(clip, times):
    return [frame.number for frame in frames_at(clip, times)]


def test_the_nearest_frame_is_chosen_and_each_once():
    clip = Shown([number / 10 for number in range(10)], 10)
    assert numbers(clip, [0, 0.04, 0.1, 0.12, 0.56, 0.9]) == [0, 1, 6, 9]
    for rounding in (-1e-3, 0, 1e-3):
        assert numbers(clip, np.arange(10) / 10 + rounding) == list(range(10))


def test_clips_of_29_97_and_of_30_frames_a_second_are_sampled_alike():
    alike = [Shown([number / rate for number in range(90)], rate) for rate in (29.97, 30)]
    for sampling in (Sampling(16), Sampling(16, "window", 15)):
        found = [numbers(clip, sampling.times(89 / clip.rate)) for clip in alike]
        assert len(found[0]) == 16 and found[0] == found[1]


def test_times_count_and_not_frames():
    slow_then_fast = [0, 0.5, 1, 1.5, *(2 + number / 40 for number in range(81))]
    chosen = numbers(Shown(slow_then_fast, 84 / 4), Sampling(8).times(4.0))
    times = [slow_then_fast[number] for number in chosen]
    assert len(chosen) == 8 and np.abs(np.subtract(times, np.arange(8) / 2 + 0.25)).max() <= 0.25


def test_short_clips_give_each_frame_once():
    clip = Shown([number / 10 for number in range(5)], 10)
    assert numbers(clip, Sampling(16).times(0.4)) == list(range(5))
    assert numbers(clip, Sampling(16, "window", 30).times(0.4)) == list(range(5))
    assert numbers(Shown([0], 25), Sampling(4).times(0.0)) == [0]
    assert numbers(Shown([0], 25), Sampling(4, "window", 15).times(0.0)) == [0]


def test_windows_cover_a_clip_once():
    sampling = Sampling(8, "window", 10)
    assert [sampling.windows(last) for last in (0.0, 0.7, 0.8, 2.3, 2.4)] == [1, 1, 2, 3, 4]
    clip = Shown([number / 30 for number in range(61)], 30)
    windows = [numbers(clip, sampling.times(2.0, window=number)) for number in range(3)]
    assert [*windows[0], *windows[1], *windows[2]] == list(range(0, 61, 3))
    assert [len(one) for one in windows] == [8, 8, 5] and sampling.windows(2.0) == 3


def test_random_times_stay_in_their_parts_and_in_the_clip():
    generator = np.random.default_rng(0)
    parts = np.array([Sampling(4).times(8.0, generator) for _ in range(50)])
    assert (np.floor(parts / 2) == [0, 1, 2, 3]).all() and np.ptp(parts, axis=0).min() > 1
    starts = [Sampling(4, "window", 2).times(8.0, generator)[0] for _ in range(50)]
    assert 0 <= min(starts) < 2 and 5 < max(starts) <= 6.5


def test_a_folder_of_frames_is_a_clip(tmp_path):
    for number in range(12):
        cv2.imwrite(str(tmp_path / f"f{number}.png"), np.full((4, 6, 3), 20 * number, np.uint8))
    (tmp_path / "notes.txt").write_text("")
    assert frame_files(tmp_path)[:3] == ["f0.png", "f1.png", "f2.png"]
    with open_clip(tmp_path) as clip:
        assert isinstance(clip, FrameFolder) and clip.size_wh == (6, 4)
        assert [int(frame.pixels[0, 0, 0]) for frame in frames_at(clip, [0.09, 0.44])] == [40, 220]
    cv2.imwrite(str(tmp_path / "f5.png"), np.zeros((9, 6, 3), np.uint8))
    with open_clip(tmp_path) as clip, pytest.raises(ImageError, match=r"f5\.png: has 6 x 9 pixels"):
        list(frames_at(clip, [0.21]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="holds no images"):
        open_clip(tmp_path / "empty")


def test_a_video_gives_the_frames_of_its_times(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 10) as video:
        for number in range(20):
            video.write(np.full((32, 32, 3), 12 * number, np.uint8))
    with open_clip(tmp_path / "a.mp4") as clip:
        found = list(frames_at(clip, [0.0, 0.72, 1.9]))
    assert [frame.number for frame in found] == [0, 7, 19]
    assert np.abs([int(frame.pixels[8, 8, 0]) - 12 * frame.number for frame in found]).max() < 12


def test_the_fingerprint_of_a_folder_is_of_its_frames(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"123" * 10**6)
    assert hash_of(tmp_path / "a.bin") == content_hash(b"123" * 10**6)
    folder = tmp_path / "frames"
    folder.mkdir()
    assert stamp_of_folder(folder) is None
    (folder / "1.png").write_bytes(b"one")
    (folder / "2.png").write_bytes(b"two")
    before = hash_of(folder)
    assert stamp_of_folder(folder)[0] == 6
    (folder / "notes.txt").write_bytes(b"more")
    assert hash_of(folder) == before
    (folder / "2.png").write_bytes(b"")
    (folder / "1.png").write_bytes(b"onetwo")
    assert hash_of(folder) != before
    (folder / "2.png").unlink()
    (folder / "3.png").write_bytes(b"two")
    (folder / "1.png").write_bytes(b"one")
    assert hash_of(folder) != before
