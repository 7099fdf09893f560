"""Time, memory and file size of `agnet propose` on a hundred thousand images, and the time to open the file again.

    python benchmarks/scale.py DIR [--images 101000]

The images of DIR are linked repeatedly under 101 classes until there are enough; repeated pixels change neither the
work nor the file. Memory is the proportional set size of each process, sampled throughout the run (Linux).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from agnet.data.boxes.reader import read_boxes, read_listing
from agnet.data.images import IMAGE_SUFFIXES

CLASSES = 101


def link_images(source: Path, target: Path, images: int) -> None:
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    for number in range(images):
        original = found[number % len(found)]
        place = target / f"class_{number % CLASSES:03d}" / f"{number // CLASSES:07d}{original.suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(original, place)
        except OSError:  # another disk
            shutil.copyfile(original, place)


def memory_mb(process: int) -> dict[int, float]:
    """Return the proportional set size in MB of a process and of each of its children, by process id."""
    family, taken = [process], {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == process:
            family.append(int(status.parent.name))
    for member in family:
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        taken[member] = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--images", type=int, default=101_000)
    arguments = parser.parse_args()
    # Next to the images, so that hard links are possible.
    with tempfile.TemporaryDirectory(prefix="agnet-scale-", dir=arguments.source.resolve().parent) as folder:
        measure(arguments.source, arguments.images, Path(folder))


def measure(source: Path, count: int, folder: Path) -> None:
    images, boxes = folder / "images", folder / "boxes.h5"
    link_images(source, images, count)
    command = [sys.executable, "-m", "agnet", "propose", "--dataset", "folder", "--root", str(images)]
    command += ["--boxes", str(boxes)]

    start = time.perf_counter()
    samples: list[tuple[float, dict[int, float]]] = []
    with subprocess.Popen([*command, "--restart"], stderr=subprocess.DEVNULL) as run:
        while run.poll() is None:
            samples.append((time.perf_counter() - start, memory_mb(run.pid)))
            time.sleep(2)
        if run.returncode:
            sys.exit("agnet propose failed; run it by hand to see why")
    whole = time.perf_counter() - start
    print(f"{count:,} images in {whole:.0f} s, {count / whole:.0f} per second")
    print(f"{'after':>8}{'parent MB':>12}{'workers MB':>30}")
    for at in range(1, 11):
        seconds, taken = samples[min(len(samples) - 1, len(samples) * at // 10)]
        parent = taken.get(run.pid, 0)
        others = sorted((mb for process, mb in taken.items() if process != run.pid), reverse=True)
        workers = " ".join(f"{mb:.0f}" for mb in others)
        print(f"{seconds:7.0f}s{parent:12.0f}{workers:>30}")

    print(f"the file: {boxes.stat().st_size / 1e6:.1f} MB")
    for what, function in (("all of it", read_boxes), ("its images", read_listing)):
        start = time.perf_counter()
        function(boxes)
        print(f"reading {what}: {time.perf_counter() - start:.2f} s")
    start = time.perf_counter()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    print(f"the same command again: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
