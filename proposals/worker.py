"""What a worker process does; imported there, so nothing that only the parent needs."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import threadpoolctl

from ..data.errors import ImageError
from ..data.images import decode_image
from ..data.parallel import LOST
from ..data.regions import Proposal
from .one_image import propose_regions
from .settings import NETWORKS, ProposalSettings


def propose_chunk(root: str, settings: ProposalSettings, weights: str | None, names: Sequence[str]) -> list[Proposal]:
    """The proposals of some images, in order. An unreadable image is recorded, not raised.

    Args:
        root: absolute path of the data set's root; a worker may have been started in another folder.
        settings: what decides the regions.
        weights: absolute path of the weights file, for methods that use one.
        names: relative to the root.
    """
    # joblib limits neither OpenCV's own pool nor every BLAS; left alone, workers fight over the cores.
    cv2.setNumThreads(1)
    if settings.method in NETWORKS:
        import torch

        torch.set_num_threads(1)  # also, because sums depend on it in their last digits
    with _thread_pools().limit(limits=1):
        file = Path(weights) if weights else None
        return [_propose_file(os.path.join(root, name), settings, file) for name in names]  # noqa: PTH118 - faster


def lost_image(root: str, name: str) -> Proposal:
    """The proposal of an image that killed the process that worked on it."""
    proposal, _ = _read(os.path.join(root, name))  # noqa: PTH118
    return Proposal(
        None,
        proposal.file_bytes,
        proposal.modified_ns,
        proposal.content_blake2b,
        reason=LOST,
    )


def _propose_file(path: str, settings: ProposalSettings, weights: Path | None) -> Proposal:
    unread, content = _read(path)
    if unread.reason:
        return unread
    try:
        image = decode_image(content, settings.max_pixels)
    except ImageError as error:
        return Proposal(None, unread.file_bytes, unread.modified_ns, unread.content_blake2b, str(error))
    try:
        regions = propose_regions(image, settings, weights)
    except (cv2.error, MemoryError) as error:
        reason = f"{settings.method} failed on it: {(str(error).strip().splitlines() or ['not enough memory'])[0]}"
        return Proposal(None, unread.file_bytes, unread.modified_ns, unread.content_blake2b, reason)
    return Proposal(regions, unread.file_bytes, unread.modified_ns, unread.content_blake2b)


def _read(path: str) -> tuple[Proposal, bytes]:
    """What is known of a file before it is decoded, and its content; a reason if there is none."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - a pipe would be waited for, a device never ends
            return Proposal(None, reason="is not a file"), b""
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            modified = os.fstat(file.fileno()).st_mtime_ns
            content = file.read()
    except OSError as error:
        return Proposal(None, reason=f"cannot be read: {error.strerror or error}"), b""
    return Proposal(None, len(content), modified, hashlib.blake2b(content, digest_size=8).hexdigest()), content


@cache
def _thread_pools() -> threadpoolctl.ThreadpoolController:
    """Looking for the libraries that have thread pools takes a millisecond or more; once is enough."""
    return threadpoolctl.ThreadpoolController()
