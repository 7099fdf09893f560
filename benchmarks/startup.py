"""Start-up of four commands, as a ratio to the bare import of the packages that they need.

    python benchmarks/startup.py [--rounds 5] [--backbone mobilenet-v3-small]

Makes a small data set of noise and trains one epoch at 64 × 64 pixels, so that the commands themselves have next to
nothing to do. Each command and each import is a process of its own with one thread; they take turns. Times are
processor time, user and system, the minimum over --rounds.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

NETWORK = "torch, torchvision, cv2, h5py, PIL.Image, safetensors.torch"
MEASURES = "scipy.special, scipy.sparse, matplotlib.figure, matplotlib.backends.backend_agg"
TRAINING = "--epochs 1 --image-size 64 --batch-size 4 --workers 0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backbone", default="mobilenet-v3-small")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        _photographs(Path("photographs"))
        agnet = [sys.executable, "-m", "agnet"]
        train = f"train --boxes boxes.h5 --backbone {options.backbone} --weights none {TRAINING}"
        network = NETWORK + (", timm" if options.backbone.startswith(("timm:", "efficientnet-lite")) else "")
        for command in (
            "propose --dataset folder --root photographs --boxes boxes.h5 --kinds primary",
            f"{train} --run run",
        ):
            _time([*agnet, *command.split()])
        commands = {
            "predict, one image": ("predict --run run photographs/val/0/0.png", network),
            "inspect": ("inspect --boxes boxes.h5", "click, numpy, h5py"),
            "evaluate": ("evaluate --run run --split val --workers 0", f"{network}, {MEASURES}"),
            "train --dry-run": (f"{train} --run other --dry-run", network),
        }
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, (command, packages) in commands.items():
                seconds[name].append(
                    (_time([*agnet, *command.split()]), _time([sys.executable, "-c", f"import {packages}"]))
                )
        print(f"{'':20} command  import  ratio")
        for name, times in seconds.items():
            spent, bare = np.min(times, axis=0)
            print(f"{name:20} {spent:5.2f} s {bare:5.2f} s  {spent / bare:5.2f}")


def _photographs(folder: Path) -> None:
    """Write four images of noise for each of two classes and two splits."""
    noise = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("0", "1"):
            place = folder / split / kind
            place.mkdir(parents=True)
            for number in range(4):
                cv2.imwrite(str(place / f"{number}.png"), noise.integers(0, 256, (96, 96, 3), dtype=np.uint8))


def _time(command: list[str]) -> float:
    """Run a command and return its processor time in seconds. Exits if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
