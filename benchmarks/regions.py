"""Mean best IoU between cached regions and those of another seed, another view or another method.

    python benchmarks/regions.py DIR [--images 300] [--seed 0] [--clips]

DIR is searched for images. Each image is augmented once, as in training. Its cached regions, transformed with the
pixels as in training, are compared with the regions that other methods propose for that view. Best IoU: each box is
paired with the most similar box of the other set; the mean is over boxes, both directions and images.

With --clips, DIR is searched for videos instead. Regions of 16 frames of each: IoU of a primary with the primary of the
same number in the next of these frames, for one mixture per frame and for keypoint tubes, and the share of primaries
without keypoints in a frame, whose boxes are filled in and included.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.ops import box_iou

from agnet.data.clips import frames_numbered
from agnet.data.errors import ImageError
from agnet.data.images import IMAGE_SUFFIXES, read_image
from agnet.data.videos import VIDEO_SUFFIXES
from agnet.proposals.one_image import propose_regions
from agnet.proposals.settings import CLIP_FRAMES, SPACE, SPACE_TIME, ProposalSettings
from agnet.proposals.tubes import propose_clip, tubes_of_frames
from agnet.training.samples.views import AffineRange, View

SIDE = 224


def best_iou(one: np.ndarray, other: np.ndarray) -> float:
    overlaps = box_iou(torch.from_numpy(one), torch.from_numpy(other))
    return float((overlaps.amax(dim=1).mean() + overlaps.amax(dim=0).mean()) / 2)


def of_clips(paths: Sequence[Path]) -> None:
    settings = ProposalSettings(frames=CLIP_FRAMES)
    kinds = {"one mixture per frame": None, "tubes in space": SPACE, "tubes in space and time": SPACE_TIME}
    same: dict[str, list[float]] = {name: [] for name in kinds}
    empty: dict[str, list[float]] = {name: [] for name in kinds}
    seconds = dict.fromkeys(kinds, 0.0)
    for path in paths:
        tubes = propose_clip(path, settings)
        frames = [frame.pixels for frame in frames_numbered(path, tubes.numbers.tolist())]
        for name, kind in kinds.items():
            start = time.process_time()
            if kind is None:
                regions = [propose_regions(frame, ProposalSettings()) for frame in frames]
                valid = np.array([one.keypoints > 0 for one in regions])
            else:
                regions, valid = tubes_of_frames(frames, replace(settings, tubes=kind))
            seconds[name] += time.process_time() - start
            boxes = [torch.from_numpy(one.primary_xyxy) for one in regions]
            overlaps = [box_iou(one, other).diagonal().mean() for one, other in pairwise(boxes)]
            same[name].append(float(torch.stack(overlaps).mean()))
            empty[name].append(1 - float(valid.mean()))
    print(f"{len(paths)} clips, {settings.frames} frames of each")
    print(f"{'':26}{'IoU':>8}{'empty':>10}{'ms a clip':>12}")
    for name in kinds:
        milliseconds = seconds[name] / len(paths) * 1e3
        print(f"{name:26}{np.mean(same[name]):8.3f}{np.mean(empty[name]):10.1%}{milliseconds:12.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clips", action="store_true", help="DIR contains videos")
    arguments = parser.parse_args()
    suffixes = VIDEO_SUFFIXES if arguments.clips else IMAGE_SUFFIXES
    found = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in suffixes)
    if arguments.clips:
        of_clips(found[:: max(1, len(found) // arguments.images)][: arguments.images])
        return
    settings = ProposalSettings()
    still = View.of((SIDE, SIDE), (SIDE, SIDE))
    scores: dict[str, list[tuple[float, float]]] = {}
    for number, path in enumerate(found[:: max(1, len(found) // arguments.images)][: arguments.images]):
        try:
            image = read_image(path)
        except ImageError:
            continue
        motion = AffineRange(15, 0.15, 0.15).draw(np.random.default_rng([arguments.seed, number]), (SIDE, SIDE))
        view = View.of((image.shape[1], image.shape[0]), (SIDE, SIDE), motion)
        seen = view.pixels(image)
        cached = view.boxes(propose_regions(image, settings))

        def moved(**changes: Any) -> np.ndarray:
            return view.boxes(propose_regions(image, replace(settings, **changes)))  # noqa: B023

        others = {
            "moved, another k-means seed": moved(seed=1),
            "moved, scikit-learn's k-means and mixture": moved(mixture="scikit-learn"),
            "proposed on the view (live)": still.boxes(propose_regions(seen, settings)),
            "control: a grid on the view": still.boxes(propose_regions(seen, replace(settings, method="grid"))),
            "control: random boxes on the view": still.boxes(propose_regions(seen, replace(settings, method="random"))),
        }
        for name, boxes in others.items():
            scores.setdefault(name, []).append((best_iou(cached, boxes), best_iou(cached[:8], boxes[:8])))
    print(f"{len(next(iter(scores.values())))} images, seed {arguments.seed}; cached regions against")
    print(f"{'':44}{'all 36':>8}{'8 primaries':>14}")
    for name, pairs in scores.items():
        every, primary = np.mean(pairs, axis=0)
        print(f"{name:44}{every:8.3f}{primary:14.3f}")


if __name__ == "__main__":
    main()
