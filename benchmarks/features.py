"""Training on cached features of a frozen backbone, beside training on the images.

    python benchmarks/features.py DIR [--backbone efficientnet-lite0] [--size 160] [--images 256] [--rounds 3]

DIR contains a folder for each class, ``train/CLASS/*.jpg`` or ``CLASS/*.jpg``. The plain backbone and AG-Net, with
random weights and without augmentation, are trained in turns on images and on features, two epochs each; the second one
counts, without its validation.

Columns: images per second on images and on features; the median of the ratios in the same round; images per second of
the computation of the features, once.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from agnet.data.boxes.reader import Boxes, read_boxes
from agnet.data.index import limit_index
from agnet.data.memory import keep_network_memory
from agnet.data.sets.catalogue import open_dataset
from agnet.proposals.run import propose_dataset
from agnet.proposals.settings import ProposalSettings
from agnet.training.loop.fit import fit
from agnet.training.loop.job import Console, Job
from agnet.training.models.contract import Settings
from agnet.training.models.settings import AGNetSettings, PlainSettings
from agnet.training.recipes import RECIPES, RunSettings
from agnet.training.runs.folder import read_log


class Stopwatch:
    """Images per second of the computation of features, from the progress that a run tells."""

    rate = 0.0

    def __call__(self, what: str, images: int) -> Callable[[int, dict[str, float]], None]:
        started = time.perf_counter()

        def shown(done: int, values: dict[str, float]) -> None:
            if what == "features":
                self.rate = done / (time.perf_counter() - started)

        return shown


def propose(root: Path, images: int, folder: str) -> Boxes:
    path = Path(folder) / "boxes.h5"
    propose_dataset(limit_index(open_dataset("folder", root), images), ProposalSettings(), path)
    return read_boxes(path)


def trained(job: Job) -> tuple[float, float]:
    """Train, and return the images per second of the last epoch and of the computation of the features."""
    watch = Stopwatch()
    fit(job, Console(watch=watch))
    return float(read_log(job.run)[-1]["images_per_second"]), watch.rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, metavar="DIR")
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    keep_network_memory()
    recipe = RECIPES["modern"].override(epochs=2, backbone_lr=0.0, augment=False, image_size=arguments.size)
    with tempfile.TemporaryDirectory() as folder:
        boxes = propose(arguments.root, arguments.images, folder)
        classes = len(boxes.classes)
        models: dict[str, Settings] = {
            "plain": PlainSettings(classes, backbone=arguments.backbone),
            "AG-Net": AGNetSettings(classes, regions=boxes.layout.count, backbone=arguments.backbone),
        }
        print(
            f"{arguments.backbone} at {arguments.size} px, {len(boxes.rows('train'))} images, {arguments.workers} "
            f"workers, {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}"
        )
        print(f"{'':10}{'images':>10}{'features':>10}{'ratio':>8}{'once':>10}")
        for name, model in models.items():
            rates = []
            for turn in range(arguments.rounds):
                found = []
                for cached in (False, True):
                    settings = RunSettings(
                        weights="none",
                        seed=turn,  # other weights, and so other features
                        device=arguments.device,
                        workers=arguments.workers,
                        cache_features=cached,
                    )
                    run = Path(folder, f"{name}-{turn}-{cached}")
                    found.append(trained(Job(run, boxes, arguments.root, model, recipe, settings)))
                rates.append((found[0][0], found[1][0], found[1][1]))
            images, features, once = (median(column) for column in zip(*rates, strict=True))
            ratio = median(two / one for one, two, _ in rates)
            print(f"{name:10}{images:10.1f}{features:10.1f}{ratio:8.1f}{once:10.1f}")


if __name__ == "__main__":
    main()
