"""Record of the images that a run has seen, by content hash, so that it is not evaluated on training images."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ...data.errors import CheckpointError
from ...data.files import atomic_file

if TYPE_CHECKING:
    from ...data.boxes.reader import Boxes, Listing

SEEN = "seen.txt"
UNKNOWN = "unknown"
EARLIER = "earlier"  #: images seen by the run that provided the initial weights
_PARTS = ("train", "val")
_CONTENT = re.compile(rb"[0-9a-f]{16}")
_LINE = re.compile(r"(train|val|earlier) ([0-9a-f]{16}|unknown)")


def write_seen(run: Path, boxes: Boxes, earlier: Iterable[str] = ()) -> Path:
    """Write one line per image used for training or for the choice of the epoch: its split and its content hash.

    Lines are sorted, so that the file reveals neither names nor order; about 21 bytes per image. Returns its path.

    Args:
        earlier: Content hashes of the images seen by the run that provided the initial weights; `UNKNOWN` if that run
            has no record.
    """
    lines = [f"{part} {content}" for part in _PARTS for content in contents_of(boxes, part)]
    lines += [f"{EARLIER} {content}" for content in earlier]
    target = run / SEEN
    with atomic_file(target) as unfinished:
        unfinished.write_text("".join(f"{line}\n" for line in sorted(lines)), encoding="ascii")
    return target


def read_seen(run: Path, parts: Iterable[str] = (*_PARTS, EARLIER)) -> frozenset[str] | None:
    """Read the content hashes of the images that a run, or the run that provided its initial weights, has seen.

    These are the images used for training or for the choice of the epoch.

    Args:
        parts: Kinds of lines to read: ``train``, ``val`` or `EARLIER`.

    Returns: the hashes; None when the run has no record or an incomplete one.

    Raises: `CheckpointError` when the file is damaged.
    """
    path = run / SEEN
    try:
        *lines, end = path.read_text(encoding="ascii").split("\n")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    matches = [match for line in lines if (match := _LINE.fullmatch(line))]
    if end or len(matches) < max(1, len(lines)):
        raise CheckpointError(f"{path} is damaged: expected lines such as 'train 0123456789abcdef' and nothing else")
    contents = frozenset(match[2] for match in matches if match[1] in parts)
    return None if UNKNOWN in contents else contents


def contents_of(boxes: Boxes, split: str) -> list[str]:
    """Content hashes of the usable images of ``split``; `UNKNOWN` for images without one in the boxes file."""
    found = boxes.contents[boxes.usable[boxes.rows(split)]].tolist()
    return [content.decode() if _CONTENT.fullmatch(content) else UNKNOWN for content in found]


def count_seen(boxes: Boxes, split: str, seen: frozenset[str]) -> int:
    """Number of usable images of ``split`` whose content hash is in ``seen``."""
    known = seen - {UNKNOWN}
    return sum(content in known for content in contents_of(boxes, split))


def names_by_content(listing: Listing, parts: Iterable[str]) -> dict[str, str]:
    """Map the content hash of each image of these splits to its name, or of several to the first one's."""
    found: dict[str, str] = {}
    for part in parts:
        for image in (listing.splits == part).nonzero()[0].tolist():
            if _CONTENT.fullmatch(content := listing.contents[image]):
                found.setdefault(content.decode(), listing.names[image].decode())
    return found
