"""A run's weights on disk: safetensors, with everything that prediction needs in the file's own header.

Never pickle: a checkpoint may come from a stranger.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .. import __version__
from ..data.atomic import atomic_file
from ..data.errors import CheckpointError
from .models.backbone_entries import on_meta
from .models.backbones import Preprocessing
from .models.build import Model, build_model
from .models.settings import ModelSettings

FORMAT = "agnet checkpoint"
FORMAT_VERSION = 1

_LARGEST_SIDE = 8192  # of an image that a network sees; there is none that asks for more than some hundreds


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and what it was trained for."""

    model: Model  #: in evaluation mode
    settings: ModelSettings
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    proposals: dict[str, object]  #: stage 1's settings; new images get their regions the same way
    fingerprint: str  #: of the boxes file
    epoch: int
    val_top1: float | None

    @property
    def regions(self) -> int:
        """How many regions the network looks at: 0 for a plain model, or one whose regions were taken away."""
        return int(getattr(self.model, "regions", 0))


def check_finite(outputs: Iterable[Tensor | None]) -> None:
    """Raise `CheckpointError` unless all that a network gave are finite numbers; None is what it does not give."""
    if not all(output.isfinite().all() for output in outputs if output is not None):
        raise CheckpointError(
            "the network's own outputs are not finite numbers: its weights are damaged or its training diverged; "
            "train again"
        )


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> Path:
    """Write the checkpoint, replacing ``path`` only once it is complete."""
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "agnet": __version__,
        "model": asdict(checkpoint.settings),
        "classes": checkpoint.classes,
        "preprocessing": asdict(checkpoint.preprocessing),
        "proposals": checkpoint.proposals,
        "boxes_fingerprint": checkpoint.fingerprint,
        "epoch": checkpoint.epoch,
        "val_top1": checkpoint.val_top1,
    }
    _save(path, checkpoint.model.state_dict(), header)
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Rebuild the network a checkpoint describes. Raises: `CheckpointError` for anything else than a sound one."""
    tensors, header = _load(path)
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not an agnet checkpoint")
    if header.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {header.get('format_version')}, this program reads {FORMAT_VERSION}"
        )
    try:
        settings = _dataclass(ModelSettings, header["model"])
        preprocessing = _preprocessing(header["preprocessing"])
        # Settings may ask for more than there is memory, so shapes come first and numbers later.
        _check_tensors(on_meta(lambda: build_model(settings)).state_dict(), tensors)
        model = build_model(settings)
        model.load_state_dict(tensors)
        if len(header["classes"]) != settings.classes:
            raise ValueError(f"{len(header['classes'])} class names for {settings.classes} classes")
        return Checkpoint(
            model=model.eval(),
            settings=settings,
            classes=tuple(map(str, header["classes"])),
            preprocessing=preprocessing,
            proposals=dict(header["proposals"]),
            fingerprint=str(header["boxes_fingerprint"]),
            epoch=int(header["epoch"]),
            val_top1=header["val_top1"],
        )
    except ImportError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except KeyError as error:
        raise CheckpointError(f"{path} is damaged or foreign: its header has no {error}") from None
    except (AttributeError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged or foreign: {str(error).splitlines()[0]}") from None


def save_training_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, header: Mapping[str, object]
) -> None:
    """Everything a run needs to go on as if it had never stopped: weights, optimiser, and ``header`` (JSON)."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items() if value is not None}
    _save(path, tensors, header)


def load_training_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, object]:
    """Put a saved state back into ``model`` and ``optimizer``. Returns its header. Raises: `CheckpointError`."""
    tensors, header = _load(path)
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    states: dict[int, dict[str, Tensor]] = {}
    try:
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, number, key = name.split(".")
                states.setdefault(int(number), {})[key] = value
        _check_tensors(model.state_dict(), weights)
        model.load_state_dict(weights)
        # A fused optimiser pairs a parameter with its moments by place in memory, which in files is row by row.
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for place, state in states.items():
            for key, value in state.items():
                if value.shape == parameters[place].shape:
                    state[key] = torch.empty_like(parameters[place]).copy_(value)
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    except (LookupError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit this run: {str(error).splitlines()[0]}") from None
    return header


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """A plain state dict: safetensors, or a PyTorch file read with ``weights_only``. Half precision becomes single.

    Raises: `CheckpointError` when the file is absent, is something else, or would need unpickling of objects.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no weights file {path}")
    if path.suffix == ".safetensors":
        tensors: object = _load(path)[0]
    else:
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        except Exception:  # whatever broken or hostile bytes lead the unpickler to; PyTorch's advice would be unsafe
            raise CheckpointError(
                f"{path} cannot be read as plain weights: it is damaged, no PyTorch file, or holds more than tensors"
            ) from None
    if isinstance(tensors, dict) and isinstance(tensors.get("state_dict"), dict):
        tensors = tensors["state_dict"]  # how training scripts commonly wrap it
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(f"{path} is not a state dict (names to tensors); save model.state_dict() instead")
    return {str(name): value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def _save(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, object]) -> None:
    # Channels-last weights are not contiguous, which the format needs.
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with atomic_file(path) as unfinished:
            unfinished.unlink(missing_ok=True)
            unfinished.touch()
            usual = stat.S_IMODE(unfinished.stat().st_mode)  # as of any file here; save_file makes it the user's alone
            save_file(plain, unfinished, metadata={"agnet": json.dumps(header)})
            unfinished.chmod(usual)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write {path}: {error}") from None


def _load(path: Path) -> tuple[dict[str, Tensor], dict]:
    if not path.is_file():
        raise CheckpointError(f"there is no {path}; agnet train --run {path.parent} makes one")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("agnet", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a safetensors file, or damaged: {error}") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} has a header that is not a JSON object")
    return tensors, header


def _dataclass(kind: type[ModelSettings], values: Mapping[str, object]) -> ModelSettings:
    unknown = set(values) - {field.name for field in fields(kind)}
    if unknown:
        raise ValueError(f"unknown model settings {', '.join(sorted(unknown))}")
    for field in fields(kind):
        if field.name in values and type(values[field.name]).__name__ != field.type:
            raise ValueError(f"{field.name} is {values[field.name]!r}: it must be of type {field.type}")
    return kind(**values)  # type: ignore[arg-type]


def _preprocessing(values: Mapping[str, Any]) -> Preprocessing:
    """Raises: `ValueError` or `TypeError` for what no image can be normalised with."""
    size = values["size"]
    if type(size) is not int or not 1 <= size <= _LARGEST_SIDE:
        raise ValueError(f"the size of its images is {size!r}: it must be 1 to {_LARGEST_SIDE}")
    for name in ("mean", "std"):
        numbers = torch.tensor(values[name], dtype=torch.float32)
        if numbers.shape != (3,) or not numbers.isfinite().all() or (name == "std" and not (numbers > 0).all()):
            wanted = "three numbers" if name == "mean" else "three numbers above 0"
            raise ValueError(f"the {name} of its images is {str(values[name])[:80]}: it must be {wanted}")
    return Preprocessing(size, tuple(values["mean"]), tuple(values["std"]))


def _check_tensors(wanted: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` that names the first tensor which is missing, of another shape, or not asked for."""
    for name, tensor in wanted.items():
        if name not in got:
            if name.endswith("num_batches_tracked"):  # old files lack these counters, which are not used
                continue
            raise ValueError(f"{name} is missing")
        if got[name].shape != tensor.shape:
            raise ValueError(f"{name} has shape {tuple(got[name].shape)}, and its network {tuple(tensor.shape)}")
    for name in got:
        if name not in wanted:
            raise ValueError(f"{name} is not of its network")
