"""Download and extraction of a named data set to the place where it is searched for.

Each of its files is resumed after an interruption, verified, and either complete or absent.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from ..contents import checksum
from ..errors import ConfigurationError, DatasetError, DownloadError
from ..files import one_process
from .archives import extract
from .availability import COMPLETE, NOT_THERE, PARTLY, look_up
from .catalogue import CATALOGUE
from .entry import Download, file_name, published_name

Steps = Callable[[str, int, "int | None"], None]  #: current step, bytes done, total bytes if known
Progress = Callable[[int, "int | None"], None]  #: bytes present, and total bytes; None: unknown

TIMEOUT = 60.0  #: seconds without any data
WAITS = (1.0, 3.0, 10.0, 30.0)  #: seconds before each further attempt; progress beyond any earlier attempt resets them
_CHUNK = 1 << 20
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_MARKS = {".zip": (0, b"PK"), ".tar": (257, b"ustar"), ".gz": (0, b"\x1f\x8b")}  #: (offset, bytes there)


def acquire(dataset: str, root: Path, progress: Steps = lambda what, done, total: None) -> list[Path]:
    """Download and extract a data set under ``root``. Does nothing if it is complete.

    After an interruption, the next call resumes. Manually downloaded archives are used. All archives are kept.

    Returns: paths of the archives; empty if nothing was to be done.
    Raises: `DatasetError` with instructions if the data set may not be downloaded automatically; before a download if
    a part of it or anything else is in the way; or if the result does not have the published counts. Also whatever
    `fetch` and `extract` raise.
    """
    entry = CATALOGUE[dataset]
    found = look_up(dataset, root)
    if found.state == COMPLETE:
        return []
    if not entry.downloads:
        if not entry.homepage:
            raise ConfigurationError(f"there is nothing to download for {dataset!r}: {entry.how}")
        if found.state != NOT_THERE:
            raise DatasetError(found.detail)
        raise DatasetError(f"{entry.title} cannot be downloaded automatically: {entry.how}, to {root / entry.folder}")
    if found.state == PARTLY:
        raise DatasetError(f"{found.detail}. To download all of it, move the existing files away")
    folder = root / entry.folder
    archives = [root / file_name(download) for download in entry.downloads]
    for download, target in zip(entry.downloads, archives, strict=True):
        for suffix in ("", ".part", ".part.json"):
            for name in (target.name + suffix, published_name(download) + suffix):
                if (folder / name).is_file() and not (root / (target.name + suffix)).exists():
                    (folder / name).replace(root / (target.name + suffix))  # the folder is created from their content
    _make_free(folder)
    for download, target in zip(entry.downloads, archives, strict=True):
        fetch(download, target, partial(progress, f"fetch {target.name}"))
    _make_free(folder)  # macOS may have added files in the meantime
    extract(archives, folder, progress=progress)
    found = look_up(dataset, root)
    if found.state != COMPLETE:
        raise DatasetError(found.detail)
    return archives


def fetch(
    download: Download, target: Path, progress: Progress = lambda done, total: None, *, timeout: float = TIMEOUT
) -> Path:
    """Download a file to ``target`` and return that path.

    Data received so far are kept in ``<target>.part``, with the server's metadata beside it, and the next call resumes
    from there if the server still has the same file. An existing ``target`` is verified, not downloaded.

    Raises: `DownloadError`, which names cause and remedy. A file that is not the published one is deleted if it was
    downloaded, and kept if it existed before. `KeyboardInterrupt` leaves the partial file for the next call.
    """
    if not download.url.startswith(("http://", "https://")):
        raise DownloadError(f"{download.url} is not an http or https address")
    target.parent.mkdir(parents=True, exist_ok=True)
    busy = DownloadError(f"{target} is being downloaded by another process: wait for it, or end it")
    with one_process(target.with_name(target.name + ".lock"), busy):
        if target.exists():
            if difference := difference_from(target, download):
                raise DownloadError(
                    f"{target} is not the published file ({difference}): delete it or move it away to download it"
                )
            return target
        part = target.with_name(target.name + ".part")
        _fetch_part(download, part, progress, timeout)
        if difference := difference_from(part, download):
            _forget(part)
            raise DownloadError(
                f"the data from {download.url} are not the published file ({difference}) and were deleted: try again; "
                "if it happens twice, the file was replaced, or something in between changes it"
            )
        part.replace(target)
        _forget(part)
    return target


def _make_free(folder: Path) -> None:
    """Make sure that ``folder`` can be extracted to: it must be absent, or empty apart from files that macOS leaves.

    Raises: `DatasetError`, which names anything else in the way; nothing is then deleted.
    """
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    of_a_mac = [path for path in inside if path.is_file() and (path.name == ".DS_Store" or path.name.startswith("._"))]
    others = [path for path in inside if path not in of_a_mac]
    if others or (folder.exists() and not folder.is_dir()):
        in_the_way = others[0] if others else folder
        raise DatasetError(f"{in_the_way} is in the way of the files to be unpacked: delete it or move it away")
    for path in of_a_mac:
        path.unlink()


def difference_from(path: Path, download: Download) -> str:
    """Describe how the file differs from the published one; empty if it does not, as far as is known.

    Without a published checksum, the file must start like the kind of file that its name implies.
    """
    size = path.stat().st_size
    if download.bytes is not None and size != download.bytes:
        return f"{size:,} bytes instead of {download.bytes:,}"
    for kind, wanted in (("sha256", download.sha256), ("md5", download.md5)):
        if wanted is not None:
            found = checksum(path, kind)
            return "" if found == wanted.lower() else f"{kind} {found} instead of {wanted}"
    suffix = Path(file_name(download)).suffix.lower()
    place, mark = _MARKS.get(suffix, (0, b""))
    with path.open("rb") as file:
        start = file.read(512)
    if start[place:].startswith(mark):
        return ""
    looks = "an empty file" if not start else "a web page" if start.lstrip().startswith(b"<") else "something else"
    return f"{looks} instead of a {suffix} file"


class _Passing(Exception):
    """A failure that may be temporary."""

    def __init__(self, reason: str, wait: float = 0) -> None:
        super().__init__(_one_line(reason))
        self.wait = wait  #: seconds requested by the server


class _SafeRedirects(HTTPRedirectHandler):
    """Follow redirects, except from https to http, where others could change the file, and to other protocols."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("http", "https") or (before, after) == ("https", "http"):
            fp.close()
            raise DownloadError(
                f"{req.full_url} redirects from {before} to {after} ({newurl}): not followed, because the connection "
                "would not be safe; download the file manually"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage) -> Any:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError:  # raised for an invalid address
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _fetch_part(download: Download, part: Path, progress: Progress, timeout: float) -> None:
    """Attempt to download until ``part`` is complete according to the server; return at once if it already is."""
    if _is_complete(download, part):
        return
    opener = build_opener(_SafeRedirects)
    failures, most = 0, _size(part)
    while True:
        try:
            _attempt(opener, download, part, progress, timeout)
            return
        except _Passing as failure:
            failures = 1 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures > len(WAITS):
                kept = f"; {_size(part):,} bytes are kept: run the same again to resume" if _size(part) else ""
                raise DownloadError(f"{download.url}: {failure}, {failures} times in a row{kept}") from None
            time.sleep(max(WAITS[failures - 1], min(failure.wait, 60)))
        except ValueError as error:
            raise DownloadError(
                f"{download.url}: the address, or the server's answer, makes no sense ({_one_line(error)}); download "
                "it manually from its homepage"
            ) from None


def _is_complete(download: Download, part: Path) -> bool:
    """Whether ``part`` has as many bytes as published, or as the server announced, and only needs verification."""
    known = _read_note(_note(part))
    told = known.get("total") if known.get("url") == download.url else None
    return _size(part) > 0 and _size(part) in (download.bytes, told)


def _attempt(opener: OpenerDirector, download: Download, part: Path, progress: Progress, timeout: float) -> None:
    """Send one request: for the missing data if the server still has the same file, otherwise for all of it.

    Raises: `_Passing` if another attempt is worthwhile, else `DownloadError`.
    """
    known = _read_note(_note(part))
    request = Request(download.url, headers={"User-Agent": "agnet", "Accept-Encoding": "identity"})
    have = _size(part)
    if have and (validator := _validator(known)) and known.get("url") == download.url:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator)
    try:
        with opener.open(request, timeout=timeout) as response:
            headers = response.headers
            start, total = _extent(response)
            told = {
                "url": download.url,
                "etag": headers["ETag"],
                "modified": headers["Last-Modified"],
                "total": total,
            }
            if response.status == 206 and (start != have or _validator(told) != _validator(known)):
                _forget(part)
                raise _Passing("the server sent another part than requested")
            _check_size(download, part, total, start)
            _note(part).write_text(json.dumps(told), encoding="utf-8")
            _receive(response, part, start, download.bytes if total is None else total, progress)
    except HTTPError as error:
        error.close()
        if error.code == 416:  # the partial file is at least as long as the file
            if have and error.headers.get("Content-Range") == f"bytes */{have}":
                return
            _forget(part)
            raise _Passing("the part on disk does not belong to this file") from None
        if error.code in _PASSING:
            asked = error.headers.get("Retry-After", "")
            raise _Passing(f"HTTP {error.code} {error.reason}", int(asked) if asked.isdecimal() else 0) from None
        raise DownloadError(_refusal(download.url, error)) from None
    except (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise _network_error(download.url, error) from None


def _receive(response: HTTPResponse, part: Path, start: int, total: int | None, progress: Progress) -> None:
    """Append the body to ``part`` from ``start`` until it ends or exceeds the ``total`` bytes of the file.

    Raises: `_Passing` if it is shorter, or longer, in which case the part is deleted; `DownloadError` for disk errors.
    """
    done = start
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        progress(done, total)
        while (total is None or done <= total) and (chunk := _next_chunk(response)):
            try:
                file.write(chunk)
            except OSError as error:
                raise _disk_error(part, error) from error
            done += len(chunk)
            progress(done, total)
        try:
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise _disk_error(part, error) from error
    if total is not None and done > total:
        _forget(part)
        raise _Passing(f"the server sent more than the {total:,} bytes of the file")
    if total is not None and done < total:
        raise _Passing(f"the connection ended after {done:,} of {total:,} bytes")


def _next_chunk(response: HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK)
    except OSError as error:
        raise _Passing(
            "no answer in time" if isinstance(error, TimeoutError) else f"the connection was lost ({error})"
        ) from None


def _extent(response: HTTPResponse) -> tuple[int, int | None]:
    """The body's offset in the file, and the size of the whole file if the server gives it."""
    if response.status == 206:
        first, _, whole = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        start = first.partition("-")[0]
        return (int(start) if start.isdecimal() else -1), (int(whole) if whole.isdecimal() else None)
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _check_size(download: Download, part: Path, total: int | None, start: int) -> None:
    """Raise `DownloadError` if the server's file has another size than published, or does not fit on the disk."""
    if download.bytes is not None and total is not None and total != download.bytes:
        raise DownloadError(
            f"{download.url} has {total:,} bytes, the published file {download.bytes:,}: it was replaced, or something "
            "in between answers in its place; nothing was downloaded"
        )
    missing = (total or download.bytes or 0) - start
    free = shutil.disk_usage(part.parent).free + (_size(part) - start)
    if missing > free:
        raise DownloadError(
            f"{part.parent} has {free / 1e9:,.1f} GB free, {missing / 1e9:,.1f} GB are to be downloaded: make room, or "
            "name another place with --root"
        )


def _validator(told: dict[str, Any]) -> str:
    """The value for If-Range: a strong ETag, else the time of change; empty if the server gave neither."""
    etag = str(told.get("etag") or "")
    return etag if etag.startswith('"') else str(told.get("modified") or "")


def _note(part: Path) -> Path:
    """The file beside ``part`` with the server's metadata."""
    return part.with_name(part.name + ".json")


def _read_note(note: Path) -> dict[str, Any]:
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _refusal(url: str, error: HTTPError) -> str:
    reason = _one_line(error.reason)
    if error.code in (404, 410):
        return f"{url} no longer exists ({error.code}): see the data set's homepage for its new address"
    if error.code in (401, 403):
        return f"{url} cannot be downloaded automatically ({error.code} {reason}): get it manually from its homepage"
    return f"{url}: HTTP {error.code} {reason}; download it manually from its homepage"


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())


def _network_error(url: str, error: Exception) -> Exception:
    """The error to raise: `_Passing` if another attempt is worthwhile, else `DownloadError`."""
    cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
    host = urlsplit(url).hostname
    if isinstance(cause, ssl.SSLCertVerificationError):
        return DownloadError(
            f"the certificate of {host} is not accepted ({cause.verify_message}): check this machine's clock and its "
            "list of authorities (SSL_CERT_FILE names another); nothing is downloaded without a valid certificate"
        )
    if isinstance(cause, socket.gaierror):
        return DownloadError(f"the host {host} was not found: check the connection to the internet, or the proxy")
    if isinstance(cause, ConnectionRefusedError):
        return DownloadError(f"{host} refuses the connection: its server is down, or a firewall or proxy forbids it")
    if isinstance(cause, TimeoutError):
        return _Passing("no answer in time")
    return _Passing(f"the connection was lost ({cause or type(cause).__name__})")


def _disk_error(part: Path, error: OSError) -> DownloadError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DownloadError(f"the disk is full at {part}: make room and run the same again to resume")
    return DownloadError(f"{part} cannot be written: {error.strerror}")
