"""Downloads from a server on this machine that does whatever servers and networks do."""

import errno
import hashlib
import http.client
import io
import os
import shutil
import socket
import ssl
import urllib.request
from collections import namedtuple

import pytest

from agnet.data.errors import DownloadError
from agnet.data.sets import fetch as module
from agnet.data.sets.entry import Download
from agnet.data.sets.fetch import fetch

BODY = b"PK" + bytes(range(256)) * 1000 + b"!"
MD5 = hashlib.md5(BODY).hexdigest()
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def _file(site):
    site.files["/photos.zip"] = BODY


@pytest.fixture
def waits(site):
    """Seconds that would have been waited."""
    return site.waits


def published(site, **known):
    return Download(f"{site.url}/photos.zip", **known)


def left(folder):
    return {path.name for path in folder.iterdir()}


def test_a_file_is_fetched_whole_and_checked(site, tmp_path):
    told = []
    wanted = published(site, bytes=len(BODY), md5=MD5.upper(), sha256=SHA256)
    path = fetch(wanted, tmp_path / "new" / "photos.zip", lambda done, total: told.append((done, total)))
    assert path.read_bytes() == BODY and left(path.parent) == {"photos.zip"}
    assert told[0] == (0, len(BODY)) and told[-1] == (len(BODY), len(BODY)) and told == sorted(told)
    assert site.asked == [("/photos.zip", None, 200)]


def test_a_file_that_is_there_is_checked_and_not_fetched(site, tmp_path):
    (tmp_path / "photos.zip").write_bytes(BODY)
    fetch(published(site, md5=MD5), tmp_path / "photos.zip")
    assert site.asked == []
    (tmp_path / "photos.zip").write_bytes(b"someone's own")
    with pytest.raises(DownloadError, match=r"is not the published file .* delete it or move it away"):
        fetch(published(site, md5=MD5), tmp_path / "photos.zip")
    assert (tmp_path / "photos.zip").read_bytes() == b"someone's own" and site.asked == []


@pytest.mark.parametrize("read", [1 << 20, 100])
def test_a_dropped_connection_is_taken_up_where_it_dropped(site, tmp_path, waits, monkeypatch, read):
    monkeypatch.setattr(module, "_CHUNK", read)
    site.behaviours = [("cut", 1000), ("cut", 500), None]
    fetch(published(site, md5=MD5), tmp_path / "photos.zip")
    assert (tmp_path / "photos.zip").read_bytes() == BODY
    assert [asked for _, asked, _ in site.asked] == [None, "bytes=1000-", "bytes=1500-"]
    assert waits == [1.0, 1.0], "an attempt that brought bytes starts the waiting over"


@pytest.mark.parametrize("failure", [ConnectionResetError("reset"), TimeoutError(), OSError(errno.ENETDOWN, "down")])
def test_a_connection_that_breaks_while_reading_is_taken_up(site, tmp_path, monkeypatch, failure):
    read, failures = http.client.HTTPResponse.read1, [None, failure]

    def breaking(response, size):
        if failures and (broken := failures.pop(0)):
            raise broken
        return read(response, 1000)

    monkeypatch.setattr(http.client.HTTPResponse, "read1", breaking)
    fetch(published(site, md5=MD5), tmp_path / "photos.zip")
    assert (tmp_path / "photos.zip").read_bytes() == BODY and site.asked[1][1] == "bytes=1000-"


def test_a_later_call_goes_on_with_what_an_earlier_one_left(site, tmp_path):
    site.behaviours = [("cut", 1000)] + [("cut", 0)] * 9
    with pytest.raises(DownloadError, match="1,000 bytes are kept: run the same again to resume"):
        fetch(published(site, md5=MD5), tmp_path / "photos.zip")
    assert left(tmp_path) == {"photos.zip.part", "photos.zip.part.json"}
    site.behaviours.clear()
    site.asked.clear()
    fetch(published(site, md5=MD5), tmp_path / "photos.zip")
    assert site.asked == [("/photos.zip", "bytes=1000-", 206)]
    assert (tmp_path / "photos.zip").read_bytes() == BODY and left(tmp_path) == {"photos.zip"}


def test_ctrl_c_leaves_what_has_arrived_to_go_on_with(site, tmp_path):
    def stop(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(published(site, md5=MD5), tmp_path / "photos.zip", stop)
    have = (tmp_path / "photos.zip.part").stat().st_size
    assert have > 0 and left(tmp_path) == {"photos.zip.part", "photos.zip.part.json"}
    if have < len(BODY):
        fetch(published(site, md5=MD5), tmp_path / "photos.zip")
        assert site.asked[1] == ("/photos.zip", f"bytes={have}-", 206)
        assert (tmp_path / "photos.zip").read_bytes() == BODY


@pytest.fixture
def interrupted(monkeypatch):
    """Ctrl-C comes during the first checksum."""
    checksum, interrupts = module.checksum, [KeyboardInterrupt()]

    def checksum_or_interrupt(path, kind):
        if interrupts:
            raise interrupts.pop()
        return checksum(path, kind)

    monkeypatch.setattr(module, "checksum", checksum_or_interrupt)


@pytest.mark.parametrize("known", [{}, {"bytes": len(BODY)}])
@pytest.mark.parametrize("lose_note", [False, True])
def test_ctrl_c_during_the_checksum_leaves_only_the_checksum_to_do(site, tmp_path, interrupted, known, lose_note):
    with pytest.raises(KeyboardInterrupt):
        fetch(published(site, md5=MD5, **known), tmp_path / "photos.zip")
    assert left(tmp_path) == {"photos.zip.part", "photos.zip.part.json"}
    if lose_note:
        (tmp_path / "photos.zip.part.json").unlink()
    site.asked.clear()
    fetch(published(site, md5=MD5, **known), tmp_path / "photos.zip")
    assert (tmp_path / "photos.zip").read_bytes() == BODY and left(tmp_path) == {"photos.zip"}
    assert len(site.asked) == (1 if lose_note and not known else 0), "without either there is no telling"


def test_a_part_that_is_complete_is_still_checked(site, tmp_path):
    (tmp_path / "photos.zip.part").write_bytes(BODY[:-1] + b"?")
    with pytest.raises(DownloadError, match=r"md5 .* and were deleted"):
        fetch(published(site, bytes=len(BODY), md5=MD5), tmp_path / "photos.zip")
    assert site.asked == [] and left(tmp_path) == set()


def test_a_part_that_is_complete_by_another_address_is_not_taken(site, tmp_path):
    (tmp_path / "photos.zip.part").write_bytes(b"PK??")
    (tmp_path / "photos.zip.part.json").write_text('{"url": "http://example.org/photos.zip", "total": 4}')
    fetch(published(site), tmp_path / "photos.zip")
    assert (tmp_path / "photos.zip").read_bytes() == BODY


def test_a_part_that_the_server_calls_complete_is_kept(site, tmp_path, interrupted):
    site.lengths = False
    with pytest.raises(KeyboardInterrupt):
        fetch(published(site, md5=MD5), tmp_path / "photos.zip")
    site.headers = {"Content-Range": f"bytes */{len(BODY)}"}
    fetch(published(site, md5=MD5), tmp_path / "photos.zip")
    assert [status for _, _, status in site.asked] == [200, 416]
    assert (tmp_path / "photos.zip").read_bytes() == BODY and left(tmp_path) == {"photos.zip"}


def test_a_part_longer_than_the_server_tells_is_not_kept(site, tmp_path, interrupted):
    site.lengths = False
    with pytest.raises(KeyboardInterrupt):
        fetch(published(site, md5=MD5), tmp_path / "photos.zip")
    site.files["/photos.zip"], site.headers = BODY[:1000], {"Content-Range": "bytes */1000"}
    fetch(published(site), tmp_path / "photos.zip")
    assert (tmp_path / "photos.zip").read_bytes() == BODY[:1000]


def test_a_server_that_knows_no_ranges_gives_all_of_it_again(site, tmp_path):
    site.ranges, site.behaviours = False, [("cut", 1000)]
    fetch(published(site, md5=MD5), tmp_path / "photos.zip")
    assert (tmp_path / "photos.zip").read_bytes() == BODY and len(site.asked) == 2


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_sign_that_the_file_is_the_same_it_is_fetched_anew(site, tmp_path, etag):
    site.etag, site.behaviours = etag, [("cut", 1000)]
    fetch(published(site, md5=MD5), tmp_path / "photos.zip")
    assert (tmp_path / "photos.zip").read_bytes() == BODY
    assert [asked for _, asked, _ in site.asked] == [None, None]


def test_the_time_of_change_is_such_a_sign(site, tmp_path):
    time = "Sat, 01 Jan 2022 00:00:00 GMT"
    site.etag, site.if_range, site.headers, site.behaviours = None, False, {"Last-Modified": time}, [("cut", 1000)]
    fetch(published(site, md5=MD5), tmp_path / "photos.zip")
    assert (tmp_path / "photos.zip").read_bytes() == BODY and site.asked[1][1] == "bytes=1000-"


@pytest.mark.parametrize("if_range", [True, False])
def test_a_file_that_changed_in_between_is_fetched_anew(site, tmp_path, if_range):
    site.behaviours = [("cut", 1000)] + [("cut", 0)] * 9
    with pytest.raises(DownloadError):
        fetch(published(site), tmp_path / "photos.zip")
    other = BODY[:2] + BODY[:1:-1]
    site.files["/photos.zip"], site.etag, site.if_range, site.behaviours = other, '"2"', if_range, []
    fetch(published(site), tmp_path / "photos.zip")
    assert (tmp_path / "photos.zip").read_bytes() == other


def test_a_part_that_is_longer_than_the_file_is_fetched_anew(site, tmp_path):
    site.behaviours = [("cut", 1000)] + [("cut", 0)] * 9
    with pytest.raises(DownloadError):
        fetch(published(site), tmp_path / "photos.zip")
    (tmp_path / "photos.zip.part").write_bytes(BODY + b"more")
    site.behaviours = []
    fetch(published(site), tmp_path / "photos.zip")
    assert (tmp_path / "photos.zip").read_bytes() == BODY


@pytest.mark.parametrize("note", ["", "[]", "not json", "{}"])
def test_a_part_of_which_nothing_is_known_is_fetched_anew(site, tmp_path, note):
    (tmp_path / "photos.zip.part").write_bytes(b"?" * 1000)
    (tmp_path / "photos.zip.part.json").write_text(note)
    fetch(published(site), tmp_path / "photos.zip")
    assert (tmp_path / "photos.zip").read_bytes() == BODY


@pytest.mark.parametrize("known", [{"md5": MD5}, {"sha256": SHA256}], ids=["md5", "sha256"])
def test_a_corrupted_file_is_deleted_and_told(site, tmp_path, known):
    site.files["/photos.zip"] = b"!" + BODY[1:]
    with pytest.raises(
        DownloadError, match=r"are not the published file \((md5|sha256) .* and were deleted: try again"
    ):
        fetch(published(site, **known), tmp_path / "photos.zip")
    assert left(tmp_path) == set()


def test_a_file_of_another_size_is_not_even_fetched(site, tmp_path):
    with pytest.raises(DownloadError, match="has 256,003 bytes, the published file 5: it was replaced"):
        fetch(published(site, bytes=5), tmp_path / "photos.zip")
    assert left(tmp_path) == set()


def test_a_file_of_another_size_is_found_where_the_server_does_not_tell_it(site, tmp_path):
    site.lengths = False
    fetch(published(site, bytes=len(BODY)), tmp_path / "photos.zip")
    with pytest.raises(DownloadError, match=r"the server sent more than the 5 bytes of the file, 5 times in a row$"):
        fetch(published(site, bytes=5), tmp_path / "other.zip")
    assert left(tmp_path) == {"photos.zip"}


def test_a_part_of_which_more_is_sent_than_is_missing_is_given_up(site, tmp_path, waits, monkeypatch):
    read = http.client.HTTPResponse.read1

    def longer(response, size):
        assert len(site.asked) < 40, "it would go on forever"
        if chunk := read(response, size):
            return chunk
        response.more = bytes(len(BODY)) if response.status == 206 and not hasattr(response, "more") else b""
        return response.more

    monkeypatch.setattr(http.client.HTTPResponse, "read1", longer)
    site.behaviours = [("cut", 1000)] * 40
    with pytest.raises(DownloadError, match="the connection ended after 1,000 of 256,003 bytes, 5 times in a row"):
        fetch(published(site), tmp_path / "photos.zip")
    assert [status for _, _, status in site.asked] == [200, 206] * 2 + [200]
    assert waits == list(module.WAITS), "bytes that were thrown away before do not start the waiting over"


def test_an_answer_without_an_end_is_not_read_beyond_the_published_size(site, tmp_path, monkeypatch):
    pieces = []

    def endless(response, size):
        pieces.append(bytes(size))
        assert len(pieces) < 100, "it would fill the disk"
        return pieces[-1]

    monkeypatch.setattr(http.client.HTTPResponse, "read1", endless)
    monkeypatch.setattr(module, "_CHUNK", 100_000)
    site.lengths = False
    with pytest.raises(DownloadError, match="the server sent more than the 256,003 bytes"):
        fetch(published(site, bytes=len(BODY)), tmp_path / "photos.zip")
    assert len(pieces) == 3 * 5 and left(tmp_path) == set()


def test_a_cut_answer_without_a_length_is_taken_up_where_the_published_size_is_known(site, tmp_path):
    site.lengths, site.behaviours = False, [("cut", 1000)]
    fetch(published(site, bytes=len(BODY)), tmp_path / "photos.zip")
    assert (tmp_path / "photos.zip").read_bytes() == BODY and site.asked[1][1] == "bytes=1000-"


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
@pytest.mark.parametrize(
    ("answer", "words"), [(b"\n<html>Moved</html>", "a web page"), (b"", "an empty file"), (b"ustar", "something else")]
)
def test_something_else_in_place_of_an_archive_is_deleted_and_told(site, tmp_path, name, answer, words):
    site.files[f"/{name}"] = answer
    with pytest.raises(DownloadError, match=rf"\({words} instead of a \.\w+ file\) and were deleted") as error:
        fetch(Download(f"{site.url}/{name}"), tmp_path / name)
    assert left(tmp_path) == set() and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "contents"),
    [("a.zip", b"PK\x05\x06"), ("a.tar", bytes(257) + b"ustar\x0000"), ("a.tar.gz", b"\x1f\x8b\x08"), ("a.txt", b"")],
)
def test_an_archive_of_its_kind_is_taken(site, tmp_path, name, contents):
    site.files[f"/{name}"] = contents
    assert fetch(Download(f"{site.url}/{name}"), tmp_path / name).read_bytes() == contents


def test_a_published_checksum_is_believed_before_a_name(site, tmp_path):
    site.files["/photos.zip"] = b"not a zip"
    fetch(published(site, md5=hashlib.md5(b"not a zip").hexdigest()), tmp_path / "photos.zip")


def test_redirects_are_followed(site, tmp_path):
    site.behaviours = [("to", f"{site.url}/photos.zip")]
    fetch(Download(f"{site.url}/old"), tmp_path / "photos.zip")
    assert (tmp_path / "photos.zip").read_bytes() == BODY


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/photos.zip", "file:///etc/passwd"])
def test_redirects_out_of_the_web_are_not_followed(site, tmp_path, target):
    site.behaviours = [("to", target)]
    with pytest.raises(DownloadError, match=r"not followed|not allowed"):
        fetch(published(site), tmp_path / "photos.zip")
    assert left(tmp_path) == set()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("http://[::1", "makes no sense"),
        ("/photos.zip", "HTTP 302 .* infinite loop"),
        ("gopher:\r\n //a", "not allowed"),
    ],
)
def test_redirects_to_nowhere_are_told_in_one_line(site, tmp_path, waits, target, words):
    site.behaviours = [("to", target)] * 50
    with pytest.raises(DownloadError, match=words) as error:
        fetch(published(site), tmp_path / "photos.zip")
    assert "\n" not in str(error.value) and waits == [] and left(tmp_path) == set()


def test_redirects_from_https_to_http_are_not_followed():
    request = urllib.request.Request("https://example.org/photos.zip")
    with pytest.raises(DownloadError, match=r"redirects from https to http .*: not followed"):
        module._SafeRedirects().redirect_request(request, io.BytesIO(), 302, "", {}, "http://example.org/photos.zip")


@pytest.mark.parametrize("address", ["ftp://example.org/a.zip", "file:///etc/passwd", "a.zip", "//["])
def test_other_addresses_are_refused(tmp_path, address):
    with pytest.raises(DownloadError, match="is not an http or https address"):
        fetch(Download(address), tmp_path / "a.zip")


def test_an_address_that_is_none_is_told(tmp_path):
    with pytest.raises(DownloadError, match="makes no sense"):
        fetch(Download("http://[::1"), tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, "no longer exists"),
        (410, "no longer exists"),
        (403, "cannot be downloaded automatically"),
        (400, "HTTP 400"),
    ],
)
def test_a_refusal_is_told_at_once(site, tmp_path, waits, status, words):
    site.behaviours = [status]
    with pytest.raises(DownloadError, match=words) as error:
        fetch(published(site), tmp_path / "photos.zip")
    assert waits == [] and left(tmp_path) == set() and "\n" not in str(error.value)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_trouble_of_the_server_is_waited_out(site, tmp_path, waits, status):
    site.behaviours = [status, status]
    fetch(published(site, md5=MD5), tmp_path / "photos.zip")
    assert (tmp_path / "photos.zip").read_bytes() == BODY and waits == [1.0, 3.0]


def test_the_server_may_ask_for_a_longer_wait_but_not_for_a_day(site, tmp_path, waits):
    site.headers, site.behaviours = {"Retry-After": "20"}, [503]
    fetch(published(site), tmp_path / "a.zip")
    site.headers, site.behaviours = {"Retry-After": "86400"}, [503]
    fetch(published(site), tmp_path / "b.zip")
    assert waits == [20, 60]


def test_a_lasting_trouble_of_the_server_is_told(site, tmp_path, waits):
    site.behaviours = [503] * 9
    with pytest.raises(DownloadError, match="HTTP 503 Service Unavailable, 5 times in a row"):
        fetch(published(site), tmp_path / "photos.zip")
    assert waits == list(module.WAITS)


def test_a_refused_connection_is_told(tmp_path, waits):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/photos.zip"  # taken, and nobody listens
        with pytest.raises(DownloadError, match=r"127\.0\.0\.1 refuses the connection: its server is down"):
            fetch(Download(address), tmp_path / "photos.zip")
    assert left(tmp_path) == set()


def test_a_silent_server_is_told(tmp_path, waits):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/photos.zip"
        with pytest.raises(DownloadError, match="no answer in time, 5 times in a row"):
            fetch(Download(address), tmp_path / "photos.zip", timeout=0.05)


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), "the host example.org was not found: check the connection"),
        (ssl.SSLCertVerificationError("bad"), "the certificate of example.org is not accepted"),
    ],
)
def test_a_host_that_is_not_found_and_a_bad_certificate_are_told(tmp_path, waits, monkeypatch, failure, words):
    if isinstance(failure, ssl.SSLCertVerificationError):
        failure.verify_message = "certificate has expired"

    class Opener:
        def open(self, request, timeout):
            raise urllib.error.URLError(failure)

    monkeypatch.setattr(module, "build_opener", lambda handler: Opener())
    with pytest.raises(DownloadError, match=words):
        fetch(Download("https://example.org/photos.zip"), tmp_path / "photos.zip")


def test_too_small_a_disk_is_told_beforehand(site, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(DownloadError, match=r"0\.0 GB free, .* are to be downloaded: make room"):
        fetch(published(site), tmp_path / "photos.zip")
    assert left(tmp_path) == set()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")  # noqa: PTH110
def test_a_disk_that_fills_up_is_told(site, tmp_path):
    (tmp_path / "photos.zip.part").symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=r"the disk is full at .*: make room and run the same again"):
        fetch(published(site), tmp_path / "photos.zip")


def test_a_disk_that_fills_up_keeps_what_has_arrived(site, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(DownloadError, match="the disk is full"):
        fetch(published(site), tmp_path / "photos.zip")
    assert left(tmp_path) == {"photos.zip.part", "photos.zip.part.json"}


def test_one_process_fetches_a_file_at_a_time(site, tmp_path):
    def other(done, total):
        with pytest.raises(DownloadError, match="is being downloaded by another process"):
            fetch(published(site), tmp_path / "photos.zip")

    fetch(published(site), tmp_path / "photos.zip", other)
    assert left(tmp_path) == {"photos.zip"}
