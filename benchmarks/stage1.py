"""What proposing regions costs beside the bare cost of its job, in one run, on one thread.

    python benchmarks/stage1.py DIR [--images 200]

DIR is searched for images. Three pipelines take turns on each chunk of images; the table gives milliseconds an image
and the ratio to the floor:

    floor   OpenCV: decode, resize to 224 x 224, SIFT detect
    agnet   what `agnet propose` does for an image: read, hash, decode, regions
    naive   OpenCV decode, resize, SIFT detectAndCompute, scikit-learn's GaussianMixture, a box a component
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import threadpoolctl
from sklearn.mixture import GaussianMixture

from agnet.data.images import IMAGE_SUFFIXES
from agnet.proposals.data_set import CHUNK_IMAGES, propose_chunk
from agnet.proposals.settings import ProposalSettings


def _squashed(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None, path
    return cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA)


def floor(root: Path, names: list[str]) -> None:
    sift = cv2.SIFT.create()
    for name in names:
        sift.detect(_squashed(root / name), None)


def agnet(root: Path, names: list[str]) -> None:
    propose_chunk(str(root), names, ProposalSettings())


def naive(root: Path, names: list[str]) -> None:
    for name in names:
        keypoints, _ = cv2.SIFT.create().detectAndCompute(_squashed(root / name), None)
        points = np.array([keypoint.pt for keypoint in keypoints])
        if len(points) < 8:
            continue
        labels = GaussianMixture(8, random_state=0).fit_predict(points)
        for component in range(8):
            mine = points[labels == component]
            if len(mine):
                np.concatenate([mine.min(axis=0), mine.max(axis=0)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=200)
    arguments = parser.parse_args()
    found = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    step = max(1, len(found) // arguments.images)
    readable = [path for path in found[::step] if cv2.imread(str(path)) is not None][: arguments.images]
    names = [path.relative_to(arguments.folder).as_posix() for path in readable]
    chunks = [names[at : at + CHUNK_IMAGES] for at in range(0, len(names), CHUNK_IMAGES)]

    cv2.setNumThreads(1)
    threadpoolctl.threadpool_limits(1)
    pipelines: list[Callable[[Path, list[str]], None]] = [floor, agnet, naive]
    for pipeline in pipelines:  # imports and first calls
        pipeline(arguments.folder, names[:4])
    seconds = {pipeline.__name__: 0.0 for pipeline in pipelines}
    for chunk in chunks:
        for pipeline in pipelines:
            start = time.perf_counter()
            pipeline(arguments.folder, chunk)
            seconds[pipeline.__name__] += time.perf_counter() - start

    print(f"{len(names)} images, {platform.processor() or platform.machine()}, OpenCV {cv2.__version__}, one thread")
    print(f"{'':8}{'ms an image':>12}{'ratio to the floor':>20}")
    for name, taken in seconds.items():
        print(f"{name:8}{taken / len(names) * 1e3:12.2f}{taken / seconds['floor']:20.2f}")


if __name__ == "__main__":
    main()
