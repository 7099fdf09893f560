"""What a checkpoint says of itself, in its file's header: read without PyTorch, which takes seconds to load."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ...data.errors import CheckpointError
from ...data.spelling import close_names
from ...data.text import composed_all, first_line
from ..models.contract import Settings
from ..models.registry import needs_of, settings_of

FORMAT = "agnet checkpoint"
FORMAT_VERSION = 1

_LARGEST_HEADER = 2**26  # characters; 100,000 classes with long names take a tenth


@dataclass(frozen=True)
class CheckpointHeader:
    """What a network was trained for; a `Checkpoint` adds the network."""

    settings: Settings
    classes: tuple[str, ...]
    proposals: dict[str, object]  #: stage 1's settings; new images get their regions the same way
    fingerprint: str  #: of the boxes file
    epoch: int
    val_top1: float | None

    @property
    def regions(self) -> int:
        """How many regions the network looks at: 0 for a plain model, or one whose regions were taken away."""
        return needs_of(self.settings).regions


def read_header(path: Path) -> CheckpointHeader:
    """The header of a checkpoint, whose weights are not looked at.

    Raises: `CheckpointError` for a file that is no checkpoint, or says of itself what no checkpoint says.
    """
    check_there(path)
    try:
        with safe_open(path, framework="np") as file:
            values = parse_header(file.metadata())
    except (SafetensorError, OSError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is not a safetensors file, or damaged: {first_line(error)}") from None
    check_format(path, values)
    try:
        header = header_of(values)
        check_classes(header)
    except KeyError as error:
        raise CheckpointError(f"{path} is damaged or foreign: its header has no {error}") from None
    except (AttributeError, TypeError, ValueError, OverflowError, LookupError) as error:
        raise CheckpointError(f"{path} is damaged or foreign: {first_line(error)}") from None
    return header


def is_checkpoint(path: Path) -> bool:
    """Whether a file says that it is an agnet checkpoint, sound or not."""
    try:
        with safe_open(path, framework="np") as file:
            return parse_header(file.metadata()).get("format") == FORMAT
    except (SafetensorError, OSError, ValueError, RecursionError):
        return False


def check_classes(header: CheckpointHeader) -> None:
    """Raises: `ValueError` for other classes than the network has."""
    if len(header.classes) != header.settings.classes:
        raise ValueError(f"{len(header.classes)} class names for {header.settings.classes} classes")


def check_there(path: Path) -> None:
    """Raises: `CheckpointError` where there is no file, or none that this user may read."""
    try:
        if not path.is_file():
            raise CheckpointError(f"there is no {path}; {how_to_get(path.parent)}")
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None


def how_to_get(run: Path) -> str:
    """What to do where a folder holds no run: the runs in it or beside it that may be meant, or how to make one."""
    inside = sorted(best.parent for best in run.glob("*/best.safetensors"))
    beside = {best.parent.name: best.parent for best in run.parent.glob("*/best.safetensors")}
    meant = inside[:3] or [beside[name] for name in close_names(run.name, beside)]
    if meant:
        return f"did you mean {' or '.join(shlex.quote(str(one)) for one in meant)}?"
    return f"agnet train --run {shlex.quote(str(run))} makes one"


def parse_header(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """What agnet wrote into a safetensors file's header; empty for a file of another program.

    Raises: `ValueError` for anything else than a JSON object of bearable size.
    """
    text = (metadata or {}).get("agnet", "{}")
    if len(text) > _LARGEST_HEADER:
        raise ValueError(f"its header has {len(text):,} characters")
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("its header is not a JSON object")
    return values


def check_format(path: Path, values: Mapping[str, Any]) -> None:
    """Raises: `CheckpointError` unless the header is a checkpoint's, of the version that this program reads."""
    if values.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not an agnet checkpoint")
    if values.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {str(values.get('format_version'))[:80]}, this program reads {FORMAT_VERSION}"
        )


def header_of(values: Mapping[str, Any]) -> CheckpointHeader:
    """The header of its values. Raises: `ValueError`, `LookupError`, … for what they cannot mean."""
    settings = settings_of(values["model"])
    classes, epoch, val_top1 = values["classes"], values["epoch"], values["val_top1"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("its classes are not a list of names")
    if not isinstance(values["proposals"], dict):
        raise ValueError("its settings of the proposals are not names and values")
    if type(epoch) is not int or not 0 <= epoch < 2**31:
        raise ValueError(f"its epoch is {str(epoch)[:80]}")
    if val_top1 is not None and not (type(val_top1) in (int, float) and math.isfinite(val_top1)):
        raise ValueError(f"its validation accuracy is {str(val_top1)[:80]}")
    return CheckpointHeader(
        settings, composed_all(classes), values["proposals"], str(values["boxes_fingerprint"]), epoch, val_top1
    )
