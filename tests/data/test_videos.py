import os
import struct
import subprocess
import sys
from time import process_time

import cv2
import numpy as np
import pytest

from agnet.data.decoding.containers import Container, look_into
from agnet.data.errors import ImageError
from agnet.data.videos import Video, VideoWriter

GREYS = range(20, 240, 20)  # eleven frames


def write(path, code, size_wh=(64, 48), rate=10.0, greys=GREYS, noise=False):
    """Frames of one grey and a red band, so simple that many go into a packet; with noise each takes several."""
    generator = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), rate, size_wh)
    if not writer.isOpened():
        pytest.skip(f"this build of OpenCV cannot write {code}")
    for grey in greys:
        picture = np.full((size_wh[1], size_wh[0], 3), grey, np.uint8)
        picture[: size_wh[1] // 4] = (0, 0, 255)  # red on top, in OpenCV's order
        if noise:
            picture[12:20] = generator.integers(0, 256, (8, size_wh[0], 3))
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
        video._capture, video._container = Clock(told), Container()
        assert [frame.seconds for frame in video.frames()] == pytest.approx(expected)


def test_a_video_that_was_cut_off_gives_its_frames_and_then_says_so(tmp_path):
    path = write(tmp_path / "a.avi", "MJPG")
    content = path.read_bytes()
    start, end = content.index(b"movi"), content.index(b"idx1")
    path.write_bytes(content[: (start + end) // 2])
    seen = []
    with Video(path) as video, pytest.raises(ImageError, match=r"a.avi: \d frames can be read, but .* cut off"):
        for frame in video.frames():
            seen.append(frame)
    assert 3 <= len(seen) <= 7


def seen(path):
    """The seconds of a file's frames, and what is said at its end."""
    seconds = []
    try:
        with Video(path) as video:
            for frame in video.frames():
                seconds.append(frame.seconds)
    except ImageError as error:
        return seconds, str(error)
    return seconds, ""


KINDS = [
    *[(f"a.{suffix}", "mp4v") for suffix in ("mp4", "m4v", "mov", "3gp", "mkv", "ts")],
    *[("a.avi", "MJPG"), ("b.avi", "XVID"), ("b.mkv", "MJPG"), ("a.webm", "VP80"), ("a.ogv", "VP80")],
    *[
        ("a.flv", "FLV1"),
        ("a.mts", "mpg2"),
        ("a.m2ts", "mpg2"),
        ("a.mpeg", "mpg2"),
        ("a.wmv", "WMV2"),
        ("a.mjpeg", "MJPG"),
    ],
]


@pytest.mark.parametrize(("name", "code"), KINDS)
def test_of_every_kind_the_whole_file_is_right_and_half_of_it_an_error(tmp_path, name, code):
    path = write(tmp_path / name, code, noise=True)
    seconds, said = seen(path)
    rate = 25 if name == "a.mjpeg" else 10  # it has no clock
    assert said == "" and seconds == pytest.approx([number / rate for number in range(11)], abs=0.011)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    fewer, said = seen(path)
    assert len(fewer) < 11 and name in said


def element(identity, data):
    return bytes.fromhex(identity) + struct.pack(">Q", len(data) | 1 << 56) + data


def endless(identity, data):
    """An element of unknown size, as whoever does not know the end writes it."""
    return bytes.fromhex(identity) + b"\x01" + b"\xff" * 7 + data


def number(identity, value):
    return element(identity, value.to_bytes(8, "big"))


def matroska(times_ms, seconds, sound_ms=0, first_ms=0, segment=element, cluster=element):
    """A file of JPEGs at these times, and of sound; its length is ``seconds``, or not told."""
    head = element("1A45DFA3", number("4286", 1) + number("4287", 4) + number("4285", 2) + element("4282", b"matroska"))
    length = element("4489", struct.pack(">d", 1000.0 * seconds)) if seconds else b""
    info = element("1549A966", number("2AD7B1", 10**6) + length)
    size = element("E0", number("B0", 64) + number("BA", 48))
    picture = number("D7", 1) + number("73C5", 1) + number("83", 1) + element("86", b"V_MJPEG") + size
    voice = element("E1", element("B5", struct.pack(">d", 8000.0)) + number("9F", 1) + number("6264", 16))
    sound = number("D7", 2) + number("73C5", 2) + number("83", 2) + element("86", b"A_PCM/INT/LIT") + voice
    tracks = element("1654AE6B", element("AE", picture) + (element("AE", sound) if sound_ms else b""))
    blocks = [(time, b"\x82", bytes(1600)) for time in range(0, sound_ms, 100)]
    for shade, time in enumerate(times_ms):
        jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 20 * shade % 256, np.uint8))[1]
        blocks.append((first_ms + time, b"\x81", jpeg.tobytes()))
    clusters = [
        cluster("1F43B675", number("E7", time) + element("A3", track + b"\0\0\x80" + data))
        for time, track, data in sorted(blocks)
    ]
    return head + segment("18538067", info + tracks + b"".join(clusters))


EVEN = list(range(0, 2000, 40))
MATROSKA = {
    "plain": (EVEN, 2, {}),
    "longer sound": (EVEN, 4, {"sound_ms": 4000}),
    "begins at 5 s": (EVEN, 7, {"first_ms": 5000}),
    "last picture stays": (EVEN, 10, {}),
    "uneven": ([0, 700, 733, 777, 817, 834, 940, 951, 1043, 1169, 1900], 2, {}),
    "one picture": ([0], 60, {"sound_ms": 1000}),
    "no length": (EVEN, None, {"segment": endless}),
    "live": (EVEN, None, {"segment": endless, "cluster": endless, "sound_ms": 3000}),
}


@pytest.mark.parametrize("name", MATROSKA)
def test_a_files_length_is_no_promise_of_pictures(tmp_path, name):
    times, seconds, options = MATROSKA[name]
    path = tmp_path / "a.mkv"
    path.write_bytes(matroska(times, seconds, **options))
    told, said = seen(path)
    assert said == "" and told == pytest.approx([time / 1000 for time in times], abs=0.001)
    with Video(path) as video:
        assert video.announced_frames == len(times)
    content = path.read_bytes()
    for share in (0.5, 0.8, 0.999):
        path.write_bytes(content[: int(share * len(content))])
        assert "cut off" in seen(path)[1]


def test_damage_in_the_middle_is_told_after_the_frames_that_can_be_read(tmp_path):
    times = MATROSKA["plain"][0]
    content = matroska(times, 2)
    middle, hole = len(content) // 2, len(content) // 5
    (tmp_path / "a.mkv").write_bytes(content[:middle] + bytes(hole) + content[middle + hole :])
    told, said = seen(tmp_path / "a.mkv")
    assert 20 <= len(told) < 50 and "damaged" in said and f"{len(told)} frames can be read" in said
    path = write(tmp_path / "a.mp4", "mp4v")
    content = path.read_bytes()
    start, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    middle = (start + end) // 2
    path.write_bytes(content[:middle] + bytes(end - middle) + content[end:])
    told, said = seen(path)
    assert 3 <= len(told) <= 7 and said.endswith("it holds 11 pictures; it is damaged")


@pytest.mark.parametrize(("name", "code"), [("a.ts", "mp4v"), ("a.m2ts", "mpg2"), ("a.mpeg", "mpg2")])
@pytest.mark.parametrize("inside", ["zeros", "anything"])
def test_a_small_hole_in_a_stream_of_packets_is_damage(tmp_path, name, code, inside):
    path = write(tmp_path / name, code, greys=range(20, 240, 4), noise=True)
    content = path.read_bytes()
    hole = len(content) // 20
    filling = bytes(hole) if inside == "zeros" else np.random.default_rng(0).bytes(hole)
    path.write_bytes(content[: 8 * hole] + filling + content[9 * hole :])
    told, said = seen(path)
    assert len(told) >= 40 and said.endswith("the data between them cannot; it is damaged")


def test_pictures_that_opencv_has_no_decoder_for_are_named(tmp_path):
    (tmp_path / "a.mkv").write_bytes(matroska(EVEN, 2))
    with Video(tmp_path / "a.mkv") as video:
        video._capture = Clock([])
        video._codec = lambda: "AV01"
        with pytest.raises(ImageError, match=r"its 50 pictures are coded as AV01, .*: convert it to H.264"):
            list(video.frames())


def test_half_of_a_file_that_can_be_played_from_its_start_is_told_after_its_frames(tmp_path):
    """As servers want MP4: the index comes first."""
    path = write(tmp_path / "a.mp4", "mp4v", noise=True)
    content = path.read_bytes()
    data, index = content.index(b"mdat") - 4, content.index(b"moov") - 4
    moved = bytearray(content[index:])
    at = moved.index(b"stco") + 8
    for number in range(struct.unpack_from(">I", moved, at)[0]):
        (place,) = struct.unpack_from(">I", moved, at + 4 + 4 * number)
        struct.pack_into(">I", moved, at + 4 + 4 * number, place + len(moved))
    path.write_bytes(content[:data] + moved + content[data:index])
    assert len(seen(path)[0]) == 11 and seen(path)[1] == ""
    path.write_bytes(path.read_bytes()[: -(index - data) // 2])
    told, said = seen(path)
    assert 3 <= len(told) <= 8 and "cut off" in said


def box(name, *content):
    content = b"".join(content)
    return struct.pack(">I4s", 8 + len(content), name) + content


def edited(content, edits):
    """MP4 bytes whose edit list shows other stretches: (length in units of the film, beginning in the track's)."""
    at = content.index(b"elst") - 4
    (old,) = struct.unpack_from(">I", content, at)
    list_ = box(b"elst", struct.pack(">II", 0, len(edits)), *(struct.pack(">IiI", *edit, 1 << 16) for edit in edits))
    grown = bytearray(content[:at] + list_ + content[at + old :])
    for name in (b"moov", b"trak", b"edts"):
        start = grown.index(name) - 4
        struct.pack_into(">I", grown, start, struct.unpack_from(">I", grown, start)[0] + len(list_) - old)
    return bytes(grown)


def test_an_edit_list_may_show_a_part(tmp_path):
    path = write(tmp_path / "a.mp4", "mp4v")
    assert look_into(path).pictures == 11
    path.write_bytes(edited(path.read_bytes(), [(300, 0)]))  # of 1,100 thousandths of a second
    told, said = seen(path)
    assert said == "" and told == pytest.approx([0, 0.1, 0.2], abs=0.002)
    assert look_into(path) == Container()


def test_a_clip_that_names_no_size_and_one_that_something_follows_are_whole(tmp_path):
    path = write(tmp_path / "a.avi", "MJPG")
    content = bytearray(path.read_bytes())
    path.write_bytes(content + bytes(-len(content) % 512 + 512))  # filled up to a sector, as VirtualDub does
    assert len(seen(path)[0]) == 11 and seen(path)[1] == "" and look_into(path).pictures == 11
    hole = content.index(b"idx1") - 200
    path.write_bytes(content[:hole] + bytes(len(content) - hole))
    assert seen(path)[1] != ""
    del content[content.index(b"idx1") :]
    for name in (b"AVI ", b"movi"):  # as it is written to a pipe
        struct.pack_into("<I", content, content.index(name) - 4, 0xFFFFFFFF)
    path.write_bytes(content)
    told, said = seen(path)
    assert len(told) == 11 and said == ""
    path.write_bytes(content[:-40])
    assert "cut off" in seen(path)[1]
    path = tmp_path / "b.mkv"
    path.write_bytes(matroska(EVEN, 2) + b"\0" * 999)
    assert len(seen(path)[0]) == 50 and seen(path)[1] == ""


@pytest.mark.parametrize(
    ("start", "found"),
    [
        (b"", Container()),
        (b"nothing that is known here" * 9, Container()),
        (struct.pack(">I4sQ", 1, b"ftyp", 2**63), Container(2**63 - 16)),
        (struct.pack(">I4sQ", 1, b"moov", 3), Container(broken=True)),
        (bytes.fromhex("1A45DFA3") + b"\x01" + b"\xff" * 7, Container(broken=True)),
        (bytes.fromhex("1A45DFA3") + b"\x80" + b"\0" * 20, Container(broken=True)),
        (b"RIFF\xff\xff\xff\x7fAVI ", Container(0x7FFFFFFF - 4 - 8)),
        (b"FLV\1\1\xff\xff\xff\xff" + bytes(9), Container()),
        (b"OggS" + b"\xff" * 23, Container(1)),
        (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + b"\xff" * 8, Container(2**64 - 1 - 24)),
        (b"G" + bytes(187), Container()),
    ],
)
def test_a_hostile_header_ends_the_look_into_it(tmp_path, start, found):
    (tmp_path / "a").write_bytes(start)
    assert look_into(tmp_path / "a") == found


def test_a_film_of_very_many_tracks_and_fragments_takes_no_time(tmp_path):
    begun = process_time()
    (tmp_path / "a").write_bytes(box(b"ftyp") + box(b"trak") * 9999 + box(b"trun", bytes(40)) * 9999)
    assert look_into(tmp_path / "a") == Container()
    (tmp_path / "a").write_bytes(box(b"ftyp") + box(b"trak") * 20_000)
    assert look_into(tmp_path / "a") == Container(broken=True)
    assert process_time() - begun < 5  # each fragment looked for among the tracks takes a minute


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "the file is empty"),
        (b"hello, hello, hello", "not in a supported video format"),
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
