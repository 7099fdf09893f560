import os
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest

from agnet.data.errors import ImageError
from agnet.data.videos import Video, VideoWriter

GREYS = range(20, 240, 20)  # eleven frames


def write(path, code, size_wh=(64, 48), rate=10.0, greys=GREYS):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), rate, size_wh)
    if not writer.isOpened():
        pytest.skip(f"this build of OpenCV cannot write {code}")
    for grey in greys:
        picture = np.full((size_wh[1], size_wh[0], 3), grey, np.uint8)
        picture[: size_wh[1] // 4] = (0, 0, 255)  # red on top, in OpenCV's order
        writer.write(picture)
    writer.release()
    return path


def greys_of(frames):
    return [float(frame.pixels[frame.pixels.shape[0] // 2 :].mean()) for frame in frames]


@pytest.mark.parametrize(("name", "code"), [("a.mp4", "mp4v"), ("a.avi", "MJPG"), ("a.mkv", "mp4v"), ("a.mov", "mp4v")])
def test_frames_come_in_order_with_their_times(tmp_path, name, code):
    with Video(write(tmp_path / name, code)) as video:
        assert (video.size_wh, video.rate, video.announced_frames) == ((64, 48), 10, 11)
        frames = list(video.frames())
    assert [frame.number for frame in frames] == list(range(11))
    assert [frame.seconds for frame in frames] == pytest.approx([0.1 * number for number in range(11)], abs=0.002)
    assert greys_of(frames) == pytest.approx(list(GREYS), abs=6)
    red, green, blue = frames[5].pixels[3].mean(axis=0)
    assert red > 180 > 70 > max(green, blue)


def test_every_third_frame(tmp_path):
    with Video(write(tmp_path / "a.mp4", "mp4v")) as video:
        frames = list(video.frames(every=3))
    assert [frame.number for frame in frames] == [0, 3, 6, 9]
    assert greys_of(frames) == pytest.approx([20, 80, 140, 200], abs=6)
    assert frames[-1].seconds == pytest.approx(0.9, abs=0.002)


def test_odd_sizes_are_read_whole(tmp_path):
    with Video(write(tmp_path / "a.avi", "MJPG", (63, 47))) as video:
        assert {frame.pixels.shape for frame in video.frames()} <= {(47, 63, 3), (46, 62, 3)}  # as encoders round


def tampered(content, box, offset, layout, *values):
    """MP4 bytes with ``values`` in all boxes of that name, ``offset`` bytes after the name."""
    content, at = bytearray(content), -1
    while (at := content.find(box, at + 1)) >= 0:
        struct.pack_into(layout, content, at + 4 + offset, *values)
    return bytes(content)


def test_rotation_in_the_metadata_is_applied(tmp_path):
    path = write(tmp_path / "a.mp4", "mp4v")
    quarter = (0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)  # clockwise, as phones held upright write it
    path.write_bytes(tampered(path.read_bytes(), b"tkhd", 40, ">9i", *quarter))
    with Video(path) as video:
        frames = list(video.frames())
        assert video.size_wh == (48, 64)
    red = (frames[0].pixels[..., 0] > 150) & (frames[0].pixels[..., 1] < 100)
    assert frames[0].pixels.shape == (64, 48, 3)
    assert red[:, -8:].mean() > 0.9 and red[:, :24].mean() < 0.1  # what was on top is on the right


def test_uneven_times_are_the_files_own(tmp_path):
    path = write(tmp_path / "a.mp4", "mp4v")
    content = bytearray(path.read_bytes())
    at = content.index(b"stts") + 8
    entries, count, delta = struct.unpack_from(">3I", content, at)
    assert (entries, count) == (1, 11) and content.index(b"mdat") < at  # no place of a frame changes
    for box in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"):
        start = content.index(box) - 4
        struct.pack_into(">I", content, start, struct.unpack_from(">I", content, start)[0] + 8)
    content[at : at + 12] = struct.pack(">5I", 2, 5, delta, 6, 3 * delta)  # five short frames, six long ones
    path.write_bytes(content.replace(b"edts", b"free"))  # an edit list would cut it to its old length
    with Video(path) as video:
        times = [frame.seconds for frame in video.frames()]
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.8, 1.1, 1.4, 1.7, 2.0], abs=0.002)


class Clock:
    """A capture that tells times of its own."""

    def __init__(self, times):
        self.times, self.at = times, -1

    def grab(self):
        self.at += 1
        return self.at < len(self.times)

    def retrieve(self):
        return True, np.zeros((4, 4, 3), np.uint8)

    def get(self, what):
        return 1000 * self.times[self.at]

    def release(self):
        pass


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([0, 0.1, 0.5, 0.6], [0, 0.1, 0.5, 0.6]),  # variable
        ([0, 0, 0, 0], [0, 0.1, 0.2, 0.3]),  # no clock
        ([3600, 3600.1, 3600.2], [0, 0.1, 0.2]),  # a recording of a broadcast
        ([0, 5.0, 0.2, 5.2], [0, 5.0, 5.1, 5.2]),  # spliced
        ([0, float("nan"), 0.2], [0, 0.1, 0.2]),
    ],
)
def test_times_never_go_back(tmp_path, told, expected):
    with Video(write(tmp_path / "a.mp4", "mp4v")) as video:
        video._capture, video._announced_seconds = Clock(told), 0.0
        assert [frame.seconds for frame in video.frames()] == pytest.approx(expected)


def test_a_video_that_was_cut_off_gives_its_frames_and_then_says_so(tmp_path):
    path = write(tmp_path / "a.avi", "MJPG")
    content = path.read_bytes()
    start, end = content.index(b"movi"), content.index(b"idx1")
    path.write_bytes(content[: (start + end) // 2])
    seen = []
    with Video(path) as video, pytest.raises(ImageError, match=r"a.avi: announces 1.1 seconds, and 0.\d can be read"):
        for frame in video.frames():
            seen.append(frame)
    assert 3 <= len(seen) <= 7


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "the file is empty"),
        (b"hello, hello, hello", "in no video format"),
        (b"#EXTM3U\n/etc/passwd", "a list of other files"),
        (b"ffconcat version 1.0\nfile /etc/passwd", "a list of other files"),
        (None, "No such file"),
    ],
)
def test_what_is_no_video_is_an_error_that_names_it(tmp_path, content, complaint):
    path = tmp_path / "a.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=complaint) as error:
        Video(path)
    assert str(path) in str(error.value)


def test_what_ffmpeg_says_of_a_broken_video_is_not_printed(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"hello, hello, hello")
    program = "from agnet.data.videos import Video\ntry: Video('a.mp4')\nexcept Exception as error: print(error)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stdout.startswith("a.mp4: its content") and done.stderr == ""


def test_a_video_without_its_index_is_an_error(tmp_path):
    path = write(tmp_path / "a.mp4", "mp4v")
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ImageError, match="damaged"), Video(path) as video:
        list(video.frames())


def test_a_video_of_no_frames_is_an_error(tmp_path):
    with pytest.raises(ImageError, match=r"a.mp4"), Video(write(tmp_path / "a.mp4", "mp4v", greys=[])) as video:
        list(video.frames())


def test_a_folder_is_not_a_video(tmp_path):
    with pytest.raises(ImageError, match="is not a file"):
        Video(tmp_path)


def test_frames_that_are_too_large_are_refused_before_one_is_read(tmp_path):
    path = write(tmp_path / "a.mp4", "mp4v")
    with pytest.raises(ImageError, match=r"frames of 64 x 48 pixels, more than the limit of 1,000"):
        Video(path, max_pixels=1000)


def test_what_is_written_can_be_read(tmp_path):
    path = tmp_path / "out.mp4"
    with VideoWriter(path, 12.0) as writer:
        for grey in GREYS:
            writer.write(np.full((49, 65, 3), grey, np.uint8))
        assert not path.exists()
        writer.write(np.full((98, 130, 3), 250, np.uint8))  # another size than the first
    with Video(path) as video:
        frames = list(video.frames())
        assert (video.size_wh, video.rate, len(frames)) == ((64, 48), 12, 12)
    assert greys_of(frames) == pytest.approx([*GREYS, 250], abs=6)
    assert list(tmp_path.iterdir()) == [path]


def test_a_video_that_was_interrupted_is_not_there(tmp_path):
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "out.mp4", 12.0) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_was_not_written_whole_is_an_error(tmp_path):
    with pytest.raises(ImageError, match="only 1 of 2 frames"), VideoWriter(tmp_path / "out.mp4", 12.0) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
        writer.frames = 2
    assert list(tmp_path.iterdir()) == []
