"""Faults of memory, disks and networks, told apart from those of an image: another run may not meet them."""

from __future__ import annotations

import errno
import os

from .errors import DatasetError, ImageError, PassingError

# What is wrong with an image, in words that fit a narrow column: `ImageError.fault`.
BROKEN, CUT_OFF, EMPTY = "broken data", "cut off", "empty file"
NO_IMAGE, OTHER_KIND, TOO_LARGE = "not an image", "kind cannot be read", "too many pixels"
NOT_OPENED, LATER = "cannot be opened", PassingError.fault
CRASHES, NO_REGIONS = "crashes its decoder", "regions not found"

PASSING = "for now: "  #: how a recorded reason begins that is the machine's, not the image's

# What a disk, a network or too small a machine answers for whatever file it is asked; not every system has all.
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
    """What to say of a file that was not read because of ``error``: `PassingError` where it is no fault of the file."""
    if isinstance(error, MemoryError):
        return PassingError("cannot be read: not enough memory")
    reason = f"cannot be read: {error.strerror or error}"
    return PassingError(reason) if error.errno in _PASSING_ERRORS else ImageError(reason, NOT_OPENED)


def reason_of(error: ImageError) -> str:
    """The error as what is recorded of an image."""
    return f"{PASSING}{error}" if isinstance(error, PassingError) else str(error)


def check_root_is_there(root: str) -> None:
    """Tell one file that cannot be read from a folder of images that is gone with its disk or network share.

    Raises: `DatasetError` when it is gone.
    """
    try:
        with os.scandir(root) as entries:
            gone = None if next(entries, None) else "the folder is empty now"
    except OSError as error:
        gone = error.strerror or str(error)
    if gone:
        raise DatasetError(
            f"the images cannot be read any more: {root}: {gone}. Is a disk or a network share gone? What is finished "
            "is kept: run the same when it is there again"
        )
