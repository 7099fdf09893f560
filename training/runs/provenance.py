"""Provenance of a run: versions, code revision, and hashes of its images and splits; no paths, users or hosts."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from ... import __version__

if TYPE_CHECKING:
    from ...data.boxes.reader import Boxes

_PACKAGES = (
    "torchvision",
    "numpy",
    "opencv-python",
    "safetensors",
    "h5py",
    "pillow",
    "simplejpeg",
    "timm",
    "tensorboard",
)
_OF_ANOTHER_REPOSITORY = frozenset(
    ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE")
)


def versions() -> dict[str, str | None]:
    """Versions of agnet, Python and the packages that affect results; None for those not installed."""
    import torch  # slow to load; the rest of this module is used without it

    found: dict[str, str | None] = {
        "agnet": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def code_revision() -> dict[str, object]:
    """``git_revision`` of the checkout that this code runs from, and whether files differ from it (``git_dirty``).

    Both are None when the code does not run from its own checkout, or git is not available.
    """
    root = Path(__file__).resolve().parents[2]
    unknown: dict[str, object] = {"git_revision": None, "git_dirty": None}
    if not (root / ".git").exists():  # installed, possibly inside the checkout of another project
        return unknown
    try:
        revision = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return unknown
    return {"git_revision": revision, "git_dirty": bool(changes)}


def _git(root: Path, *words: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(root), *words]
    # Git hooks and `git rebase --exec` set variables that point to their own repository.
    environment = {name: value for name, value in os.environ.items() if name not in _OF_ANOTHER_REPOSITORY}
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20, env=environment)
    return found.stdout.strip()


def split_hash(boxes: Boxes) -> str:
    """Hash of the assignment of images to splits, 16 hexadecimal digits; independent of the regions."""
    lines = sorted(f"{name.decode()}\n{split}\n" for name, split in zip(boxes.names, boxes.splits, strict=True))
    return hashlib.blake2b("".join(lines).encode(), digest_size=8).hexdigest()


def images_hash(boxes: Boxes) -> str:
    """Hash of all that a model without regions is trained on, 16 hexadecimal digits.

    Covers the usable images in order, each with its class, split and content.
    """
    columns = (boxes.names, boxes.labels, boxes.splits, boxes.contents)
    digest = hashlib.blake2b(digest_size=8)
    for name, label, split, content in zip(*(column[boxes.usable] for column in columns), strict=True):
        digest.update(name + f"\n{boxes.classes[label]}\n{split}\n".encode() + content + b"\n")
    return digest.hexdigest()


def identity(boxes: Boxes) -> dict[str, object]:
    """Hashes that identify the boxes file of a run, for `same_boxes`."""
    return {"fingerprint": boxes.fingerprint, "images_blake2b": images_hash(boxes)}


def same_boxes(one: Mapping[str, object], other: Mapping[str, object], *, regions: bool) -> bool:
    """Whether two boxes files, given their `identity`, provide a model with the same samples.

    Args:
        regions: Whether the model uses regions; if not, only the images are compared.
    """
    images = one.get("images_blake2b")  # absent from older runs
    same_images = images is not None and images == other.get("images_blake2b")
    return one.get("fingerprint") == other.get("fingerprint") or (same_images and not regions)
