"""Archives of strangers: what is wrong with one is told in a line, and nothing of it stays on the disk."""

import bz2
import errno
import gzip
import io
import os
import shutil
import stat
import tarfile
import zipfile
from collections import namedtuple

import pytest

from agnet.data.errors import ArchiveError
from agnet.data.sets import archives
from agnet.data.sets.archives import Limits, extract

JPEG = bytes(range(256)) * 40


def tar(path, *members, mode="w"):
    """A tar file of (name, contents) or TarInfo objects."""
    with tarfile.open(path, mode) as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
                continue
            name, contents = member
            info = tarfile.TarInfo(name)
            info.size = len(contents)
            file.addfile(info, io.BytesIO(contents))
    return path


def zipped(path, *members):
    """A zip file of (name or ZipInfo, contents)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, contents in members:
            file.writestr(name, contents)
    return path


def special(name, type_, target="", mode=0o644):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = type_, target, mode
    return info


def zip_link(name):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def tree(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.fixture
def place(tmp_path):
    """A folder for archives with a neighbour that must stay as it is."""
    (tmp_path / "place").mkdir()
    (tmp_path / "neighbour.txt").write_text("mine")
    return tmp_path / "place"


def refused(place, archive, words, limits=None):
    """The archive is refused with these words, and only it and the neighbour are there afterwards."""
    before = {path: path.read_bytes() for path in place.parent.rglob("*") if path.is_file()}
    with pytest.raises(ArchiveError, match=words) as error:
        extract([archive], place / "data", limits or Limits())
    assert "\n" not in str(error.value) and str(archive) in str(error.value)
    assert {path: path.read_bytes() for path in place.parent.rglob("*") if path.is_file()} == before
    assert tree(place) == {archive.name}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_file_is_unpacked_however_it_is_compressed(place, mode):
    archive = tar(place / "any name", ("data/a b/ü.jpg", JPEG), ("data/list.txt", b"x"), ("data/empty", b""), mode=mode)
    assert extract([archive], place / "data") == place / "data"
    assert tree(place) == {"any name", "data", "data/a b", "data/a b/ü.jpg", "data/list.txt", "data/empty"}
    assert (place / "data" / "a b" / "ü.jpg").read_bytes() == JPEG


def test_a_compressed_tar_is_never_read_twice_by_going_back_in_it(place, monkeypatch):
    archive = tar(place / "t", *[(f"{number}", os.urandom(512 * number)) for number in range(9)], mode="w:gz")
    monkeypatch.setattr(gzip.GzipFile, "seek", lambda *arguments: pytest.fail("inflates it from its beginning again"))
    extract([archive], place / "data")
    assert [(place / "data" / f"{number}").stat().st_size for number in range(9)] == [512 * n for n in range(9)]


def test_two_zip_files_are_unpacked_into_one_folder(place):
    images = zipped(place / "i.zip", ("JPEGImages/", b""), ("JPEGImages/a.JPG", JPEG))
    lists = zipped(place / "s.zip", ("./ImageSplits//train.txt", b"a.JPG"))
    extract([images, lists], place / "data")
    assert tree(place / "data") == {"JPEGImages", "JPEGImages/a.JPG", "ImageSplits", "ImageSplits/train.txt"}


def test_what_macs_add_is_skipped_and_archives_inside_are_left_alone(place):
    inner = zipped(place / "inner.zip", ("a.txt", b"a")).read_bytes()
    archive = zipped(
        place / "m.zip",
        ("a/1.jpg", JPEG),
        ("a/._1.jpg", b"resource"),
        ("a/.DS_Store", b"view"),
        ("__MACOSX/a/._1.jpg", b"resource"),
        ("inner.zip", inner),
    )
    extract([archive], place / "data")
    assert tree(place / "data") == {"a", "a/1.jpg", "inner.zip"}


def test_files_are_plain_whatever_the_archive_says_of_their_permissions(place):
    umask = os.umask(0o022)
    try:
        info = special("run", tarfile.REGTYPE, mode=0o6777)
        folder = special("closed", tarfile.DIRTYPE, mode=0o000)
        extract([tar(place / "p.tar", folder, info, ("closed/a", b"a"))], place / "data")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((place / "data" / "run").stat().st_mode) == 0o644
    assert stat.S_IMODE((place / "data" / "closed").stat().st_mode) == 0o755


HOSTILE_NAMES = [
    "../neighbour.txt",
    "a/../../neighbour.txt",
    "..",
    "/tmp/absolute.txt",
    "//server/share",
    "C:/windows.txt",
    "c:drive.txt",
    "a\\..\\..\\neighbour.txt",
    "line\nbreak.txt",
    "long" * 70,
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_that_is_no_plain_relative_path_is_refused(place, name):
    refused(place, tar(place / "h.tar", ("data/good", b"x"), (name, b"evil")), "name")
    (place / "h.tar").unlink()
    refused(place, zipped(place / "h.zip", ("data/good", b"x"), (name, b"evil")), "name")


def test_a_zip_name_with_a_zero_byte_is_refused(place):
    archive = zipped(place / "h.zip", ("a.jpgX.txt", b"evil"))
    archive.write_bytes(archive.read_bytes().replace(b"a.jpgX.txt", b"a.jpg\0.txt"))
    refused(place, archive, "name")


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (special("out", tarfile.SYMTYPE, "/etc"), "is a link"),
        (special("in", tarfile.SYMTYPE, "good"), "is a link"),
        (special("hard", tarfile.LNKTYPE, "../neighbour.txt"), "is a link"),
        (special("null", tarfile.CHRTYPE), "is a device"),
        (special("disk", tarfile.BLKTYPE), "is a device"),
        (special("pipe", tarfile.FIFOTYPE), "is a device"),
        (special("what", b"Z"), "is a device or another special file"),
    ],
    ids=lambda value: value.name if isinstance(value, tarfile.TarInfo) else "",
)
def test_links_and_devices_are_refused(place, member, words):
    refused(place, tar(place / "h.tar", ("good", b"x"), member), words)


def test_a_link_in_a_zip_is_refused(place):
    refused(place, zipped(place / "h.zip", ("good", b"x"), (zip_link("out"), b"/etc")), "'out' in it is a link")


@pytest.mark.parametrize(
    "names",
    [("a", "a"), ("A.jpg", "a.jpg"), ("é", "e\u0301"), ("ß", "SS"), ("x/1", "X/2"), ("a", "a/b"), ("a/b", "a")],
    ids=repr,
)
def test_names_that_some_disk_takes_for_the_same_are_refused(place, names):
    refused(place, tar(place / "c.tar", *[(name, b"x") for name in names]), "collides with")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_collide_across_two_archives_are_refused(place):
    archives = [zipped(place / "1.zip", ("a/1", b"x")), zipped(place / "2.zip", ("A/1", b"y"))]
    with pytest.raises(ArchiveError, match=r"2\.zip is refused: 'A/1' in it collides with 'a'"):
        extract(archives, place / "data")
    assert tree(place) == {"1.zip", "2.zip"}


def test_a_folder_may_be_named_twice(place):
    extract([zipped(place / "f.zip", ("a/", b""), ("a/1", b"x"), ("a/2", b"x"))], place / "data")
    assert tree(place / "data") == {"a", "a/1", "a/2"}


@pytest.mark.parametrize("make", [tar, zipped])
def test_too_many_members_are_refused(place, make):
    archive = make(place / "many", *[(f"{number}", b"") for number in range(11)])
    refused(place, archive, "more than 10 members", Limits(members=10))
    extract([archive], place / "data", Limits(members=11))


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz", "zip"])
def test_a_bomb_is_refused_by_what_it_inflates_to(place, compression):
    member = ("zeros", bytes(3_000_000))
    archive = zipped(place / "b", member) if compression == "zip" else tar(place / "b", member, mode=f"w:{compression}")
    refused(place, archive, "times its size, like a decompression bomb", Limits(small=1_000_000))
    refused(place, archive, r"inflates to more than 0\.0 GB", Limits(bytes=2_000_000))


def test_a_zip_whose_member_inflates_to_more_than_it_declares_is_refused(place):
    archive = zipped(place / "l.zip", ("zeros", bytes(1000)))
    lying = archive.read_bytes().replace((1000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lying != archive.read_bytes()
    archive.write_bytes(lying)
    refused(place, archive, "damaged|inflates to more")


def test_a_tar_header_that_declares_a_huge_name_is_not_read_into_memory(place):
    info = special("x", tarfile.GNUTYPE_LONGNAME)
    info.size = 1 << 40
    (place / "h.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    refused(place, place / "h.tar", "headers of more than 65,536 bytes")


def long_name(name):
    """What GNU's tar writes before a file whose name is long; the next header may be another such."""
    contents = name.encode() + b"\0"
    header = special("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    header.size = len(contents)
    return header.tobuf(tarfile.GNU_FORMAT) + contents + bytes(-len(contents) % 512)


@pytest.mark.parametrize(("links", "length"), [(5000, 200), (40, 60_000), (3, 30_000)])
def test_a_chain_of_tar_headers_for_one_file_is_refused(place, links, length):
    last = tarfile.TarInfo("a").tobuf() + bytes(1024)
    (place / "h.tar").write_bytes(long_name("a" * length) * links + last)
    refused(place, place / "h.tar", "headers of more than 65,536 bytes")


def test_names_of_usual_lengths_are_fine_however_many(place):
    names = [f"{number}/{'a' * 200}/{'b' * 200}.jpg" for number in range(300)]
    tar(place / "x.tar", *((name, b"1") for name in names))
    extract([place / "x.tar"], place / "out")
    assert {f"{number}" for number in range(300)} == {path.name for path in (place / "out").iterdir()}
    assert (place / "out" / names[7]).read_bytes() == b"1"


@pytest.mark.parametrize("name", ["a/" * 300 + "x", "/".join(["a" * 200] * 7)])
def test_names_too_deep_or_too_long_are_refused(place, name):
    archive = zipped(place / "x.zip", (name, b"1"))
    refused(place, archive, "64 folders deep|too long a name")
    archive.unlink()
    refused(place, tar(place / "x.tar", (name, b"1")), "64 folders deep|too long a name")


def test_a_zip_compressed_otherwise_is_refused_before_anything_is_written(place):
    path = zipped(place / "x.zip", ("a.jpg", b"1"), ("b.jpg", JPEG))
    contents = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 8), (b"PK\1\2", 10)):  # of the last member, in both its headers
        at = contents.rindex(signature) + offset
        contents[at : at + 2] = (9).to_bytes(2, "little")  # Deflate64
    path.write_bytes(contents)
    refused(place, path, "'b.jpg' in it is compressed by a method that Python does not support")


def test_a_long_name_is_shortened_in_the_message(place):
    with pytest.raises(ArchiveError) as error:
        extract([tar(place / "x.tar", ("../" + "a" * 5000, b"1"))], place / "out")
    assert len(str(error.value)) < 400


def test_a_tar_member_of_negative_size_is_refused(place):
    info = special("x", tarfile.REGTYPE)
    info.size = -512
    (place / "h.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    refused(place, place / "h.tar", "is refused|is damaged")


def test_an_encrypted_zip_is_refused(place):
    archive = zipped(place / "e.zip", ("secret.jpg", JPEG))
    contents = bytearray(archive.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        contents[contents.index(mark) + offset] |= 1
    archive.write_bytes(contents)
    refused(place, archive, "is encrypted: unpack the archive by hand")


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz", "zip"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_an_archive_that_is_cut_short_is_refused(place, compression, share):
    members = [(f"{number}.jpg", os.urandom(3000)) for number in range(20)]
    archive = (
        zipped(place / "t", *members) if compression == "zip" else tar(place / "t", *members, mode=f"w:{compression}")
    )
    archive.write_bytes(archive.read_bytes()[: int(share * archive.stat().st_size)])
    refused(place, archive, "damaged or cut short")


def test_a_tar_cut_between_two_members_is_refused(place):
    archive = tar(place / "t.tar", ("1.jpg", bytes(512)), ("2.jpg", bytes(512)))
    archive.write_bytes(archive.read_bytes()[:1024])
    refused(place, archive, "the end is missing")


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz", "zip"])
def test_an_archive_with_a_flipped_bit_is_refused(place, compression):
    member = ("1.jpg", os.urandom(50_000))
    archive = zipped(place / "t", member) if compression == "zip" else tar(place / "t", member, mode=f"w:{compression}")
    contents = bytearray(archive.read_bytes())
    contents[len(contents) // 2] ^= 4
    archive.write_bytes(contents)
    refused(place, archive, "damaged or cut short")


def test_a_tar_with_a_damaged_header_is_refused_and_not_taken_for_its_end(place):
    archive = tar(place / "t.tar", ("1.jpg", bytes(512)), ("2.jpg", bytes(512)))
    contents = bytearray(archive.read_bytes())
    contents[1024] ^= 1
    archive.write_bytes(contents)
    refused(place, archive, "damaged or cut short")


NO_ARCHIVES = {
    "empty": b"",
    "text": b"not an archive",
    "zeros": bytes(2000),
    "gzip of no tar": gzip.compress(b"no tar", mtime=0),
    "bzip2 of nothing": bz2.compress(b""),
}


@pytest.mark.parametrize("contents", NO_ARCHIVES.values(), ids=NO_ARCHIVES)
def test_what_is_no_archive_is_told(place, contents):
    (place / "x.zip").write_bytes(contents)
    refused(place, place / "x.zip", "is not a zip or tar archive|is damaged")


def test_a_web_page_in_place_of_an_archive_is_told(place):
    (place / "x.zip").write_bytes(b"\n<!DOCTYPE html><html>Please log in</html>")
    refused(place, place / "x.zip", "is not a zip or tar archive but a web page")


def test_a_full_disk_is_told_beforehand(place, monkeypatch):
    archive = zipped(place / "x.zip", ("a.jpg", JPEG))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 100))
    with pytest.raises(ArchiveError, match=r"0\.0 GB free, but unpacking needs"):
        extract([archive], place / "data")
    assert tree(place) == {"x.zip"}


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_disk_that_fills_up_and_ctrl_c_leave_nothing_behind(place, monkeypatch, failure):
    archive = zipped(place / "x.zip", ("a.jpg", JPEG), ("b.jpg", JPEG))
    seen = []

    def progress(what, done, total):
        seen.append((what, done, total))
        if what == "unpack" and done > len(JPEG):
            assert (place / ".data.unfinished" / "a.jpg").is_file()
            raise failure

    with pytest.raises(ArchiveError if isinstance(failure, OSError) else KeyboardInterrupt) as error:
        extract([archive], place / "data", progress=progress)
    assert "the disk is full" in str(error.value) or isinstance(failure, KeyboardInterrupt)
    assert seen[-1] == ("unpack", 2 * len(JPEG), 2 * len(JPEG))
    assert tree(place) == {"x.zip"}


def test_what_a_killed_run_left_is_no_obstacle(place):
    archive = zipped(place / "x.zip", ("a.jpg", JPEG))
    (place / ".data.unfinished").mkdir()
    (place / ".data.unfinished" / "a.jpg").write_bytes(b"half")
    extract([archive], place / "data")
    assert tree(place) == {"x.zip", "data", "data/a.jpg"} and (place / "data" / "a.jpg").read_bytes() == JPEG


def test_a_folder_that_holds_something_is_left_alone_and_an_empty_one_filled(place):
    archive = zipped(place / "x.zip", ("a.jpg", JPEG))
    (place / "data").mkdir()
    extract([archive], place / "data")
    (place / "data" / "a.jpg").write_bytes(b"mine")
    with pytest.raises(ArchiveError, match="already exists: delete it or move it away"):
        extract([archive], place / "data")
    assert (place / "data" / "a.jpg").read_bytes() == b"mine"


def test_one_process_unpacks_at_a_time(place):
    archive = zipped(place / "x.zip", ("a.jpg", JPEG))

    def progress(what, done, total):
        with pytest.raises(ArchiveError, match="by another process"):
            extract([archive], place / "data")

    extract([archive], place / "data", progress=progress)
    assert tree(place) == {"x.zip", "data", "data/a.jpg"}


def test_the_standard_librarys_own_extraction_is_not_used():
    source = archives.__loader__.get_source(archives.__name__)
    assert "extractall(" not in source and ".extract(" not in source
