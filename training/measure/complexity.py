"""Parameters, GFLOPs, inference time and memory of networks, compared with Table VI of the paper."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from ...data.errors import CheckpointError
from ...data.text import first_line
from ..loop.preparation import build_network
from ..machine.devices import Device
from ..machine.torch_internals import HeldTensors
from ..models.contract import Settings, Views
from ..models.model import Model
from ..models.registry import needs_of, settings_of
from ..models.settings import (
    AGNetSettings,
    ALSTMSettings,
    BCNNSettings,
    ConvALSTMSettings,
    PlainSettings,
    SRBNSettings,
)
from ..recipes import Recipe
from ..runs.folder import read_config
from ..samples.loader import Batch

# The columns of Table VI. "-Attn" is the backbone with regions, their SE-Residuals and a fusion without parameters.
VARIANTS: dict[str, Callable[[AGNetSettings], Settings]] = {
    "baseline": lambda settings: PlainSettings(settings.classes, settings.backbone),
    "-Attn": lambda settings: replace(settings, self_attention=False, inter_attention=False, fusion="mean"),
    "+Attn": lambda settings: settings,
}

# The other models, with their default backbones: those for clips after VGG-16, and of two streams the baseline first.
OTHERS: dict[str, Callable[[int], Settings]] = {
    "alstm": ALSTMSettings,
    "conv-alstm": ConvALSTMSettings,
    "bcnn": BCNNSettings,
    "srbn": SRBNSettings,
}

PAPER_CLASSES = 40
# Table VI, for `PAPER_CLASSES`: millions of trainable parameters, GFLOPs, ms per image on a Titan V. Not reproduced.
PAPER: dict[str, dict[str, tuple[float, float, float]]] = {
    "resnet50": {"baseline": (23.62, 7.77, 2.33), "-Attn": (43.02, 9.36, 4.45), "+Attn": (54.79, 10.42, 5.20)},
    "densenet121": {"baseline": (6.99, 5.68, 2.58), "-Attn": (11.84, 5.71, 4.68), "+Attn": (16.42, 6.10, 4.81)},
    "inception-v3": {"baseline": (21.85, 5.72, 2.43), "-Attn": (41.25, 5.81, 4.83), "+Attn": (53.02, 6.88, 5.76)},
    "nasnet-mobile": {"baseline": (4.28, 1.15, 2.89), "-Attn": (9.43, 1.17, 4.63), "+Attn": (14.19, 1.58, 5.74)},
}

_WARM_UP, _ROUNDS = 2, 7


@dataclass(frozen=True)
class Cost:
    """Cost of a network for one image, or for a clip of one frame."""

    backbone: str
    variant: str
    parameters: int  #: number of trainable parameters
    gflops: float  #: matrix products and convolutions; a multiply-add counts as two
    milliseconds: float | None = None  #: per image of a batch; None if not measured
    memory: int | None = None  #: bytes at once: see `Inference`
    paper_million_parameters: float | None = None  #: Table VI for this network, as below
    paper_gflops: float | None = None
    paper_milliseconds_titan_v: float | None = None

    def to_dict(self) -> dict[str, object]:
        """All fields as JSON values, with ``images_a_second`` added."""
        throughput = 1000 / self.milliseconds if self.milliseconds else None
        return asdict(self) | {"images_a_second": throughput}


class Inference(NamedTuple):
    """What inference on a batch takes."""

    milliseconds: float  #: median, per image
    memory: int  #: bytes of all tensors that exist at once: weights, the batch, and what is computed


def network_cost(settings: AGNetSettings, variant: str) -> Cost:
    """Parameters and GFLOPs of a variant (a key of `VARIANTS`), computed on the meta device without allocating weights.

    Raises: `ConfigurationError` for invalid settings.
    """
    cost = _cost(VARIANTS[variant](settings), variant)
    if settings == AGNetSettings(classes=PAPER_CLASSES, backbone=settings.backbone) and settings.backbone in PAPER:
        million, gflops, milliseconds = PAPER[settings.backbone][variant]
        cost = replace(
            cost, paper_million_parameters=million, paper_gflops=gflops, paper_milliseconds_titan_v=milliseconds
        )
    return cost


def other_costs(classes: int) -> list[Cost]:
    """Parameters and GFLOPs of `OTHERS`, as in `network_cost`."""
    return [_cost(settings(classes), name) for name, settings in OTHERS.items()]


def run_cost(run: Path) -> Cost:
    """Parameters and GFLOPs of the network of a run, for one image as it was trained: its size, or all views.

    Raises: `CheckpointError` or `ConfigurationError` when the run's configuration cannot be read.
    """
    config = read_config(run)
    try:
        recipe = Recipe(**config["recipe"])  # type: ignore[arg-type]
        return _cost(settings_of(config["model"]), "", recipe.size_hw, recipe.views)
    except (TypeError, LookupError, ValueError) as error:
        raise CheckpointError(f"{run}: its network cannot be built: {first_line(error)}") from None


def _cost(settings: Settings, variant: str, size_hw: tuple[int, int] | None = None, views: Views | None = None) -> Cost:
    with torch.device("meta"):
        model = build_network(settings).eval()
        if size_hw is not None:
            model.size_hw = size_hw
        model.views = views
        regions = needs_of(settings).regions
        image = Batch.of_images(torch.empty(1, 3, *model.input_hw), torch.empty(1, regions, 4))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(*image.inputs(model.inputs))
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Cost(settings.backbones, variant, parameters, counter.get_total_flops() / 1e9)


def network_inference(settings: AGNetSettings, batch_size: int, device: Device) -> dict[str, Inference]:
    """Measure inference of each of `VARIANTS`; variants take turns on the same random batch."""
    networks = {variant: change(settings) for variant, change in VARIANTS.items()}
    return _inference(networks, settings.regions, batch_size, device)


def other_inference(classes: int, batch_size: int, device: Device) -> dict[str, Inference]:
    """Measure inference of each of `OTHERS`, as in `network_inference`."""
    return _inference({name: kind(classes) for name, kind in OTHERS.items()}, 0, batch_size, device)


def _inference(networks: Mapping[str, Settings], regions: int, batch_size: int, device: Device) -> dict[str, Inference]:
    torch.manual_seed(0)
    models = {}
    for variant, settings in networks.items():
        model = build_network(settings).eval()
        models[variant] = device.take(model, torch.channels_last)
    size_hw = next(iter(models.values())).size_hw
    pixels = torch.randint(0, 256, (batch_size, 3, *size_hw), dtype=torch.uint8)
    corners = torch.rand(batch_size, regions, 2, 2).sort(dim=2).values
    batch = Batch.of_images(pixels, corners.flatten(2)).on(device)
    seconds: dict[str, list[float]] = {variant: [] for variant in models}
    for turn in range(_WARM_UP + _ROUNDS):
        for variant, model in models.items():
            inputs = batch.inputs(model.inputs)
            device.wait()
            start = time.perf_counter()
            with torch.no_grad(), device.autocast():
                model(*inputs)
            device.wait()
            if turn >= _WARM_UP:
                seconds[variant].append(time.perf_counter() - start)
    return {
        variant: Inference(median(seconds[variant]) / batch_size * 1e3, _memory(model, batch, device))
        for variant, model in models.items()
    }


def _memory(model: Model, batch: Batch, device: Device) -> int:
    inputs = [one for one in batch.inputs(model.inputs) if one is not None]
    given = chain(model.parameters(), model.buffers(), inputs)
    with torch.no_grad(), device.autocast(), HeldTensors(given) as held:
        model(*inputs)
    return held.peak


def costs_text(costs: list[Cost]) -> str:
    """Format costs as a text table, with the paper's claims in brackets."""
    timed = any(cost.milliseconds is not None for cost in costs)
    width = 2 + max(len(cost.backbone) for cost in costs)
    head = f"{'':{width + 10}}{'M parameters':>20}{'GFLOPs':>18}"
    lines = [head + (f"{'ms an image':>18}{'to baseline':>16}{'images/s':>10}{'MB':>8}" if timed else "")]
    alone = costs[0]
    for cost in costs:
        alone = alone if cost.backbone == alone.backbone else cost
        line = f"{cost.backbone if cost is alone else '':{width}}{cost.variant:10}"
        line += f"{cost.parameters / 1e6:11.2f}{_claim(cost.paper_million_parameters)}"
        line += f"{cost.gflops:9.2f}{_claim(cost.paper_gflops)}"
        if cost.milliseconds is not None and alone.milliseconds is not None:
            theirs, their_base = cost.paper_milliseconds_titan_v, alone.paper_milliseconds_titan_v
            line += f"{cost.milliseconds:9.2f}{_claim(theirs)}{cost.milliseconds / alone.milliseconds:7.2f}"
            line += _claim(theirs / their_base if theirs and their_base else None)
            line += f"{1000 / cost.milliseconds:10.1f}{(cost.memory or 0) / 1e6:8.0f}"
        lines.append(line.rstrip())
    if any(cost.paper_gflops is not None for cost in costs):
        lines.append("in brackets: the paper's Table VI" + (", on a Titan V" if timed else ""))
    lines.append("GFLOPs: convolutions and matrix products, two for a multiplication and an addition")
    if timed:
        lines.append("MB: tensors that exist at once in inference on the batch, weights among them; no workspaces")
    return "\n".join(lines)


def _claim(number: float | None) -> str:
    return f"{'' if number is None else f'({number:.2f})':>9}"
