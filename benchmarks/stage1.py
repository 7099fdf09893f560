"""Time to propose regions, compared with a lower bound and a naive implementation.

    python benchmarks/stage1.py DIR [--images 300] [--repeats 3] [--clips]

DIR contains class folders with images. On one thread, the pipelines take turns on each chunk of images:

    floor   OpenCV: decode, resize to 224 x 224, SIFT detect
    agnet   the work of `agnet propose` for an image: read, hash, decode, regions
    naive   OpenCV: decode, resize, SIFT detectAndCompute; scikit-learn: GaussianMixture; one box per component

and then the steps of agnet are timed one by one. On all cores, whole runs take turns: floor with one process per core
(the limit of the machine), agnet (`propose_dataset` into a file) with one worker and with all, naive with joblib, one
image per task. Efficiency is the throughput of all cores divided by their number times that of one. Finally, a run of
32 images from the shell is timed, including all start-up, and the same command again.

With --clips, DIR contains videos instead, and only the first comparison is made, in processor time of all threads:

    floor         OpenCV: decode all frames; resize those with regions to 224 x 224, SIFT detect
    agnet         the work of `agnet propose` for a clip
    agnet in time the same with --tubes space-time
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import joblib
import numpy as np
import threadpoolctl
from sklearn.mixture import GaussianMixture

from agnet.data.images import IMAGE_SUFFIXES, decode_image
from agnet.data.memory import keep_freed_memory
from agnet.data.sets.catalogue import open_dataset
from agnet.data.videos import VIDEO_SUFFIXES
from agnet.proposals.hulls import Groups, count_distinct, regions_of_groups
from agnet.proposals.mixture import fit_mixture, initial_labels
from agnet.proposals.run import CHUNK_IMAGES, propose_dataset
from agnet.proposals.settings import CLIP_FRAMES, SPACE_TIME, ProposalSettings
from agnet.proposals.sift import detect_keypoints, seed_of, squash
from agnet.proposals.worker import propose_chunk

SETTINGS, CLIPS = ProposalSettings(), ProposalSettings(frames=CLIP_FRAMES)
Milliseconds = dict[str, list[float]]


def _squashed(path: str) -> np.ndarray:
    image = cv2.imread(path)
    assert image is not None, path
    return cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA)


def floor(paths: list[str]) -> None:
    keep_freed_memory()
    cv2.setNumThreads(1)
    sift = cv2.SIFT.create()
    for path in paths:
        sift.detect(_squashed(path), None)


def agnet(paths: list[str]) -> None:
    propose_chunk("/", SETTINGS, None, paths)


def naive_image(path: str) -> None:
    """Propose boxes the obvious way, with the default threads of OpenCV and the default settings of malloc."""
    keypoints, _ = cv2.SIFT.create().detectAndCompute(_squashed(path), None)
    points = np.array([keypoint.pt for keypoint in keypoints])
    if len(points) < 8:
        return
    labels = GaussianMixture(8, random_state=0).fit_predict(points)
    for component in range(8):
        mine = points[labels == component]
        if len(mine):
            np.concatenate([mine.min(axis=0), mine.max(axis=0)])


def naive(paths: list[str]) -> None:
    for path in paths:
        naive_image(path)


def steps(path: str, taken: Milliseconds) -> None:
    """Run stage 1 on one image and time each step."""

    def timed(step: str, function: Callable, *arguments: object) -> Any:
        start = time.perf_counter()
        result = function(*arguments)
        taken.setdefault(step, []).append((time.perf_counter() - start) * 1e3)
        return result

    content = timed("read", Path(path).read_bytes)
    image = timed("decode", decode_image, content)
    grey = timed("squash", squash, image, 224)
    found = timed("detect", detect_keypoints, grey)
    distinct = timed("distinct", count_distinct, found)
    if distinct < SETTINGS.primary:
        return
    seed = timed("seed", seed_of, 0, found)
    start = timed("k-means", initial_labels, found.astype(np.float64), 8, seed)
    mixture = timed("mixture", fit_mixture, found.astype(np.float64), start, 8)
    groups = Groups(found, mixture.labels, mixture.weights, mixture.means, distinct)
    timed("hulls", regions_of_groups, groups, SETTINGS.layout, "weight", (224, 224))


def clip_floor(path: str) -> None:
    sift = cv2.SIFT.create(nfeatures=CLIPS.keypoints)
    video = cv2.VideoCapture(path)
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    sampled = {int((part + 0.5) * count / CLIPS.frames) for part in range(CLIPS.frames)}
    number = 0
    while True:
        there, frame = video.read()
        if not there:
            break
        if number in sampled:
            sift.detect(cv2.resize(frame, (224, 224), interpolation=cv2.INTER_AREA), None)
        number += 1


def clips(paths: list[str], repeats: int) -> None:
    pipelines: dict[str, Callable[[str], object]] = {
        "floor": clip_floor,
        "agnet": lambda path: propose_chunk("/", CLIPS, None, [path]),
        "agnet in time": lambda path: propose_chunk("/", replace(CLIPS, tubes=SPACE_TIME), None, [path]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in pipelines}
    for path in paths:
        for name, run in pipelines.items():
            seconds[name].append(min(_seconds(run, path, clock=time.process_time) for _ in range(repeats)))
    print(f"\n{len(paths)} clips, processor time, best of {repeats} turns for each clip")
    print(f"{'':14}{'ms per clip':>12}{'ratio to the floor':>20}")
    for name, taken in seconds.items():
        print(f"{name:14}{sum(taken) / len(paths) * 1e3:12.1f}{sum(taken) / sum(seconds['floor']):20.2f}")


def one_thread(paths: list[str], repeats: int) -> None:
    pipelines = [floor, agnet, naive]
    for pipeline in pipelines:  # imports and first calls
        pipeline(paths[:4])
    seconds: dict[str, list[float]] = {pipeline.__name__: [] for pipeline in pipelines}
    taken: Milliseconds = {}
    for at in range(0, len(paths), CHUNK_IMAGES):
        chunk = paths[at : at + CHUNK_IMAGES]
        for pipeline in pipelines:
            best = min(_seconds(pipeline, chunk) for _ in range(repeats))
            seconds[pipeline.__name__].append(best)
        for path in chunk:
            steps(path, taken)
    print(f"\none thread, best of {repeats} turns for each {CHUNK_IMAGES} images")
    print(f"{'':8}{'ms per image':>12}{'ratio to the floor':>20}")
    for name, chunks in seconds.items():
        print(f"{name:8}{sum(chunks) / len(paths) * 1e3:12.2f}{sum(chunks) / sum(seconds['floor']):20.2f}")
    print("agnet's steps, median ms: " + ", ".join(f"{step} {np.median(ms):.3f}" for step, ms in taken.items()))


def all_cores(folder: Path, paths: list[str], repeats: int) -> None:
    cores = joblib.cpu_count()
    index = open_dataset("folder", folder)
    split = [paths[core::cores] for core in range(cores)]

    def propose(jobs: int) -> None:
        with tempfile.TemporaryDirectory() as place:
            propose_dataset(index, SETTINGS, Path(place) / "boxes.h5", jobs=jobs)

    runs: dict[str, tuple[Callable[[], object], int]] = {
        "floor, one process": (lambda: joblib.Parallel(2)(joblib.delayed(floor)(part) for part in [paths, []]), 1),
        "floor, all": (lambda: joblib.Parallel(cores)(joblib.delayed(floor)(part) for part in split), cores),
        "agnet, one worker": (lambda: propose(1), 1),
        "agnet, all": (lambda: propose(cores), cores),
        "naive, all": (lambda: joblib.Parallel(cores)(joblib.delayed(naive_image)(path) for path in paths), cores),
    }
    runs["floor, all"][0]()  # start the workers
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, (run, _) in runs.items():
            start = time.perf_counter()
            run()
            rates[name].append(len(paths) / (time.perf_counter() - start))
    print(f"\n{cores} cores, {len(paths)} images, best of {repeats} turns")
    print(f"{'':20}{'images/s':>16}{'efficiency':>12}")
    for name, (_, processes) in runs.items():
        alone = rates.get(f"{name.split(',')[0]}, one process") or rates.get(f"{name.split(',')[0]}, one worker")
        share = f"{max(rates[name]) / processes / max(alone):12.0%}" if alone and processes > 1 else ""
        print(f"{name:20}{max(rates[name]):16.0f}{share}")


def start_up(paths: list[str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        for number, path in enumerate(paths):
            copy = Path(place) / "images" / str(number % 2) / f"{number}{Path(path).suffix}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        command = [sys.executable, "-m", "agnet", "propose", "--dataset", "folder", "--root", f"{place}/images"]
        command += ["--boxes", f"{place}/boxes.h5"]

        def run(*options: str) -> None:
            subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        whole, again = (min(_seconds(run, *options) for _ in range(3)) for options in (["--restart"], []))
    print(f"\n{len(paths)} images from the shell to the finished file: {whole:.2f} s; when it exists: {again:.2f} s")


def _seconds(function: Callable, *arguments: object, clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    function(*arguments)
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=300, help="number of images for one thread")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clips", action="store_true", help="DIR contains videos")
    arguments = parser.parse_args()
    suffixes = VIDEO_SUFFIXES if arguments.clips else IMAGE_SUFFIXES
    found = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in suffixes)
    if arguments.clips and found:
        cv2.setNumThreads(1)
        some = [str(path.resolve()) for path in found[:: max(1, len(found) // arguments.images)]]
        with threadpoolctl.threadpool_limits(1):
            clips(some[: arguments.images], arguments.repeats)
        return
    readable = [str(path.resolve()) for path in found if cv2.imread(str(path)) is not None]
    open_dataset("folder", arguments.folder)  # fails now rather than after the first part
    if not readable:
        parser.error(f"no readable images under {arguments.folder}")
    some = readable[:: max(1, len(readable) // arguments.images)][: arguments.images]
    processor = next((line.split(":")[1].strip() for line in _cpuinfo() if "model name" in line), platform.machine())
    print(f"{len(readable)} images, {processor}, {os.cpu_count()} cores, OpenCV {cv2.__version__}")

    keep_freed_memory()  # for all pipelines: without it any of them can take twice as long, depending on the heap
    cv2.setNumThreads(1)
    with threadpoolctl.threadpool_limits(1):
        one_thread(some, arguments.repeats)
    all_cores(arguments.folder, readable, arguments.repeats)
    start_up(some[:32])


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


if __name__ == "__main__":
    main()
