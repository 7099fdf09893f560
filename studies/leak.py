"""What defects of a protocol add to an accuracy: regions of batch-mates, sorted batches, the epoch chosen on test.

    python studies/leak.py studies/leak.yaml --root DIR [--output DIR] [--set channels=64 kinds=primary]

A diagnostic of published protocols, not a part of agnet, whose outputs never depend on the batch. Code that the authors
of AG-Net published for another network concatenates the pooled regions region by region and reshapes the result image
by image. With a batch above 1, most of an image's regions are then those of other images in its batch; its whole-image
token, which is added afterwards, is its own. Its test batches are sorted by class, so that those images show the same
class; and the accuracy that is watched while training is that on the test set. The code of AG-Net itself was not
published: nothing is known of it.

AG-Net's head is trained on the features of a frozen backbone, with and without the wrong regions, from the same start
and on the same batches, in random order. After every epoch, validation and test images are classified in batches in
random order and, with wrong regions, in batches sorted by class. The network without regions is trained beside them.

Each data set and seed has a file in the output folder; a seed that has one is not trained again. The tables are
`leak.txt` and `leak.md`.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from leak_table import Run, report  # type: ignore[import-not-found]  # beside this script
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from agnet.commands.configuration_file import parse_value, read_mapping
from agnet.data.boxes.reader import Boxes, read_boxes
from agnet.data.errors import AgnetError, ConfigurationError, MismatchError
from agnet.data.files import write_text
from agnet.data.regions import Layout
from agnet.data.text import duration
from agnet.training.loop.optimizer import build_optimizer
from agnet.training.models.agnet import AGNet, agnet_blocks
from agnet.training.models.backbones.backbone import build_backbone
from agnet.training.models.settings import AGNetSettings
from agnet.training.recipes import RECIPES
from agnet.training.runs.weights import find_weights
from agnet.training.samples.loader import RegionDataset

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Settings:
    """The entries of the file; see ``leak.yaml``."""

    data: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 20
    batch: int = 8
    backbone: str = "efficientnet-lite0"
    weights: str = "imagenet"
    channels: int = 128
    primary: int = 8
    kinds: str = "both"

    @classmethod
    def read(cls, file: Path, changes: Mapping[str, Any]) -> Settings:
        """Raises: `ConfigurationError` for entries that are unknown or have another type than they should."""
        content = {**read_mapping(file), **changes}
        unknown = sorted(set(content) - {each.name for each in fields(cls)})
        if unknown or not content.get("data"):
            raise ConfigurationError(f"{file}: " + (f"unknown entry {unknown[0]!r}" if unknown else "no data sets"))
        if not isinstance(content["data"], dict) or not all(isinstance(one, dict) for one in content["data"].values()):
            raise ConfigurationError(f"{file}: data: wanted the options of each data set by its name")
        seeds = content.get("seeds", cls.seeds)
        found = cls(**{**content, "seeds": tuple(seeds) if isinstance(seeds, list | tuple) else (seeds,)})
        for name, least in (("epochs", 1), ("batch", 1), ("channels", AGNetSettings.se_ratio), ("primary", 2)):
            value = getattr(found, name)
            if type(value) is not int or (value < least and (name, value) != ("channels", 0)):
                raise ConfigurationError(f"{file}: {name}: wanted a whole number, {least} or more, got {value!r}")
        if any(type(seed) is not int for seed in found.seeds):
            raise ConfigurationError(f"{file}: seeds: wanted whole numbers, got {', '.join(map(str, found.seeds))}")
        return found


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
    """Pooling ``(B, R + 1, P, C)`` whose regions are laid out region by region and read image by image.

    The last token, the whole image, stays that of its image.
    """

    def of_batch(maps: Tensor, boxes: Tensor, mean: bool = False) -> Tensor:
        tokens = pool(maps, boxes, mean=mean)
        regions = tokens[:, :-1]
        return torch.cat([regions.transpose(0, 1).reshape(regions.shape), tokens[:, -1:]], dim=1)

    return of_batch


# --- a data set


def proposed(name: str, settings: Settings, root: Path, output: Path) -> tuple[Boxes, Path]:
    """The regions of a data set and the folder of its images; they are proposed first if there is no boxes file."""
    options = dict(settings.data[name])
    folder, file = root / str(options.pop("root", "")), Path(options.pop("boxes", output / f"{name}.h5"))
    if not file.exists():
        words = [f"--primary={settings.primary}", f"--boxes={file}", f"--root={folder}"]
        words += [f"--{option}" if value is True else f"--{option}={value}" for option, value in options.items()]
        subprocess.run([sys.executable, "-m", "agnet", "propose", *words], check=True)
    boxes = read_boxes(file)
    return replace(boxes, layout=Layout(boxes.layout.primary, settings.kinds)), folder


def features(boxes: Boxes, root: Path, settings: Settings) -> dict[str, Part]:
    """Compute the features of every split; with ``channels``, their strongest principal components in train."""
    network = build_backbone(settings.backbone, find_weights(settings.weights, settings.backbone)).eval()
    network = network.to(memory_format=torch.channels_last)  # with few images at a time, half of the time on a CPU
    side = network.preprocessing.size
    dataset, found = RegionDataset(boxes, root, (side, side)), {}
    for split in SPLITS:
        rows, maps = boxes.rows(split).tolist(), []
        if not rows:
            raise MismatchError(f"{boxes.path} has no {split} images, which this script needs")
        regions: list[Tensor] = []
        labels: list[int] = []
        for start in range(0, len(rows), 4):
            samples = [dataset[0, row] for row in rows[start : start + 4]]
            images, boxes_xyxy, numbers, _ = zip(*samples, strict=True)
            with torch.inference_mode():
                pixels = torch.stack(images).to(memory_format=torch.channels_last)
                maps.append(network(pixels).contiguous())
            regions += boxes_xyxy
            labels += numbers
        found[split] = Part(torch.cat(maps), torch.stack(regions), torch.tensor(labels))
    return compressed(found, settings.channels) if settings.channels else found


def compressed(parts: Mapping[str, Part], channels: int) -> dict[str, Part]:
    """Project the features on their principal components in train, not centred."""
    pixels = parts["train"].maps.permute(0, 2, 3, 1).flatten(0, 2)
    covariance = torch.cov(pixels[:: max(1, len(pixels) // 20_000)].double().T)
    axes = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :channels].float()
    return {split: replace(part, maps=torch.einsum("nchw,cd->ndhw", part.maps, axes)) for split, part in parts.items()}


# --- a network


def head(network: str, channels: int, classes: int, regions: int, seed: int) -> AGNet:
    """AG-Net's head: "sound", with "wrong" regions, or with "none": the whole image is then the only token."""
    torch.manual_seed(seed)
    backbone = Given(channels)
    settings = AGNetSettings(classes=classes, regions=regions, use_regions=network != "none")
    built = AGNet(backbone=backbone, **agnet_blocks(settings, backbone, channels))  # type: ignore[arg-type]
    built.pool = mixed(built.pool) if network == "wrong" else built.pool
    return built


def right(network: nn.Module, part: Part, order: Tensor, batch: int) -> str:
    """Whether each image is classified rightly in batches of this order: a text of 0 and 1 in the order of the part."""
    found = torch.zeros(len(order), dtype=torch.bool)
    with torch.inference_mode():
        for some, (maps, regions, labels) in zip(order.split(batch), part.batches(order, batch), strict=True):
            found[some] = network(maps, regions).logits.argmax(dim=1) == labels
    return "".join("01"[one] for one in found.tolist())


def trained(network: AGNet, parts: Mapping[str, Part], sorts: tuple[str, ...], settings: Settings, seed: int) -> Run:
    """Train, and classify the validation and test images after every epoch, in batches of these orders."""
    recipe = RECIPES["modern"].override(epochs=settings.epochs, batch_size=settings.batch, backbone_lr=0.0)
    optimizer, generator = build_optimizer(network, recipe), torch.Generator().manual_seed(seed)
    steps, found = len(parts["train"].labels) // settings.batch, []
    for epoch in range(settings.epochs):
        network.train()
        order = torch.randperm(len(parts["train"].labels), generator=generator)[: steps * settings.batch]
        for step, (maps, regions, labels) in enumerate(parts["train"].batches(order, settings.batch), epoch * steps):
            warm = min(1.0, (step + 1) / steps)  # in the first epoch
            share = warm * (1 + np.cos(np.pi * step / (steps * settings.epochs))) / 2
            for group in optimizer.param_groups:
                group["lr"] = group["highest_lr"] * share
            optimizer.zero_grad()
            cross_entropy(network(maps, regions).logits, labels, label_smoothing=recipe.label_smoothing).backward()
            nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
            optimizer.step()
        found.append(classified(network.eval(), parts, sorts, settings.batch, seed))
    return found


def classified(
    network: nn.Module, parts: Mapping[str, Part], sorts: tuple[str, ...], batch: int, seed: int
) -> dict[str, str]:
    """`right` for validation and test, by split and order of the images."""
    found: dict[str, str] = {}
    for split in ("val", "test"):
        labels = parts[split].labels
        orders = {
            "random": torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)),
            "sorted": labels.argsort(stable=True),
        }
        found |= {f"{split} {name}": right(network, parts[split], orders[name], batch) for name in sorts}
    return found


# --- all of it


def runs_of(name: str, settings: Settings, root: Path, output: Path) -> list[Run]:
    """The runs of a data set, one per seed; those without a file are trained."""
    boxes, folder = proposed(name, settings, root, output)
    known = {
        **{each.name: getattr(settings, each.name) for each in fields(Settings) if each.name not in ("data", "seeds")},
        "primary": boxes.layout.primary,
        "boxes": boxes.fingerprint,
    }
    files = {seed: output / f"{name}-seed-{seed}.json" for seed in settings.seeds}
    found = {seed: read_run(file, known) for seed, file in files.items() if file.exists()}
    parts = features(boxes, folder, settings) if len(found) < len(files) else {}
    for seed in (seed for seed in files if seed not in found):
        runs: dict[str, Run] = {}
        for network, sorts in (("none", ("random",)), ("sound", ("random",)), ("wrong", ("random", "sorted"))):
            started = time.monotonic()
            built = head(network, parts["train"].maps.shape[1], len(boxes.classes), boxes.layout.count, seed)
            runs[network] = trained(built, parts, sorts, settings, seed)
            say(f"{name}, seed {seed}, {network}: {duration(time.monotonic() - started)}")
        images = {split: len(part.labels) for split, part in parts.items()}
        content = {"settings": known, "images": images, "made_with": made_with(), "runs": runs}
        write_text(files[seed], json.dumps(content))
        found[seed] = runs
    return [found[seed] for seed in files]


def read_run(file: Path, known: Mapping[str, Any]) -> Run:
    """Read the runs of a seed. Raises: `ConfigurationError` for other settings, or if the file is something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        settings: dict[str, Any] = dict(content["settings"])
        found: Run = content["runs"]
    except (OSError, ValueError, LookupError, TypeError):
        complaint = f"{file} has no runs of this script; remove it, or give another --output"
        raise ConfigurationError(complaint) from None
    for name, value in known.items():
        if settings.get(name) != value:
            raise ConfigurationError(
                f"{file} was made with {name} {settings.get(name)}, not {value}; give another --output"
            )
    return found


def made_with() -> str:
    return f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="YAML file of settings")
    parser.add_argument("--root", type=Path, default=Path("datasets"), help="folder of the data sets [./datasets]")
    parser.add_argument("--output", type=Path, default=Path("studies-out/leak"), help="folder [studies-out/leak]")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="entries in place of the file's")
    given = parser.parse_args()
    changes = {name: parse_value(value) for name, _, value in (word.partition("=") for word in given.set)}
    try:
        settings = Settings.read(given.file, changes)
        given.output.mkdir(parents=True, exist_ok=True)
        runs: dict[str, list[Run]] = {}
        for name in settings.data:
            runs[name] = runs_of(name, settings, given.root, given.output)
            write_text(given.output / "leak.txt", report(runs))
            write_text(given.output / "leak.md", report(runs, as_markdown=True))
    except (AgnetError, subprocess.CalledProcessError) as error:
        sys.exit(f"Error: {error}")
    print(report(runs), end="")


if __name__ == "__main__":
    main()
