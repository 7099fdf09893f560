"""What networks cost: parameters, arithmetic and time, beside the paper's Table VI."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from .engine import Device
from .fit import build
from .models.settings import ModelSettings

# The columns of Table VI. "-Attn" is the backbone with regions, their SE-Residuals and a merging without parameters.
VARIANTS: dict[str, dict[str, object]] = {
    "baseline": {"model": "plain"},
    "-Attn": {"self_attention": False, "inter_attention": False, "fusion": "mean"},
    "+Attn": {},
}

# Table VI for 40 classes: millions of trainable parameters, GFLOPs, milliseconds an image on a Titan V. Claims.
PAPER: dict[str, dict[str, tuple[float, float, float]]] = {
    "resnet50": {"baseline": (23.62, 7.77, 2.33), "-Attn": (43.02, 9.36, 4.45), "+Attn": (54.79, 10.42, 5.20)},
    "densenet121": {"baseline": (6.99, 5.68, 2.58), "-Attn": (11.84, 5.71, 4.68), "+Attn": (16.42, 6.10, 4.81)},
    "inception-v3": {"baseline": (21.85, 5.72, 2.43), "-Attn": (41.25, 5.81, 4.83), "+Attn": (53.02, 6.88, 5.76)},
    "nasnet-mobile": {"baseline": (4.28, 1.15, 2.89), "-Attn": (9.43, 1.17, 4.63), "+Attn": (14.19, 1.58, 5.74)},
}

_WARM_UP, _ROUNDS = 2, 7


@dataclass(frozen=True)
class Cost:
    """A network's cost for one image."""

    backbone: str
    variant: str
    parameters: int  #: trainable ones
    gflops: float  #: of matrix products and convolutions, a multiplication and an addition counting two
    milliseconds: float | None = None  #: an image of a batch, where it was measured

    def to_dict(self) -> dict[str, object]:
        """Numbers and texts, with the paper's claims where there are some."""
        claim = PAPER.get(self.backbone, {}).get(self.variant)
        names = ("paper_million_parameters", "paper_gflops", "paper_milliseconds_titan_v")
        return asdict(self) | dict(zip(names, claim or (None, None, None), strict=True))


def network_cost(settings: ModelSettings, variant: str) -> Cost:
    """Parameters and arithmetic of a variant (a key of `VARIANTS`), without ever building it in memory.

    Raises: `ConfigurationError` for settings no network can be built from.
    """
    with torch.device("meta"):
        model = build(replace(settings, **VARIANTS[variant])).eval()  # type: ignore[arg-type]
        side = model.backbone.preprocessing.size
        images, regions = torch.empty(1, 3, side, side), torch.empty(1, settings.regions, 4)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(images, regions)
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Cost(settings.backbone, variant, parameters, counter.get_total_flops() / 1e9)


def network_milliseconds(settings: ModelSettings, batch_size: int, device: Device) -> dict[str, float]:
    """Median milliseconds an image of inference for each of `VARIANTS`, which take turns on the same random batch."""
    torch.manual_seed(0)
    models = {}
    for variant, changes in VARIANTS.items():
        model = build(replace(settings, **changes)).eval()  # type: ignore[arg-type]
        models[variant] = model.to(device=device.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    side = models["baseline"].backbone.preprocessing.size
    images = torch.randn(batch_size, 3, side, side, device=device.device).to(memory_format=torch.channels_last)
    corners = torch.rand(batch_size, settings.regions, 2, 2, device=device.device).sort(dim=2).values
    seconds: dict[str, list[float]] = {variant: [] for variant in models}
    for turn in range(_WARM_UP + _ROUNDS):
        for variant, model in models.items():
            device.wait()
            start = time.perf_counter()
            with torch.no_grad(), device.autocast():
                model(images, corners.flatten(2))
            device.wait()
            if turn >= _WARM_UP:
                seconds[variant].append(time.perf_counter() - start)
    return {variant: median(taken) / batch_size * 1e3 for variant, taken in seconds.items()}


def costs_text(costs: list[Cost]) -> str:
    """A table for people: ours, with the paper's claim in brackets."""
    timed = any(cost.milliseconds is not None for cost in costs)
    width = 2 + max(len(cost.backbone) for cost in costs)
    lines = [f"{'':{width}}{'':10}{'M parameters':>20}{'GFLOPs':>18}" + (f"{'ms':>9}{'ratio':>7}" if timed else "")]
    first: dict[str, float] = {}
    for cost in costs:
        claim = PAPER.get(cost.backbone, {}).get(cost.variant)
        million, gflops = (f"({number:.2f})" if claim else "" for number in (claim or (0, 0))[:2])
        line = f"{cost.backbone if cost.variant == 'baseline' else '':{width}}{cost.variant:10}"
        line += f"{cost.parameters / 1e6:11.2f}{million:>9}{cost.gflops:9.2f}{gflops:>9}"
        if cost.milliseconds is not None:
            alone = first.setdefault(cost.backbone, cost.milliseconds)
            line += f"{cost.milliseconds:9.2f}{cost.milliseconds / alone:7.2f}"
        lines.append(line.rstrip())
    lines.append("in brackets: the paper's Table VI. GFLOPs count convolutions and matrix products, 2 a multiply-add")
    return "\n".join(lines)
