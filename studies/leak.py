"""What it does to a measured accuracy if an image is given regions of the other images of its batch.

    python studies/leak.py --boxes boxes.h5 --root DIR --weights FILE [--seeds 3] [--epochs 20] [--output leak.json]

A diagnostic of published protocols, not a part of agnet, whose outputs never depend on the batch. Code that the authors
of AG-Net published for other networks concatenates the pooled regions region by region and reshapes the result image by
image. With a batch above 1, most of an image's regions are then those of other images in its batch. Its test batches
are sorted by class, so those images show the same class; and it keeps the epoch with the best test accuracy. The code
of AG-Net itself was not published: nothing is known of it.

AG-Net's head is trained on the features of a frozen backbone, with and without the defect, from the same start and on
the same batches. After every epoch, validation and test images are classified in batches sorted by class and in batches
in random order. The network without regions is trained beside it.

Columns: test accuracy in per cent, mean and standard deviation over the seeds, for the epoch with the best validation
accuracy (in batches of the same order) and for the one with the best test accuracy.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from agnet.data.boxes.reader import Boxes, read_boxes
from agnet.training.loop.optimizer import build_optimizer
from agnet.training.models.agnet import AGNet, agnet_blocks
from agnet.training.models.backbones.backbone import build_backbone
from agnet.training.models.settings import AGNetSettings
from agnet.training.recipes import RECIPES
from agnet.training.runs.weights import find_weights
from agnet.training.samples.loader import RegionDataset


@dataclass(frozen=True)
class Part:
    """Features and regions of the images of a split."""

    maps: Tensor  #: float32 ``(n, C, 7, 7)``
    regions: Tensor  #: float32 ``(n, R, 4)``
    labels: Tensor  #: int64 ``(n,)``

    def batches(self, order: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for some in order.split(size):
            yield self.maps[some], self.regions[some], self.labels[some]


class Given(nn.Module):
    """Stands for a backbone whose maps are computed already."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels_of_maps = (channels,)

    def maps(self, maps: Tensor) -> tuple[Tensor, ...]:
        return (maps,)


def mixed(pool: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Pooling of regions ``(B, N, P, C)`` that are laid out region by region and read image by image."""

    def of_batch(maps: Tensor, boxes: Tensor, mean: bool = False) -> Tensor:
        tokens = pool(maps, boxes, mean=mean)
        return tokens.transpose(0, 1).reshape(tokens.shape)

    return of_batch


def features(boxes: Boxes, root: Path, backbone: str, weights: str, channels: int) -> dict[str, Part]:
    """Compute the features of every split; with ``channels``, their strongest principal components in train."""
    network = build_backbone(backbone, find_weights(weights, backbone)).eval()
    side = network.preprocessing.size
    dataset, found = RegionDataset(boxes, root, (side, side)), {}
    for split in ("train", "val", "test"):
        rows, maps = boxes.rows(split).tolist(), []
        regions: list[Tensor] = []
        labels: list[int] = []
        for start in range(0, len(rows), 32):
            samples = [dataset[0, row] for row in rows[start : start + 32]]
            images, boxes_xyxy, numbers, _ = zip(*samples, strict=True)
            with torch.inference_mode():
                maps.append(network(torch.stack(images)))
            regions += boxes_xyxy
            labels += numbers
        found[split] = Part(torch.cat(maps), torch.stack(regions), torch.tensor(labels))
    if channels:
        pixels = found["train"].maps.permute(0, 2, 3, 1).flatten(0, 2)
        _, _, axes = torch.pca_lowrank(pixels[:: max(1, len(pixels) // 20_000)], channels)
        found = {
            split: replace(part, maps=torch.einsum("nchw,cd->ndhw", part.maps, axes)) for split, part in found.items()
        }
    return found


def head(channels: int, classes: int, regions: int, seed: int) -> AGNet:
    """AG-Net's head; without regions, the whole image is the only token."""
    torch.manual_seed(seed)
    backbone = Given(channels)
    settings = AGNetSettings(classes=classes, regions=regions, use_regions=regions > 0, backbone="efficientnet-lite0")
    return AGNet(backbone=backbone, **agnet_blocks(settings, backbone, channels))  # type: ignore[arg-type]


def orders(labels: Tensor, seed: int) -> dict[str, Tensor]:
    """Orders of the images in evaluation batches."""
    generator = torch.Generator().manual_seed(seed)
    return {"random": torch.randperm(len(labels), generator=generator), "sorted": labels.argsort(stable=True)}


def accuracy(network: nn.Module, part: Part, order: Tensor, batch: int) -> float:
    right = 0
    with torch.inference_mode():
        for maps, regions, labels in part.batches(order, batch):
            right += int((network(maps, regions).logits.argmax(dim=1) == labels).sum())
    return right / len(part.labels)


def trained(network: AGNet, parts: dict[str, Part], epochs: int, batch: int, seed: int) -> list[dict[str, float]]:
    """Train, and measure after every epoch: accuracy by split and order."""
    recipe = RECIPES["modern"].override(epochs=epochs, batch_size=batch, backbone_lr=0.0)
    optimizer, generator = build_optimizer(network, recipe), torch.Generator().manual_seed(seed)
    steps, step, found = len(parts["train"].labels) // batch * epochs, 0, []
    for _ in range(epochs):
        network.train()
        order = torch.randperm(len(parts["train"].labels), generator=generator)
        for maps, regions, labels in parts["train"].batches(order[: len(order) // batch * batch], batch):
            share = (
                min(1.0, (step + 1) * epochs / steps) * (1 + np.cos(np.pi * step / steps)) / 2
            )  # one epoch to warm up
            for group in optimizer.param_groups:
                group["lr"] = group["highest_lr"] * share
            optimizer.zero_grad()
            cross_entropy(network(maps, regions).logits, labels, label_smoothing=recipe.label_smoothing).backward()
            nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
            optimizer.step()
            step += 1
        network.eval()
        found.append(
            {
                f"{split} {name}": accuracy(network, parts[split], order, batch)
                for split in ("val", "test")
                for name, order in orders(parts[split].labels, seed).items()
            }
        )
    return found


def chosen(epochs: list[dict[str, float]], order: str) -> dict[str, float]:
    """Test accuracy of the epoch that each rule keeps; the first of equals."""
    best = {by: max(epochs, key=lambda line: line[f"{by} {order}"]) for by in ("val", "test")}
    return {by: line[f"test {order}"] for by, line in best.items()}


def spread(values: list[float]) -> str:
    deviation = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--channels", type=int, default=0, help="principal components of the features; 0: all channels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    boxes = read_boxes(arguments.boxes)
    parts = features(boxes, arguments.root, arguments.backbone, arguments.weights, arguments.channels)
    images = ", ".join(f"{len(part.labels)} {split}" for split, part in parts.items())
    print(
        f"{boxes.dataset}: {images}; {arguments.backbone}, {parts['train'].maps.shape[1]} channels, "
        f"{boxes.layout.count} regions, batch {arguments.batch}, {arguments.epochs} epochs, seeds 0 to "
        f"{arguments.seeds - 1}; {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        flush=True,
    )
    runs: dict[str, list[list[dict[str, float]]]] = {"no regions": [], "sound": [], "mixed": []}
    for seed in range(arguments.seeds):
        for name, done in runs.items():
            regions = 0 if name == "no regions" else boxes.layout.count
            network = head(parts["train"].maps.shape[1], len(boxes.classes), regions, seed)
            network.pool = mixed(network.pool) if name == "mixed" else network.pool
            done.append(trained(network, parts, arguments.epochs, arguments.batch, seed))
            print(f"seed {seed}, {name}: {chosen(done[-1], 'random')}, sorted {chosen(done[-1], 'sorted')}", flush=True)
    print(f"\n{'':14}{'batches':>10}{'chosen by validation':>24}{'chosen by test':>20}")
    for name, done in runs.items():
        for order in ("random", "sorted") if name == "mixed" else ("random",):  # else the order changes nothing
            by = [chosen(epochs, order) for epochs in done]
            cells = spread([one["val"] for one in by]), spread([one["test"] for one in by])
            print(f"{name:14}{order:>10}{cells[0]:>24}{cells[1]:>20}")
    if arguments.output:
        arguments.output.write_text(json.dumps({"arguments": vars(arguments), "runs": runs}, default=str, indent=1))


if __name__ == "__main__":
    main()
