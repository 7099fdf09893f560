"""Whether networks of clips look at what moves.

    python benchmarks/motion.py --boxes FILE [--root DIR] RUN [RUN ...]

For every frame of the clips of a split, what moves is the mean absolute difference of the frames before and after it,
in the cells of the attention map. The figure is the attention that falls on it, as a multiple of what attention spread
evenly over the frame would give: 1 is no better than even, and more is better. Runs must be of networks of clips with
an attention map (alstm, conv-alstm, agnet --temporal).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

import cv2
import numpy as np
import torch

from agnet.data.boxes.reader import read_boxes
from agnet.training.machine.devices import choose_device
from agnet.training.runs.checkpoints import load_checkpoint
from agnet.training.samples.loader import Batch, Loader, dataset_of


def motion(frames: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Share of the motion of each cell ``(T - 2, h, w)``, of the inner ones of T frames ``(T, H, W, 3)``; sum 1."""
    change = np.abs(frames[2:].astype(np.float32) - frames[:-2]).mean(axis=3)
    cells = np.stack([cv2.resize(one, size_hw[::-1], interpolation=cv2.INTER_AREA) for one in change])
    return cells / np.maximum(cells.sum(axis=(1, 2), keepdims=True), 1e-6)


def on_motion(batch: Batch, maps: torch.Tensor) -> list[float]:
    """Attention on motion of each clip of a batch with at least three frames, relative to even attention."""
    found = []
    for frames, valid, attention in zip(batch.frames, batch.valid, maps.float().numpy(), strict=True):
        count = int(valid.sum())
        if count < 3:
            continue
        moving = motion(frames[:count].permute(0, 2, 3, 1).numpy(), attention.shape[1:])
        found.append(float((moving * attention[1 : count - 1]).sum(axis=(1, 2)).mean() * attention[0].size))
    return found


@torch.no_grad()
def measure(run: Path, boxes_file: Path, root: Path, split: str) -> float:
    """Mean over the clips of the split."""
    checkpoint, boxes = load_checkpoint(run), read_boxes(boxes_file)
    model, device = checkpoint.model, choose_device("cpu")
    dataset = dataset_of(boxes, root, checkpoint.size_hw, checkpoint.sampling, regions=checkpoint.regions > 0)
    found: list[float] = []
    for batch in Loader(dataset, boxes.rows(split), 4, 0).epoch(0):
        attention = batch.on(device).called(model, model.inputs).attention_map
        assert attention is not None, f"{run}: its network has no attention map"
        found += on_motion(batch, attention)
    return mean(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, or of several seeds")
    parser.add_argument("--boxes", type=Path, required=True)
    parser.add_argument("--root", type=Path, default=Path("datasets"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = {}
    for run in arguments.runs:
        seeds = sorted(run.glob("seed-*")) or [run]
        values = [measure(seed, arguments.boxes, arguments.root, arguments.split) for seed in seeds]
        result[str(run)] = values
        if not arguments.json:
            spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
            print(f"{run}: {mean(values):.2f}{spread} times even attention ({len(values)} runs)", flush=True)
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
