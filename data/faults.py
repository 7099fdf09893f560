"""Temporary faults of memory, disks and networks, as opposed to faults of an image: another run may not meet them."""

from __future__ import annotations

import errno
import os

from .errors import DatasetError, ImageError, PassingError

# Faults of an image in words that fit a narrow column: `ImageError.fault`.
BROKEN, CUT_OFF, EMPTY = "broken data", "cut off", "empty file"
NO_IMAGE, OTHER_KIND, TOO_LARGE = "not an image", "kind cannot be read", "too many pixels"
NOT_OPENED, LATER = "cannot be opened", PassingError.fault
CRASHES, NO_REGIONS = "crashes its decoder", "regions not found"

PASSING = "for now: "  #: prefix of a recorded reason that is a fault of the machine, not of the image

# Errors of a disk, a network or exhausted resources, independent of the file. Not every system defines all of them.
_PASSING_ERRORS = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "ENOLINK", "EREMOTEIO", "ECOMM", "ENXIO", "ENODEV", "EBUSY", "EAGAIN", "ENOLCK"),
        *("ETIMEDOUT", "ENOTCONN", "ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "EPIPE"),
        *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENETRESET", "ESHUTDOWN"),
        *("ENOMEM", "EMFILE", "ENFILE"),
    )
    if hasattr(errno, name)
)


def unread(error: OSError | MemoryError) -> ImageError:
    """The error for a file that was not read because of ``error``: `PassingError` if the file is not at fault."""
    if isinstance(error, MemoryError):
        return PassingError("cannot be read: not enough memory")
    reason = f"cannot be read: {error.strerror or error}"
    return PassingError(reason) if error.errno in _PASSING_ERRORS else ImageError(reason, NOT_OPENED)


def reason_of(error: ImageError) -> str:
    """The error as the text recorded for an image."""
    return f"{PASSING}{error}" if isinstance(error, PassingError) else str(error)


def check_root_is_there(root: str) -> None:
    """Check that the folder of images has not disappeared with its disk or network share.

    Raises: `DatasetError` if it is gone or empty.
    """
    try:
        with os.scandir(root) as entries:
            gone = None if next(entries, None) else "the folder is empty now"
    except OSError as error:
        gone = error.strerror or str(error)
    if gone:
        raise DatasetError(
            f"the images cannot be read any more: {root}: {gone}. Was a disk or network share disconnected? Finished "
            "work is kept: run the same command once it is back"
        )
