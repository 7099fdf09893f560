"""Hits, false alarms and time of the search for near-duplicates (`data/sets/near_duplicates.py`).

    python benchmarks/near_duplicates.py DIR OTHER [--sheet alike.png]

DIR and OTHER contain photographs of different things, such as flowers and people, so that every pair found between them
is a false alarm. The benchmark counts the pairs found within each folder and between them, measures how many modified
copies are found, and times 25,000 hashes against 75,000 random ones (seed 0). ``--sheet`` draws every pair found within
a folder, for visual inspection.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from agnet.data.drawing import contact_sheet
from agnet.data.images import IMAGE_SUFFIXES, read_image
from agnet.data.sets.near_duplicates import DISTANCE, Looks, closest, look_of


def cropped(image: np.ndarray, share: float) -> np.ndarray:
    top, left = (round(side * share) for side in image.shape[:2])
    return image[top : image.shape[0] - top, left : image.shape[1] - left]


def saved_again(image: np.ndarray) -> np.ndarray:
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))


def written_across(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return cv2.putText(
        image.copy(), "SAMPLE", (width // 8, height // 2), cv2.FONT_HERSHEY_SIMPLEX, width / 160, (255,) * 3, 3
    )


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "saved again as JPEG, quality 50": saved_again,
    "half the size": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "grey": lambda image: cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
    "brighter by 30 %": lambda image: np.clip(image * 1.3, 0, 255).astype(np.uint8),
    "cut by 2 % on each side": lambda image: cropped(image, 0.02),
    "cut by 5 % on each side": lambda image: cropped(image, 0.05),
    "a word across": written_across,
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
}


def looks_of(found: list[tuple[int, bytes] | None]) -> Looks:
    looks = Looks.empty(len(found))
    for row, look in enumerate(found):
        if look is not None:
            looks.hashes[row], looks.flat[row] = look[0], False
            looks.thumbnails[row] = np.frombuffer(look[1], np.uint8)
    return looks


def pairs_within(looks: Looks, rows: np.ndarray) -> list[tuple[int, int]]:
    """Pair every image that looks like an earlier one with the most similar of those."""
    found = (closest(looks, rows[place : place + 1], rows[:place]) for place in range(1, len(rows)))
    return [(row, other) for each in found for row, other, *_ in each]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs=2, type=Path, metavar="DIR")
    parser.add_argument("--sheet", type=Path)
    arguments = parser.parse_args()
    files = [
        sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        for folder in arguments.folders
    ]
    everything = [*files[0], *files[1]]
    originals: list[tuple[int, bytes] | None] = []
    copies: dict[str, list[tuple[int, bytes] | None]] = {name: [] for name in CHANGES}
    for file in everything:
        image = read_image(file)
        originals.append(look_of(image))
        for name, change in CHANGES.items():
            copies[name].append(look_of(change(image)))
    looks, first = looks_of(originals), np.arange(len(files[0]))
    second = np.arange(len(files[0]), len(everything))
    pairs = [pairs_within(looks, rows) for rows in (first, second)]
    for folder, rows, found in zip(arguments.folders, (first, second), pairs, strict=True):
        print(f"{folder.name}: {len(rows):,} images, {len(found)} look like an earlier one")
    between = len(list(closest(looks, first, second)))
    by_hash = len(list(closest(looks, first, second, DISTANCE, -1.0)))
    print(f"between them: {len(first) * len(second):,} pairs, {between} images found; by the hash alone {by_hash}")
    for name, changed in copies.items():
        theirs = looks_of(changed)
        hits = 0
        for row in range(len(everything)):
            both = Looks(
                *(
                    np.stack([mine[row], copy[row]])
                    for mine, copy in zip(vars(looks).values(), vars(theirs).values(), strict=True)
                )
            )
            hits += len(list(closest(both, np.array([1]), np.array([0]))))
        print(f"{name:34}{hits / len(everything):8.1%} found")
    generator = np.random.default_rng(0)
    many = Looks(
        generator.integers(0, 2**63, 100_000, np.uint64), np.zeros((100_000, 64), np.uint8), np.zeros(100_000, np.bool_)
    )
    start = time.perf_counter()
    list(closest(many, np.arange(25_000), np.arange(25_000, 100_000)))
    print(f"25,000 against 75,000 hashes: {time.perf_counter() - start:.1f} s")
    if arguments.sheet:
        drawn = [read_image(everything[row]) for pair in (*pairs[0], *pairs[1]) for row in pair]
        Image.fromarray(contact_sheet(drawn, 16, (96, 96))).save(arguments.sheet)


if __name__ == "__main__":
    main()
