"""The task of a worker process. Workers import this module, so it imports nothing that only the parent needs."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import threadpoolctl

from ..data.contents import hash_of, stamp_of_folder
from ..data.errors import ImageError
from ..data.faults import CRASHES, LATER, NO_REGIONS, NOT_OPENED, PASSING, check_root_is_there, reason_of, unread
from ..data.images import decode_image
from ..data.regions import NOT_THERE, Proposal, content_hash, time_of_change
from ..data.text import first_line
from .one_image import propose_regions
from .settings import NETWORKS, ProposalSettings
from .tubes import propose_clip


def propose_chunk(root: str, settings: ProposalSettings, weights: str | None, names: Sequence[str]) -> list[Proposal]:
    """Propose the regions of several images or clips, in order. An unreadable one is recorded, not raised.

    Args:
        root: Absolute path of the data set's root; a worker may run in another folder.
        settings: Proposal settings.
        weights: Absolute path of the weights file, for methods that use one.
        names: Names relative to the root.
    """
    # joblib limits neither OpenCV's own pool nor every BLAS; without limits, workers compete for the cores.
    cv2.setNumThreads(1)
    if settings.method in NETWORKS:
        import torch

        torch.set_num_threads(1)  # also because the last digits of sums depend on it
    with _thread_pools().limit(limits=1):
        file = Path(weights) if weights else None
        return [_propose_file(root, name, settings, file) for name in names]


def lost_image(root: str, of_clips: bool, name: str, reason: str) -> Proposal:
    """The proposal of an image or clip that killed its worker process."""
    fault = LATER if reason.startswith(PASSING) else CRASHES
    return _without_regions((_look_at_clip if of_clips else _read)(root, name)[0], reason, fault)


def _propose_file(root: str, name: str, settings: ProposalSettings, weights: Path | None) -> Proposal:
    file, content = _look_at_clip(root, name) if settings.frames else _read(root, name)
    if file.reason:
        return file
    tubes = None
    try:
        if settings.frames:
            tubes = propose_clip(Path(root, name), settings)
            regions = tubes.regions[0]
        else:
            regions = propose_regions(decode_image(content, settings.max_pixels), settings, weights)
    except ImageError as error:
        return _without_regions(file, reason_of(error).removeprefix(f"{Path(root, name)}: "), error.fault)
    except (cv2.error, MemoryError) as error:
        if isinstance(error, MemoryError) or error.code == cv2.Error.StsNoMem:
            return _without_regions(file, f"{PASSING}not enough memory to find its regions", LATER)
        reason = first_line(error, "no reason given")
        return _without_regions(file, f"{settings.method} failed on it: {reason}", NO_REGIONS)
    return replace(file, regions=regions, tubes=tubes)


def _without_regions(file: Proposal, reason: str, fault: str) -> Proposal:
    """Record the reason. If another run may succeed, the file counts as never read, so that it is read again."""
    file = Proposal(None) if reason.startswith(PASSING) else file
    return replace(file, reason=reason, fault=fault)


def _read(root: str, name: str) -> tuple[Proposal, bytes]:
    """Read a file. Returns its properties, with a reason if it cannot be read, and its content.

    Raises: `DatasetError` if it cannot be read because the data set has disappeared.
    """
    path = os.path.join(root, name)  # noqa: PTH118 - faster
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - a pipe would block, a device never ends
            return Proposal(None, reason="is not a file", fault=NOT_OPENED), b""
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            modified = time_of_change(os.fstat(file.fileno()).st_mtime_ns)
            content = file.read()
    except (OSError, MemoryError) as error:
        check_root_is_there(root)
        trouble = unread(error)
        return Proposal(None, reason=reason_of(trouble), fault=trouble.fault), b""
    return Proposal(None, len(content), modified, content_hash(content)), content


def _look_at_clip(root: str, name: str) -> tuple[Proposal, bytes]:
    """As `_read`, for a video file or a folder of frames, whose content is read in pieces and not returned."""
    path = Path(root, name)
    try:
        if path.is_dir():
            size, modified = stamp_of_folder(path) or (0, NOT_THERE)
        else:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                return Proposal(None, reason="is not a file", fault=NOT_OPENED), b""
            size, modified = status.st_size, time_of_change(status.st_mtime_ns)
        return Proposal(None, size, modified, hash_of(path)), b""
    except OSError as error:
        check_root_is_there(root)
        trouble = unread(error)
        return Proposal(None, reason=reason_of(trouble), fault=trouble.fault), b""


@cache
def _thread_pools() -> threadpoolctl.ThreadpoolController:
    """Finding the libraries with thread pools takes a millisecond or more, so it is done once."""
    return threadpoolctl.ThreadpoolController()
