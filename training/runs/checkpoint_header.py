"""Read and check the header of a checkpoint without loading PyTorch, which takes seconds."""

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
from ...data.sampling import SAMPLINGS, Sampling
from ...data.spelling import close_names
from ...data.text import composed_all, first_line
from ..models.contract import Settings, Views
from ..models.registry import needs_of, settings_of

FORMAT = "agnet checkpoint"
FORMAT_VERSION = 1

_MOST_FRAMES = 2**16
_LARGEST_HEADER = 2**26  # characters; 100,000 classes with long names take a tenth


@dataclass(frozen=True)
class CheckpointHeader:
    """Metadata of a trained network; `Checkpoint` adds the network itself."""

    settings: Settings
    classes: tuple[str, ...]
    proposals: dict[str, object]  #: settings of stage 1, used to propose regions on new images
    fingerprint: str  #: fingerprint of the boxes file
    epoch: int
    val_top1: float | None
    sampling: Sampling | None = None  #: choice of the frames of a clip; None for a network trained on images
    views: Views | None = None  #: views of a photograph that the network sees; None for the photograph alone

    @property
    def regions(self) -> int:
        """Number of regions per image that the network uses; 0 for a model without regions."""
        return needs_of(self.settings).regions


def read_header(path: Path) -> CheckpointHeader:
    """Read the header of a checkpoint without reading its weights.

    Raises: `CheckpointError` for a file that is not a checkpoint or whose header is invalid.
    """
    values = read_values(path)
    check_format(path, values)
    try:
        header = header_of(values)
        check_classes(header)
    except KeyError as error:
        raise CheckpointError(f"{path} is damaged or foreign: its header has no {error}") from None
    except (AttributeError, TypeError, ValueError, OverflowError, LookupError) as error:
        raise CheckpointError(f"{path} is damaged or foreign: {first_line(error)}") from None
    return header


def read_values(path: Path) -> dict[str, Any]:
    """Read the values in the header of a checkpoint or a saved state, without its tensors.

    Raises: `CheckpointError` for a file that is missing, or not one of safetensors.
    """
    check_there(path)
    try:
        with safe_open(path, framework="np") as file:
            return parse_header(file.metadata())
    except (SafetensorError, OSError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is not a safetensors file, or damaged: {first_line(error)}") from None


def is_checkpoint(path: Path) -> bool:
    """Whether the header of a file declares an agnet checkpoint, valid or not."""
    try:
        with safe_open(path, framework="np") as file:
            return parse_header(file.metadata()).get("format") == FORMAT
    except (SafetensorError, OSError, ValueError, RecursionError):
        return False


def check_classes(header: CheckpointHeader) -> None:
    """Raise `ValueError` unless the number of class names equals the number of classes of the network."""
    if len(header.classes) != header.settings.classes:
        raise ValueError(f"{len(header.classes)} class names for {header.settings.classes} classes")


def check_there(path: Path) -> None:
    """Raise `CheckpointError` if the file does not exist or cannot be read."""
    try:
        if not path.is_file():
            raise CheckpointError(f"there is no {path}; {how_to_get(path.parent)}")
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None


def how_to_get(run: Path) -> str:
    """Remedy for a folder that holds no run: runs inside it, similarly named ones next to it, or how to create one."""
    inside = sorted(best.parent for best in run.glob("*/best.safetensors"))
    beside = {best.parent.name: best.parent for best in run.parent.glob("*/best.safetensors")}
    meant = inside[:3] or [beside[name] for name in close_names(run.name, beside)]
    if meant:
        return f"did you mean {' or '.join(shlex.quote(str(one)) for one in meant)}?"
    return f"agnet train --run {shlex.quote(str(run))} creates one"


def parse_header(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """Parse the values that agnet wrote into the header of a safetensors file; empty for files of other programs.

    Raises: `ValueError` for anything but a JSON object of reasonable size.
    """
    text = (metadata or {}).get("agnet", "{}")
    if len(text) > _LARGEST_HEADER:
        raise ValueError(f"its header has {len(text):,} characters")
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("its header is not a JSON object")
    return values


def check_format(path: Path, values: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` unless the header is that of a checkpoint in the supported format version."""
    if values.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not an agnet checkpoint")
    if values.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {str(values.get('format_version'))[:80]}, this program reads {FORMAT_VERSION}"
        )


def header_of(values: Mapping[str, Any]) -> CheckpointHeader:
    """Build the header from its parsed values. Raises: `ValueError`, `LookupError`, … for invalid values."""
    settings = settings_of(values["model"])
    classes, epoch, val_top1 = values["classes"], values["epoch"], values["val_top1"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("its classes are not a list of names")
    if not isinstance(values["proposals"], dict):
        raise ValueError("its proposal settings are not a JSON object")
    if type(epoch) is not int or not 0 <= epoch < 2**31:
        raise ValueError(f"its epoch is {str(epoch)[:80]}")
    if val_top1 is not None and not (type(val_top1) in (int, float) and math.isfinite(val_top1)):
        raise ValueError(f"its validation accuracy is {str(val_top1)[:80]}")
    return CheckpointHeader(
        settings,
        composed_all(classes),
        values["proposals"],
        str(values["boxes_fingerprint"]),
        epoch,
        val_top1,
        _sampling(values.get("sampling")),
        Views.of_record(values.get("views")),
    )


def _sampling(record: Any) -> Sampling | None:
    """Build the sampling from its record. Raises: `ValueError`, `TypeError` for an invalid one."""
    if record is None:
        return None
    sampling = Sampling(**record)
    frames, mode, rate = sampling.frames, sampling.mode, sampling.rate
    if type(frames) is not int or not 1 <= frames <= _MOST_FRAMES or mode not in SAMPLINGS:
        raise ValueError(f"its sampling is {str(record)[:80]}")
    if type(rate) not in (int, float) or not 0 < rate < math.inf:
        raise ValueError(f"its sampling is {str(record)[:80]}")
    return sampling
