"""Save and load checkpoints and training states as safetensors files.

The header of a checkpoint holds everything that prediction needs. Pickle is never used, since a checkpoint may come
from an untrusted source.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ... import __version__
from ...data.errors import CheckpointError
from ...data.files import atomic_file
from ...data.text import first_line
from ..models.backbones.entries import on_meta
from ..models.build import build_model
from ..models.model import Model
from ..models.registry import record_of
from .checkpoint_header import (
    FORMAT,
    FORMAT_VERSION,
    CheckpointHeader,
    check_classes,
    check_format,
    check_there,
    header_of,
    parse_header,
)
from .folder import checkpoint_of

_HASH = "blake2b"  #: header entry: hash of everything else in the file
_LARGEST_SIDE = 8192  # pixels, of a network's input; published networks use a few hundred

_MeanAndStd = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True, kw_only=True)
class Checkpoint(CheckpointHeader):
    """A trained network with its metadata. The network normalises its input images itself."""

    model: Model  #: in evaluation mode

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the network's input images, in pixels."""
        return self.model.size_hw


def check_finite(outputs: Iterable[object]) -> None:
    """Raise `CheckpointError` unless all tensors among a network's outputs are finite; other outputs are ignored."""
    if not all(output.isfinite().all() for output in outputs if isinstance(output, Tensor)):
        raise CheckpointError(
            "the network's own outputs are not finite numbers: its weights are damaged or its training diverged; "
            "train again"
        )


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> Path:
    """Write the checkpoint; ``path`` is replaced only once the new file is complete. Returns ``path``."""
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "agnet": __version__,
        "model": record_of(checkpoint.settings),
        "classes": checkpoint.classes,
        **preprocessing_record(checkpoint.model),
        "proposals": checkpoint.proposals,
        "boxes_fingerprint": checkpoint.fingerprint,
        "epoch": checkpoint.epoch,
        "val_top1": checkpoint.val_top1,
        **({"sampling": asdict(checkpoint.sampling)} if checkpoint.sampling else {}),
    }
    _save(path, checkpoint.model.state_dict(), header)
    return path


def load_checkpoint(run: str | Path) -> Checkpoint:
    """Load a run's checkpoint and rebuild its network.

    Args:
        run: Folder of the run, or its checkpoint file.

    Raises: `CheckpointError` for anything but a valid checkpoint.
    """
    path = checkpoint_of(run)
    tensors, values = _load(path)
    check_format(path, values)
    try:
        header = header_of(values)
        size_hw, normalisations = _preprocessing(values)
        # Shapes are checked on the meta device first: damaged settings may describe a network larger than memory.
        _check_tensors(on_meta(lambda: build_model(header.settings)).state_dict(), tensors)
        check_classes(header)
        model = build_model(header.settings)
        model.load_state_dict(tensors)
        for backbone, (mean, std) in zip(model.backbones, normalisations, strict=True):
            backbone.preprocessing = replace(backbone.preprocessing, mean=mean, std=std)
        model.size_hw = size_hw
        model.header = header
        return Checkpoint(model=model.eval(), **{one.name: getattr(header, one.name) for one in fields(header)})
    except ImportError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except KeyError as error:
        raise CheckpointError(f"{path} is damaged or foreign: its header has no {error}") from None
    except (AttributeError, TypeError, ValueError, OverflowError, RuntimeError, MemoryError, LookupError) as error:
        raise CheckpointError(f"{path} is damaged or foreign: {first_line(error)}") from None


def save_training_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    header: Mapping[str, object],
    average: nn.Module | None = None,
    keep: Path | None = None,
) -> None:
    """Save everything a run needs to resume exactly: weights, optimiser state, and ``header`` (JSON).

    Args:
        average: Running mean of the weights, if the run keeps one.
        keep: Path that the previous state at ``path`` is moved to once the new one is complete.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items() if value is not None}
    _save(path, tensors, header, keep)


def load_training_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None = None
) -> dict[str, Any]:
    """Load a saved state into ``model``, ``optimizer`` and ``average``. Returns its header.

    Raises: `CheckpointError` for a damaged file or a state that does not fit this run.
    """
    tensors, header = _load(path)
    try:
        for part, module in (("model.", model), ("average.", average)):
            weights = {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}
            _check_tensors(module.state_dict() if module is not None else {}, weights)
            if module is not None:
                module.load_state_dict(weights)
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, number, key = name.split(".")
                states.setdefault(int(number), {})[key] = value
        # A fused optimiser needs moments in the memory layout of their parameters; files store them row by row.
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for place, state in states.items():
            _check_optimizer_state(optimizer, place, state, parameters)
            for key, value in state.items():
                if value.shape == parameters[place].shape:
                    state[key] = torch.empty_like(parameters[place]).copy_(value)
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    except (LookupError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit this run: {first_line(error)}") from None
    return header


def _check_optimizer_state(
    optimizer: torch.optim.Optimizer, place: int, state: Mapping[str, Tensor], parameters: Sequence[Tensor]
) -> None:
    """Raise `ValueError` unless the state of parameter number ``place`` has the entries that its optimiser keeps."""
    if not 0 <= place < len(parameters):
        raise ValueError(f"it has optimiser state for parameter {place}, but there are {len(parameters)} parameters")
    moments = {"exp_avg", "exp_avg_sq"} if isinstance(optimizer, torch.optim.AdamW) else {"momentum_buffer"}
    counter = {"step"} if isinstance(optimizer, torch.optim.AdamW) else set()
    if state.keys() != moments | counter:
        raise ValueError(
            f"its state of parameter {place} is {', '.join(sorted(state))[:80]}, which is not this optimiser's"
        )
    for key, value in state.items():
        shape = parameters[place].shape if key in moments else torch.Size([])
        if value.shape != shape or not value.is_floating_point():
            raise ValueError(
                f"{key} of parameter {place} has shape {tuple(value.shape)}, expected floats of shape {tuple(shape)}"
            )


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Load a plain state dict from a safetensors file, or from a PyTorch file with ``weights_only=True``.

    Floating-point tensors are returned as float32.

    Raises: `CheckpointError` when the file is missing, is not a state dict, or would require unpickling objects.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no weights file {path}")
    if path.suffix == ".safetensors":
        tensors: object = _load(path)[0]
    else:
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        except Exception:  # damaged or hostile bytes can raise anything; PyTorch's advice would be unsafe
            raise CheckpointError(
                f"{path} cannot be read as plain weights: it is damaged, not a PyTorch file, or holds more than tensors"
            ) from None
    if isinstance(tensors, dict) and isinstance(tensors.get("state_dict"), dict):
        tensors = tensors["state_dict"]  # common in the checkpoints of training scripts
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(f"{path} is not a state dict (names to tensors); save model.state_dict() instead")
    return {str(name): value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def _save(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, object], keep: Path | None = None) -> None:
    # safetensors requires contiguous tensors; channels-last weights are not.
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with atomic_file(path) as unfinished:
            unfinished.unlink(missing_ok=True)
            unfinished.touch()
            usual = stat.S_IMODE(unfinished.stat().st_mode)  # from the umask; save_file's mode is for the owner only
            # A single entry: the order of several varies between processes, and files must be equal byte for byte.
            text = json.dumps({_HASH: _content_hash(plain, header), **header})
            save_file(plain, unfinished, metadata={"agnet": text})
            unfinished.chmod(usual)
            if keep is not None and path.exists():
                path.replace(keep)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write {path}: {first_line(error)}; the previous file is unchanged") from None


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    check_there(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = parse_header(file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        found = header.pop(_HASH, None)  # absent from files of other programs
        sound = found is None or found == _content_hash(tensors, header)
    except (SafetensorError, OSError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is not a safetensors file, or damaged: {first_line(error)}") from None
    if not sound:
        raise CheckpointError(f"{path} is damaged: its content does not match its checksum")
    return tensors, header


def _content_hash(tensors: Mapping[str, Tensor], header: Mapping[str, object]) -> str:
    """Hash of the header and of every tensor's name, dtype, shape and bytes: any flipped bit is detected."""
    found = hashlib.blake2b(json.dumps(header).encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        found.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def preprocessing_record(model: Model) -> dict[str, object]:
    """Preprocessing of a model's input images, as stored in the header of a checkpoint.

    ``preprocessing`` holds ``size`` (the side of a square, or [height, width], in pixels) and the ``mean`` and ``std``
    of the first backbone. Models with several backbones add ``streams``: ``mean`` and ``std`` of each.
    """
    height, width = model.size_hw
    first, *others = streams = [
        {"mean": backbone.preprocessing.mean, "std": backbone.preprocessing.std} for backbone in model.backbones
    ]
    size = height if height == width else (height, width)
    return {"preprocessing": {"size": size, **first}, **({"streams": streams} if others else {})}


def _preprocessing(values: Mapping[str, Any]) -> tuple[tuple[int, int], list[_MeanAndStd]]:
    """Height and width of the images, and each backbone's mean and std; the inverse of `preprocessing_record`.

    Raises: `ValueError` or `TypeError` for invalid values.
    """
    size = values["preprocessing"]["size"]
    sides = size if isinstance(size, list) and len(size) == 2 else [size, size]
    if not all(type(side) is int and 1 <= side <= _LARGEST_SIDE for side in sides):
        raise ValueError(f"the size of its images is {str(size)[:80]}: it must be 1 to {_LARGEST_SIDE}")
    return (sides[0], sides[1]), [_mean_and_std(one) for one in values.get("streams", [values["preprocessing"]])]


def _mean_and_std(values: Mapping[str, Any]) -> _MeanAndStd:
    for name in ("mean", "std"):
        numbers = torch.tensor(values[name], dtype=torch.float32)
        if numbers.shape != (3,) or not numbers.isfinite().all() or (name == "std" and not (numbers > 0).all()):
            wanted = "three numbers" if name == "mean" else "three numbers above 0"
            raise ValueError(f"the {name} of its images is {str(values[name])[:80]}: it must be {wanted}")
    return tuple(values["mean"]), tuple(values["std"])


def _check_tensors(wanted: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` that names the first tensor that is missing, unexpected, or of another shape or type."""
    for name, tensor in wanted.items():
        if name not in got:
            raise ValueError(f"{name} is missing")
        if got[name].shape != tensor.shape:
            raise ValueError(f"{name} has shape {tuple(got[name].shape)}, its network needs {tuple(tensor.shape)}")
        if (got[name].dtype.is_floating_point, got[name].is_complex()) != (tensor.dtype.is_floating_point, False):
            raise ValueError(f"{name} has type {got[name].dtype}, its network needs {tensor.dtype}")
    for name in got:
        if name not in wanted:
            raise ValueError(f"{name} is not a tensor of its network")
