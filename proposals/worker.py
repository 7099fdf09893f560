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

from ..data.errors import ImageError
from ..data.faults import CRASHES, LATER, NO_REGIONS, NOT_OPENED, PASSING, check_root_is_there, reason_of, unread
from ..data.images import decode_image
from ..data.regions import Proposal, content_hash, time_of_change
from ..data.text import first_line
from .one_image import propose_regions
from .settings import NETWORKS, ProposalSettings


def propose_chunk(root: str, settings: ProposalSettings, weights: str | None, names: Sequence[str]) -> list[Proposal]:
    """Propose the regions of several images, in order. An unreadable image is recorded, not raised.

    Args:
        root: Absolute path of the data set's root; a worker may run in another folder.
        settings: Proposal settings.
        weights: Absolute path of the weights file, for methods that use one.
        names: Image names relative to the root.
    """
    # joblib limits neither OpenCV's own pool nor every BLAS; without limits, workers compete for the cores.
    cv2.setNumThreads(1)
    if settings.method in NETWORKS:
        import torch

        torch.set_num_threads(1)  # also because the last digits of sums depend on it
    with _thread_pools().limit(limits=1):
        file = Path(weights) if weights else None
        return [_propose_file(root, name, settings, file) for name in names]


def lost_image(root: str, name: str, reason: str) -> Proposal:
    """The proposal of an image that killed its worker process."""
    fault = LATER if reason.startswith(PASSING) else CRASHES
    return _without_regions(_read(root, name)[0], reason, fault)


def _propose_file(root: str, name: str, settings: ProposalSettings, weights: Path | None) -> Proposal:
    file, content = _read(root, name)
    if file.reason:
        return file
    try:
        image = decode_image(content, settings.max_pixels)
        regions = propose_regions(image, settings, weights)
    except ImageError as error:
        return _without_regions(file, reason_of(error), error.fault)
    except (cv2.error, MemoryError) as error:
        if isinstance(error, MemoryError) or error.code == cv2.Error.StsNoMem:
            return _without_regions(file, f"{PASSING}not enough memory to find its regions", LATER)
        reason = first_line(error, "no reason given")
        return _without_regions(file, f"{settings.method} failed on it: {reason}", NO_REGIONS)
    return replace(file, regions=regions)


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


@cache
def _thread_pools() -> threadpoolctl.ThreadpoolController:
    """Finding the libraries with thread pools takes a millisecond or more, so it is done once."""
    return threadpoolctl.ThreadpoolController()
