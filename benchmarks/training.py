"""Training speed from files to updated weights: AG-Net, its plain backbone, and the loops of torchvision and timm.

    python benchmarks/training.py DIR [--backbone resnet50] [--images 256] [--batch-size 16] [--workers 2] [--rounds 5]

DIR contains a folder for each class, ``train/CLASS/*.jpg`` or ``CLASS/*.jpg``. Four ways of training take turns, one
epoch over the same images each: AG-Net and its plain backbone in agnet's loop, and the same plain network in two
common loops. torchvision's reference: ``ImageFolder``, ``RandomResizedCrop`` and flip of PIL images, normalised floats
from the workers, loss and accuracy read at every step. timm: ``create_loader`` with its defaults (bytes from the
workers, normalised on the device), loss read only when it is logged. All use SGD with momentum, random weights, the
same precision and channels last.

Columns: images per second end to end; the median ratio to agnet's plain network in the same rounds; images per second
of the loader alone and of the network alone, on a batch in memory; peak memory on a GPU.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import timm.data
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets.folder import pil_loader

from agnet.data.boxes.reader import Boxes, read_boxes
from agnet.data.memory import keep_network_memory
from agnet.data.sets.catalogue import open_dataset
from agnet.proposals.run import propose_dataset
from agnet.proposals.settings import ProposalSettings
from agnet.training.loop.engine import steps_of_epoch, train_epoch
from agnet.training.loop.learner import IMAGES, Learner
from agnet.training.machine.devices import Device, choose_device
from agnet.training.models.build import build_model
from agnet.training.models.model import Model
from agnet.training.models.registry import ModelSettings
from agnet.training.recipes import RECIPES
from agnet.training.samples.loader import Loader, RegionDataset
from agnet.training.samples.views import AffineRange

RECIPE = RECIPES["paper"].override(lr=1e-3, momentum=0.9)


class Photographs(Dataset[tuple[object, int]]):
    """The items that ``ImageFolder`` would return for the images that agnet trains on."""

    def __init__(self, boxes: Boxes, root: Path, transform: Callable[[object], object]) -> None:
        images = boxes.usable[boxes.rows("train")]
        self.files = [str(root / name.decode()) for name in boxes.names[images]]
        self.labels = boxes.labels[images].tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> tuple[object, int]:
        return self.transform(pil_loader(self.files[number])), self.labels[number]


class Agnet:
    """A network of agnet in agnet's training loop."""

    def __init__(self, model: str, arguments: argparse.Namespace, boxes: Boxes, root: Path, device: Device) -> None:
        self.model = network(model, arguments.backbone, boxes, device)
        self.learner = Learner(self.model, RECIPE, device)
        dataset = RegionDataset(
            boxes, root, self.model.size_hw, AffineRange(15, 0.15, 0.15), regions="regions" in self.model.inputs
        )
        self.loader = Loader(dataset, boxes.rows("train"), arguments.batch_size, arguments.workers, shuffle_seed=0)

    def train(self, epoch: int, held: list[Any] | None = None) -> int:
        """Train on an epoch, or on the batches ``held``. Returns the number of images."""
        steps = steps_of_epoch(len(self.loader), RECIPE.accumulate) if held is None else len(held)
        batches = self.loader.epoch(epoch) if held is None else held
        return int(train_epoch(self.learner, batches, epoch, steps=steps).totals[IMAGES])

    def batches(self, epoch: int) -> Iterable[Any]:
        return self.loader.epoch(epoch)


class Published:
    """The plain network in a published training loop, which reads the loss every ``reads_every`` steps."""

    def __init__(
        self, loader: Iterable[tuple[Tensor, Tensor]], reads_every: int, network: Model, device: Device
    ) -> None:
        self.loader, self.reads_every, self.device, self.model = loader, reads_every, device, network
        self.body = network.backbones[0].body
        self.optimizer = torch.optim.SGD(network.parameters(), lr=RECIPE.lr, momentum=RECIPE.momentum)
        self.loss_fn = nn.CrossEntropyLoss()

    def train(self, epoch: int, held: list[Any] | None = None) -> int:
        """Train as `Agnet.train` does; timm's loader drops an incomplete last batch."""
        self.model.train()
        seen = 0
        for step, (images, labels) in enumerate(self.loader if held is None else held):
            images = images.to(self.device.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
            labels = labels.to(self.device.device, non_blocking=True)
            seen += len(labels)
            with self.device.autocast():
                # The body, not the backbone: this loader has normalised the images.
                logits = self.model.classifier(self.body(images).mean(dim=(2, 3)))
                loss = self.loss_fn(logits, labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            if step % self.reads_every == 0:
                loss.item()
                if self.reads_every == 1:
                    (logits.argmax(dim=1) == labels).float().mean().item()
        return seen

    def batches(self, epoch: int) -> Iterable[Any]:
        return iter(self.loader)


def network(model: str, backbone: str, boxes: Boxes, device: Device) -> Model:
    torch.manual_seed(0)
    settings = ModelSettings(classes=len(boxes.classes), regions=boxes.layout.count, model=model, backbone=backbone)
    return build_model(settings).to(device=device.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def torchvision_loader(boxes: Boxes, root: Path, arguments: argparse.Namespace, side: int) -> Iterable[Any]:
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(side, antialias=True),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    return DataLoader(
        Photographs(boxes, root, transform),
        arguments.batch_size,
        shuffle=True,
        num_workers=arguments.workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=arguments.workers > 0,
    )


def timm_loader(boxes: Boxes, root: Path, arguments: argparse.Namespace, side: int, device: Device) -> Iterable[Any]:
    return timm.data.create_loader(
        Photographs(boxes, root, lambda image: image),  # type: ignore[arg-type]  # the loader sets the transform
        (3, side, side),
        arguments.batch_size,
        is_training=True,
        num_workers=arguments.workers,
        device=device.device,
    )


def propose(root: Path, images: int, folder: str) -> Boxes:
    """Propose regions for ``images`` images of ``root``, with its class proportions."""
    file = Path(folder) / "boxes.h5"
    index = open_dataset("folder", root, val_fraction=0)
    test = int((index.splits == "test").sum())
    index = open_dataset("folder", root, val_fraction=0, limit=round(images * len(index) / (len(index) - test)))
    propose_dataset(index, ProposalSettings(), file)
    return read_boxes(file)


def read_all(batches: Iterable[Any]) -> int:
    return sum(len(batch[0]) for batch in batches)


def rate(device: Device, work: Callable[[], int]) -> float:
    """Return images per second of a function that returns its number of images."""
    device.wait()
    start = time.perf_counter()
    images = work()
    device.wait()
    return images / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, metavar="DIR")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    keep_network_memory()
    device = choose_device(arguments.device)

    with tempfile.TemporaryDirectory() as folder:
        boxes = propose(arguments.root, arguments.images, folder)
        root, images = arguments.root, len(boxes.rows("train"))
        ours = {name: Agnet(name, arguments, boxes, root, device) for name in ("agnet", "plain")}
        side = ours["plain"].model.size_hw[0]
        ways: dict[str, Agnet | Published] = {
            "AG-Net": ours["agnet"],
            "plain": ours["plain"],
            "plain, torchvision's loop": Published(
                torchvision_loader(boxes, root, arguments, side),
                1,
                network("plain", arguments.backbone, boxes, device),
                device,
            ),
            "plain, timm's loop": Published(
                timm_loader(boxes, root, arguments, side, device),
                50,
                network("plain", arguments.backbone, boxes, device),
                device,
            ),
        }
        print(
            f"{arguments.backbone}, {images} images, batch {arguments.batch_size}, {arguments.workers} workers, "
            f"{device.device.type} {device.precision}, {platform.processor() or platform.machine()}, "
            f"{torch.get_num_threads()} threads, torch {torch.__version__}, torchvision {torchvision.__version__}, "
            f"timm {timm.__version__}"
        )
        whole: dict[str, list[float]] = {name: [] for name in ways}
        loader: dict[str, list[float]] = {name: [] for name in ways}
        alone: dict[str, list[float]] = {name: [] for name in ways}
        memory: dict[str, float] = {}
        for turn in range(arguments.rounds + 1):  # the first starts the workers and allocates memory
            for name, way in ways.items():
                if device.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                trained = rate(device, partial(way.train, turn))
                if device.device.type == "cuda":
                    memory[name] = torch.cuda.max_memory_allocated() / 2**30
                read = rate(device, partial(read_all, way.batches(turn)))
                held = list(islice(way.batches(turn), 1)) * 4
                computed = rate(device, partial(way.train, turn, held))
                if turn:
                    whole[name].append(trained)
                    loader[name].append(read)
                    alone[name].append(computed)

    print(f"{'':28}{'images/s':>10}{'to plain':>10}{'loader':>10}{'network':>10}{'GB':>8}")
    for name in ways:
        ratio = median(mine / plain for mine, plain in zip(whole[name], whole["plain"], strict=True))
        print(
            f"{name:28}{median(whole[name]):10.1f}{ratio:10.2f}{median(loader[name]):10.0f}{median(alone[name]):10.1f}"
            + (f"{memory[name]:8.1f}" if memory else f"{'-':>8}")
        )


if __name__ == "__main__":
    main()
