"""Time and memory of AG-Net, and of each of its options, compared with its plain backbone.

    python benchmarks/stage2.py [--backbone resnet50] [--batch-size 8] [--rounds 10] [--device cpu] [--switches]

Each network takes turns with the plain one on the same random images. The table lists the median time per image in
milliseconds, for inference and for a training step (forward, backward, AdamW), the plain network's in the same rounds,
the median of their ratios, and the peak memory of intermediate results per image, without weights and their gradients.
"plain formulas" is AG-Net without its optimised code for eager execution on a CPU
(`training/models/blocks/token_products.py`).
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from agnet.data.memory import keep_freed_memory
from agnet.training.loop.optimizer import build_optimizer
from agnet.training.machine.devices import Device, choose_device
from agnet.training.models.blocks.token_products import plain_formulas
from agnet.training.models.build import build_model
from agnet.training.models.contract import Settings
from agnet.training.models.model import Model
from agnet.training.models.settings import AGNetSettings, PlainSettings
from agnet.training.recipes import RECIPES

AGNET = AGNetSettings(classes=40)
FORMULAS = "plain formulas"
WARM_UP = 4  # rounds after which no new memory is allocated
SWITCHES: dict[str, dict[str, object]] = {
    "--no-regions": {"use_regions": False},
    "--no-self-attention": {"self_attention": False},
    "--no-inter-attention": {"inter_attention": False},
    "--fusion max": {"fusion": "max"},
    "--fusion mean": {"fusion": "mean"},
    "--se shared": {"se": "shared"},
    "--se none": {"se": "none"},
    "--units 64": {"units": 64},
    "--spectral-norm": {"spectral_norm": True},
    "--attention-softmax": {"attention_softmax": True},
    "--pooling-samples 2": {"pooling_samples": 2},
    "--pooling crop": {"pooling": "crop"},
    "--stages 2": {"stages": 2},
}


class Bench:
    """Measurements of networks on one random batch."""

    def __init__(self, backbone: str, size: int, device: Device) -> None:
        torch.manual_seed(0)
        self.backbone, self.size, self.device = backbone, size, device
        self.images = device.pixels(torch.randint(0, 256, (size, 3, 224, 224), dtype=torch.uint8))
        corners = torch.rand(size, AGNET.regions, 2, 2, device=device.device).sort(dim=2).values
        self.regions = corners.flatten(2)  # x0 y0 x1 y1
        self.labels = torch.randint(AGNET.classes, (size,), device=device.device)

    def network(self, **changes: object) -> Model:
        return self.built(replace(AGNET, backbone=self.backbone, **changes))  # type: ignore[arg-type]

    def built(self, settings: Settings) -> Model:
        built = build_model(settings)
        return built.to(device=self.device.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def inputs(self, model: Model) -> list[Tensor]:
        given = {"images": self.images, "regions": self.regions}
        return [given[name] for name in model.inputs]

    def infer(self, model: Model) -> None:
        with torch.no_grad(), self.device.autocast():
            model.eval()(*self.inputs(model))

    def loss(self, model: Model) -> Tensor:
        with self.device.autocast():
            logits = model.train()(*self.inputs(model)).logits
        return nn.functional.cross_entropy(logits.float(), self.labels)

    def learn(self, model: Model) -> None:
        self.loss(model).backward()

    def train(self, model: Model, optimizer: torch.optim.Optimizer) -> None:
        loss = self.loss(model)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def milliseconds(self, rounds: int, work: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
        """Time the functions in turn; return the milliseconds per image of each in every round."""
        taken: dict[str, list[float]] = {name: [] for name in work}
        for turn in range(rounds + WARM_UP):
            for name, call in work.items():
                with plain_formulas() if name == FORMULAS else nullcontext():
                    self.device.wait()
                    start = time.perf_counter()
                    call()
                    self.device.wait()
                if turn >= WARM_UP:
                    taken[name].append((time.perf_counter() - start) / self.size * 1e3)
        return taken

    def megabytes(self, call: Callable[[], object]) -> float:
        """Return the peak memory in MB per image that one call allocates in addition to what is already allocated."""
        if self.device.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            peak = torch.cuda.max_memory_allocated() - before
        else:
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as told:
                call()
            with tempfile.TemporaryDirectory() as folder:
                trace = Path(folder, "trace.json")
                told.export_chrome_trace(str(trace))
                events = [
                    event for event in json.loads(trace.read_text())["traceEvents"] if event["name"] == "[memory]"
                ]
            held = peak = 0
            for event in sorted(events, key=lambda event: event["ts"]):
                held += event["args"]["Bytes"]
                peak = max(peak, held)
        return peak / self.size / 1e6


def beside_plain(taken: dict[str, list[float]], name: str) -> str:
    """Format median milliseconds, the plain network's in the same rounds, and the median of their ratios."""
    ratios = [mine / plain for mine, plain in zip(taken[name], taken["plain"], strict=True)]
    return f"{median(taken[name]):12.2f}{median(taken['plain']):9.2f}{median(ratios):8.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--switches", action="store_true", help="measure AG-Net with each of its options, too")
    arguments = parser.parse_args()
    keep_freed_memory(block_mb=None, idle_mb=2047)  # as the commands do
    device = choose_device(arguments.device)
    bench = Bench(arguments.backbone, arguments.batch_size, device)
    variants: dict[str, dict[str, object]] = {"agnet": {}}
    if device.device.type == "cpu":
        variants[FORMULAS] = {}
    if arguments.switches:
        variants |= SWITCHES

    print(
        f"{arguments.backbone}, batch {arguments.batch_size}, {device.device.type} {device.precision}, "
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    columns = f"{'inference: ms, plain, ratio':>29}{'MB':>7}{'training: ms, plain, ratio':>29}{'MB':>7}"
    print(f"{'':22}{'parameters':>12}{columns}")
    plain = bench.built(PlainSettings(AGNET.classes, bench.backbone))
    for name, changes in variants.items():
        models = {"plain": plain, name: bench.network(**changes)}
        optimizers = {each: build_optimizer(model, RECIPES["modern"]) for each, model in models.items()}

        inference = bench.milliseconds(
            arguments.rounds, {each: partial(bench.infer, model) for each, model in models.items()}
        )
        training = bench.milliseconds(
            arguments.rounds, {each: partial(bench.train, model, optimizers[each]) for each, model in models.items()}
        )
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        for each, model in models.items() if name == "agnet" else [(name, models[name])]:
            count = sum(parameter.numel() for parameter in model.parameters())
            with plain_formulas() if each == FORMULAS else nullcontext():
                held = bench.megabytes(partial(bench.infer, model))
                learnt = bench.megabytes(partial(bench.learn, model)) - count * 4e-6 / bench.size
            print(
                f"{each:22}{count / 1e6:10.2f} M{beside_plain(inference, each)}{held:7.1f}"
                f"{beside_plain(training, each)}{learnt:7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
