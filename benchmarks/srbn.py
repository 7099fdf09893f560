"""What SRBN's parts cost, as ratios within one run.

    python benchmarks/srbn.py [--batch-size 8] [--rounds 5] [--device cpu] [--backbone NAME --second-backbone NAME]

Two ratios, each the median over rounds in which both take turns on the same random numbers:

- the spatial LSTM place by place (a double loop) / by diagonals, at 14 x 14, forward and backward: at least 4;
- a training step (forward, backward, AdamW) of SRBN / of B-CNN, which has the same two streams: at most 1.25.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from agnet.data.memory import keep_freed_memory
from agnet.training.machine.devices import Device, choose_device
from agnet.training.models.blocks.spatial_lstm import FLIPS, SpatialLSTM
from agnet.training.models.build import build_model
from agnet.training.models.contract import Settings
from agnet.training.models.model import Model
from agnet.training.models.settings import BCNNSettings, SRBNSettings

CLASSES, SIDE, WARM_UP = 200, 14, 1


def double_loop(lstm: SpatialLSTM, z: Tensor) -> Tensor:
    """The hidden states ``(B, directions, units, h, w)``, place by place; the inputs' product is hoisted here, too."""
    h, w = z.shape[2:]
    found = []
    for number, flip in enumerate(FLIPS[: lstm.directions]):
        cells = z.permute(2, 3, 0, 1).flip(flip)  # (h, w, B, d)
        bias = lstm.bias.view(lstm.directions, -1)[number]
        inputs = cells @ lstm.input[number] + bias
        outside = inputs.new_zeros(z.shape[0], lstm.units)
        hidden: dict[tuple[int, int], Tensor] = {}
        memory: dict[tuple[int, int], Tensor] = {}
        for i in range(h):
            for j in range(w):
                left, top = (i, j - 1), (i - 1, j)
                neighbours = torch.cat([hidden.get(left, outside), hidden.get(top, outside)], dim=1)
                gates = inputs[i, j] + neighbours @ lstm.recurrent[number]
                hidden[i, j], memory[i, j] = lstm._cell(gates, memory.get(left, outside), memory.get(top, outside))
        grid = torch.stack(list(hidden.values())).unflatten(0, (h, w)).flip(flip)
        found.append(grid.permute(2, 3, 0, 1))
    return torch.stack(found, dim=1)


def seconds(rounds: int, device: Device, work: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Seconds of each call in every round; they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + WARM_UP):
        for name, call in work.items():
            device.wait()
            start = time.perf_counter()
            call()
            device.wait()
            if turn >= WARM_UP:
                taken[name].append(time.perf_counter() - start)
    return taken


def of_the_lstm(arguments: argparse.Namespace, device: Device) -> dict[str, list[float]]:
    """Both ways over one map, forward and backward."""
    settings = SRBNSettings(CLASSES)
    lstm = SpatialLSTM(settings.bilinear_channels, settings.units, settings.directions).to(device.device)
    z = torch.randn(arguments.batch_size, settings.bilinear_channels, SIDE, SIDE, device=device.device)
    with torch.no_grad():
        # The cells grow with the map, and rounding with them: single numbers may be off by thousandths.
        assert (lstm(z).hidden - double_loop(lstm, z)).abs().mean() < 1e-5

    def run(states: Callable[[Tensor], Tensor]) -> None:
        lstm.zero_grad(set_to_none=True)
        states(z).square().mean().backward()

    work = {
        "double loop": lambda: run(lambda maps: double_loop(lstm, maps)),
        "diagonals": lambda: run(lambda maps: lstm(maps).hidden),
    }
    return seconds(arguments.rounds, device, work)


def of_a_step(arguments: argparse.Namespace, device: Device) -> dict[str, list[float]]:
    """A training step of either model."""
    images = device.pixels(torch.randint(0, 256, (arguments.batch_size, 3, 224, 224), dtype=torch.uint8))
    labels = torch.randint(CLASSES, (arguments.batch_size,), device=device.device)

    def step_of(settings: Settings) -> Callable[[], None]:
        model: Model = device.take(build_model(settings), torch.channels_last).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with device.autocast():
                logits = model(images).logits
            nn.functional.cross_entropy(logits.float(), labels).backward()
            optimizer.step()

        return step

    names = {"backbone": arguments.backbone, "second_backbone": arguments.second_backbone}
    work = {
        "B-CNN": step_of(BCNNSettings(CLASSES, **names)),
        "SRBN": step_of(SRBNSettings(CLASSES, **names)),
    }
    return seconds(arguments.rounds, device, work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--backbone", default=SRBNSettings.backbone)
    parser.add_argument("--second-backbone", default=SRBNSettings.second_backbone)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    device = choose_device(arguments.device, arguments.precision)
    result: dict[str, dict[str, float]] = {}
    for title, measure in (("double loop / diagonals", of_the_lstm), ("SRBN / B-CNN, a training step", of_a_step)):
        taken = measure(arguments, device)
        first, second = taken
        if title.startswith("SRBN"):
            first, second = second, first
        ratios = [one / other for one, other in zip(taken[first], taken[second], strict=True)]
        result[title] = {"ratio": median(ratios)} | {f"{name} s": median(values) for name, values in taken.items()}
        if not arguments.json:
            told = ", ".join(f"{name} {median(values):.3f} s" for name, values in taken.items())
            print(f"{title}: {median(ratios):.2f} ({told})", flush=True)
    if arguments.json:
        print(json.dumps({"device": str(device.device), "batch_size": arguments.batch_size, **result}))


if __name__ == "__main__":
    main()
