"""Export of a run's network to a file that runs without agnet: ONNX, or PyTorch's own exported program.

The file takes uint8 images, which the network normalises itself. Its metadata contain what users need to know (classes,
image size, how regions were proposed). It is compared with the original network before it appears under its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ... import __version__
from ...data.errors import CheckpointError, ConfigurationError
from ...data.files import atomic_file
from ...data.references import named_function
from ..machine.devices import Device
from ..models.contract import Output, Settings
from ..models.model import Model
from ..models.registry import record_of
from ..runs.checkpoints import Checkpoint, check_finite, load_checkpoint, preprocessing_record
from ..tasks import CLASSIFY
from .formats import FORMATS
from .target import check_export
from .writing import About, Inputs, Outputs, Runner, quiet, reason

FORMAT = "agnet network"
FORMAT_VERSION = 1
# Maximum differences between the outputs of a file and of the network; see `largest_differences`. Trained networks are
# within 1e-5. Networks close to chaos, as with random weights, amplify rounding: they may differ by a hundred times the
# effect of rounding their input once more, up to a twentieth.
BOUND, ROUNDINGS, MOST = 1e-4, 100.0, 0.05


@dataclass(frozen=True)
class Exported:
    """A written file, verified to compute what the network computes."""

    file: Path
    format: str
    largest_differences: dict[str, float]  #: of each output, as a fraction of its largest magnitude, or of 1 if greater

    def to_dict(self) -> dict[str, object]:
        return {
            "file": str(self.file),
            "format": self.format,
            "bytes": self.file.stat().st_size,
            "largest_differences": self.largest_differences,
        }


class Network(nn.Module):
    """A model with named outputs, including probabilities. Outputs that the model does not return are left out.

    Args:
        model: Model in evaluation mode.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, boxes: Tensor | None = None) -> Outputs:
        """Classify images.

        Args:
            images: RGB images ``(B, 3, H, W)``, uint8.
            boxes: Boxes ``(B, R, 4)``, xyxy in fractions of the image; None for a model without regions.

        Returns: the fields of `Output` that are tensors, without ``compared``, which is for training, and
            ``probabilities`` ``(B, classes)``.
        """
        return _named(_call(self.model, images, boxes))


def _check_inputs(settings: Settings, model: Model) -> None:
    """Raise `ConfigurationError` for a model of inputs other than images and boxes, such as clips."""
    if others := [name for name in model.inputs if name not in ("images", "regions")]:
        raise ConfigurationError(
            f"model {settings.model} takes {' and '.join(others)}: only models of single images can be exported"
        )


def _call(model: Model, images: Tensor, boxes: Tensor | None) -> Output:
    given = {"images": images, "regions": boxes}
    output: Output = model(*[given[name] for name in model.inputs])
    return output


def _named(output: Output) -> Outputs:
    logits = output.logits
    valid = logits.new_ones(logits.shape[:2], dtype=torch.bool)  # of logits per frame, every frame counts
    probabilities = CLASSIFY.scores(output, valid).softmax(dim=1)
    named = {"logits": logits, "probabilities": probabilities, **output._replace(compared=None)._asdict()}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def export_run(run: str | Path, format: str = "onnx", output: Path | None = None) -> Exported:
    """Export a run's best checkpoint, and verify that the file computes the same.

    Args:
        run: Folder of the run, or its checkpoint.
        format: One of `FORMATS`.
        output: File to write; an existing file is replaced. None: ``model`` with the format's suffix, beside the
            checkpoint.

    Raises:
        ConfigurationError: If the file cannot be written, packages are missing, or the model takes other inputs than
            images and boxes.
        CheckpointError: If the run has no valid checkpoint, or if the network returns values that are not finite or
            cannot be expressed exactly in this format.
    """
    chosen = FORMATS[format]
    path, output = check_export(run, format, output)
    checkpoint = load_checkpoint(path)
    _check_inputs(checkpoint.settings, checkpoint.model)
    network = Network(checkpoint.model).eval().requires_grad_(False)
    trials = list(trial_inputs(checkpoint.size_hw, checkpoint.regions))
    run_network, run_rounded = eager(checkpoint), eager(checkpoint, noise=torch.finfo(torch.float32).eps)
    with torch.no_grad():
        wanted = [run_network(inputs) for inputs in trials]
        check_finite(output for outputs in wanted for output in outputs.values())
        own = largest_differences([run_rounded(inputs) for inputs in trials], wanted)
        program = _trace(network, trials[-1], checkpoint.settings.backbones)
        with atomic_file(output) as unfinished:
            named_function(chosen.write, __package__)(program, _about(checkpoint, trials[-1], wanted[-1]), unfinished)
            differences = largest_differences(_run_file(format, unfinished, trials), wanted)
            _check_differences(differences, own, format, checkpoint.settings.backbones)
    return Exported(output, format, differences)


def trial_inputs(size_hw: tuple[int, int], regions: int) -> Iterator[Inputs]:
    """Yield noise in batches of 1, 3 and 3 images, the same on every call.

    Boxes are random, except in the second batch: empty, the whole image, and larger than it.
    """
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(4, regions, 2, 2, generator=generator).sort(dim=2).values  # low before high
    extremes = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0, 0, 1, 1], [-0.5, -0.5, 1.5, 1.5]])
    drawn = corners.flatten(2)  # (4, R, 4)
    for boxes in (drawn[:1], extremes[:, None].expand(3, regions, 4).contiguous(), drawn[1:]):
        images = torch.randint(0, 256, (len(boxes), 3, *size_hw), generator=generator, dtype=torch.uint8)
        yield {"images": images, "boxes": boxes} if regions else {"images": images}


def eager(checkpoint: Checkpoint, noise: float = 0.0) -> Runner:
    """Runner of the checkpoint's own network, as `predict` runs it, with random relative ``noise`` on its images."""
    device, generator = Device(torch.device("cpu")), torch.Generator().manual_seed(0)

    def run(inputs: Inputs) -> Outputs:
        images = device.pixels(inputs["images"])
        if noise:
            images = images.float() * (1 + noise * torch.randn(images.shape, generator=generator))
        return _named(_call(checkpoint.model, images, inputs.get("boxes")))

    return run


def _run_file(format: str, file: Path, trials: list[Inputs]) -> list[Outputs]:
    try:
        run = named_function(FORMATS[format].load, __package__)(file)
        return [run(inputs) for inputs in trials]
    except Exception as error:  # onnxruntime's errors have no narrower base class
        raise CheckpointError(f"the exported network does not run, so no file was written: {reason(error)}") from error


def largest_differences(got: list[Outputs], wanted: list[Outputs]) -> dict[str, float]:
    """The largest difference of each output from the wanted one, over all batches.

    It is a fraction of the wanted output's largest magnitude in the batch, or of 1 if that is greater, and infinite for
    an output that is missing, has another shape, or is not finite on either side.
    """
    largest: dict[str, float] = {}
    for one, other in zip(got, wanted, strict=True):
        for name in other | one:
            difference = _difference(one.get(name), other.get(name))
            largest[name] = max(largest.get(name, 0.0), difference)
    return largest


def _difference(got: Tensor | None, wanted: Tensor | None) -> float:
    if got is None or wanted is None or got.shape != wanted.shape or not (got.isfinite() & wanted.isfinite()).all():
        return float("inf")
    return float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1))


def _check_differences(differences: dict[str, float], own: dict[str, float], format: str, backbone: str) -> None:
    for name, difference in differences.items():
        bound = min(max(BOUND, ROUNDINGS * own.get(name, 0.0)), MOST)
        if difference > bound:
            others = " or ".join(f"--format {other}" for other in FORMATS if other != format)
            raise CheckpointError(
                f"the exported network is not the trained one: its {name} are off by {difference:.1e} (rounding would "
                f"be {bound:.0e} at most), so no file was written. These versions of the libraries export {backbone} "
                f"wrongly: try {others}, or other versions"
            )


def _trace(network: Network, inputs: Inputs, backbone: str) -> torch.export.ExportedProgram:
    """Export the network as a graph for any batch size, without the locations of its source code."""
    batch = torch.export.Dim("batch", min=1)
    try:
        # Strict mode takes three seconds longer, but before it raises only prints notes, not the whole graph.
        with quiet("torch.export._trace"):
            program = torch.export.export(
                network, (), inputs, dynamic_shapes={name: {0: batch} for name in inputs}, strict=True
            )
    except (RuntimeError, ValueError) as error:  # torch raises no others for what it cannot export
        raise CheckpointError(f"{backbone} cannot be exported: {reason(error)}") from error
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    return program


def _about(checkpoint: Checkpoint, inputs: Inputs, outputs: Outputs) -> About:
    """Metadata for users of the file, as JSON values."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "agnet": __version__,
        "classes": checkpoint.classes,
        "inputs": {name: _INPUTS[name].format(_shape(value)) for name, value in inputs.items()},
        "outputs": {name: _OUTPUTS.get(name, "{}").format(_shape(value)) for name, value in outputs.items()},
        **preprocessing_record(checkpoint.model, checkpoint.size_hw),
        **({"views": checkpoint.views.record} if checkpoint.views else {}),
        "regions": inputs["boxes"].shape[1] if "boxes" in inputs else 0,
        "proposals": checkpoint.proposals,
        "model": record_of(checkpoint.settings),
        "boxes_fingerprint": checkpoint.fingerprint,
        "epoch": checkpoint.epoch,
        "val_top1": checkpoint.val_top1,
    }


_INPUTS = {
    "images": "uint8 {}: upright RGB, squashed to that size; normalised inside",
    "boxes": "float32 {}: x0, y0, x1, y1 in fractions of the image, in the proposals' order",
}
_OUTPUTS = {
    "logits": "float32 {}",
    "probabilities": "float32 {}: softmax of the logits",
    "region_weights": "float32 {}: one weight per box, the whole image last; the sum is 1",
    "attention_map": "float32 {}: attention per position; the sum is 1",
    "embedding": "float32 {}: input of the classifier",
}


def _shape(value: Tensor) -> str:
    return f"(batch, {', '.join(map(str, value.shape[1:]))})"
