"""Which images a run has seen, by the content of their files: what it was trained on must not measure it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ...data.errors import CheckpointError
from ...data.files import atomic_file

if TYPE_CHECKING:
    from ...data.boxes.reader import Boxes

SEEN = "seen.txt"
UNKNOWN = "unknown"
EARLIER = "earlier"  #: what the run had seen whose weights this one began with
_PARTS = ("train", "val")
_CONTENT = re.compile(rb"[0-9a-f]{16}")
_LINE = re.compile(r"(train|val|earlier) ([0-9a-f]{16}|unknown)")


def write_seen(run: Path, boxes: Boxes, earlier: Iterable[str] = ()) -> Path:
    """Write a line for each image that training or the choice of the epoch looks at: its part, and its content's hash.

    Sorted, so that it says nothing of names or order; 21 bytes an image. Returns the file's path.

    Args:
        earlier: contents that the run had seen whose weights this one begins with; `UNKNOWN` where it does not say.
    """
    lines = [f"{part} {content}" for part in _PARTS for content in contents_of(boxes, part)]
    lines += [f"{EARLIER} {content}" for content in earlier]
    target = run / SEEN
    with atomic_file(target) as unfinished:
        unfinished.write_text("".join(f"{line}\n" for line in sorted(lines)), encoding="ascii")
    return target


def read_seen(run: Path, parts: Iterable[str] = (*_PARTS, EARLIER)) -> frozenset[str] | None:
    """The contents of the images that a run was trained on or selected by, and of those that were seen by the run it
    began from; None for a run that does not say.

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
    """The content hashes of the usable images of ``split``; `UNKNOWN` where the file of another program has none."""
    found = boxes.contents[boxes.usable[boxes.rows(split)]].tolist()
    return [content.decode() if _CONTENT.fullmatch(content) else UNKNOWN for content in found]


def count_seen(boxes: Boxes, split: str, seen: frozenset[str]) -> int:
    """How many usable images of ``split`` are among ``seen``, by content."""
    known = seen - {UNKNOWN}
    return sum(content in known for content in contents_of(boxes, split))
