"""What made a run: versions, the revision of the code, and what image is in which split. Never a path, user or host."""

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

_PACKAGES = ("torchvision", "numpy", "opencv-python", "safetensors", "h5py", "pillow", "timm", "tensorboard")
_OF_ANOTHER_REPOSITORY = frozenset(
    ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE")
)


def versions() -> dict[str, str | None]:
    """Of this program, Python and the packages that have a say in the numbers; None for what is not installed."""
    import torch  # what else there is here is asked before it is loaded

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

    Both None where it runs from no checkout of its own, or there is no git.
    """
    root = Path(__file__).resolve().parents[2]
    unknown: dict[str, object] = {"git_revision": None, "git_dirty": None}
    if not (root / ".git").exists():  # installed, perhaps within the checkout of something else
        return unknown
    try:
        revision = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return unknown
    return {"git_revision": revision, "git_dirty": bool(changes)}


def _git(root: Path, *words: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(root), *words]
    # Hooks and `git rebase --exec` run programs with variables that name their own repository.
    environment = {name: value for name, value in os.environ.items() if name not in _OF_ANOTHER_REPOSITORY}
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20, env=environment)
    return found.stdout.strip()


def split_hash(boxes: Boxes) -> str:
    """What image is in which split, in 16 hexadecimal digits: equal for equal splits, whatever the regions."""
    lines = sorted(f"{name.decode()}\n{split}\n" for name, split in zip(boxes.names, boxes.splits, strict=True))
    return hashlib.blake2b("".join(lines).encode(), digest_size=8).hexdigest()


def images_hash(boxes: Boxes) -> str:
    """All that a model without regions learns from, in 16 hexadecimal digits: the usable images in their order, each
    with its class, split and content.
    """
    columns = (boxes.names, boxes.labels, boxes.splits, boxes.contents)
    lines = "".join(
        f"{name.decode()}\n{boxes.classes[label]}\n{split}\n{content.decode()}\n"
        for name, label, split, content in zip(*(column[boxes.usable] for column in columns), strict=True)
    )
    return hashlib.blake2b(lines.encode(), digest_size=8).hexdigest()


def identity(boxes: Boxes) -> dict[str, object]:
    """What tells whether a run's boxes file is the one that it was started with: see `same_boxes`."""
    return {"fingerprint": boxes.fingerprint, "images_blake2b": images_hash(boxes)}


def same_boxes(one: Mapping[str, object], other: Mapping[str, object], *, regions: bool) -> bool:
    """Whether two boxes files, by their `identity`, give a model the same samples.

    Args:
        regions: whether the model looks at regions; if not, only the images count.
    """
    images = one.get("images_blake2b")  # older runs have none
    same_images = images is not None and images == other.get("images_blake2b")
    return one.get("fingerprint") == other.get("fingerprint") or (same_images and not regions)
