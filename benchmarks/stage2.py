"""What AG-Net's head costs beside its plain backbone, in one run.

    python benchmarks/stage2.py [--backbone resnet50] [--batch-size 8] [--rounds 10] [--device cpu]

Both networks take turns on the same random images; the table gives median milliseconds an image, for
inference and for a training step (forward, backward, AdamW), and AG-Net's ratio to plain.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from agnet.data.memory import keep_freed_memory
from agnet.training.fit import build_optimizer, choose_device
from agnet.training.models.build import Model, build_model
from agnet.training.models.settings import ModelSettings
from agnet.training.recipes import RECIPES

CLASSES = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    keep_freed_memory(block_mb=None, idle_mb=2047)  # as the commands do
    device = choose_device(arguments.device)
    torch.manual_seed(0)
    size = arguments.batch_size
    images = torch.randn(size, 3, 224, 224, device=device.device).to(memory_format=torch.channels_last)
    corners = torch.rand(size, 36, 2, 2, device=device.device).sort(dim=2).values
    regions = corners.flatten(2)  # x0 y0 x1 y1
    labels = torch.randint(CLASSES, (size,), device=device.device)

    def network(name: str) -> Model:
        built = build_model(ModelSettings(classes=CLASSES, model=name, backbone=arguments.backbone))
        return built.to(device=device.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    models = {name: network(name) for name in ("plain", "agnet")}
    optimizers = {name: build_optimizer(model, RECIPES["modern"]) for name, model in models.items()}

    def infer(name: str) -> None:
        with torch.no_grad(), device.autocast():
            models[name].eval()(images, regions)

    def train(name: str) -> None:
        with device.autocast():
            loss = nn.functional.cross_entropy(models[name].train()(images, regions).logits.float(), labels)
        optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        optimizers[name].step()

    def milliseconds(work: Callable[[str], None]) -> dict[str, float]:
        seconds: dict[str, list[float]] = {name: [] for name in models}
        for turn in range(arguments.rounds + 2):
            for name in models:
                device.wait()
                start = time.perf_counter()
                work(name)
                device.wait()
                if turn >= 2:  # warm
                    seconds[name].append(time.perf_counter() - start)
        return {name: median(taken) / size * 1e3 for name, taken in seconds.items()}

    print(
        f"{arguments.backbone}, batch {size}, {device.device.type} {device.precision}, "
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    print(f"{'ms an image':14}{'plain':>10}{'agnet':>10}{'ratio':>8}")
    for title, work in (("inference", infer), ("training step", train)):
        taken = milliseconds(work)
        print(f"{title:14}{taken['plain']:10.2f}{taken['agnet']:10.2f}{taken['agnet'] / taken['plain']:8.2f}")


if __name__ == "__main__":
    main()
