"""Pictures of some explanations of a split, beside the file of its proof."""

from __future__ import annotations

from pathlib import Path

from ...data.text import file_name
from .explain import Explanation
from .explained_pictures import draw_explanation, full_colour
from .pictures import Caption
from .proof import DELETION, RANDOM
from .split_proof import ProvenSplit, SplitImages, worth_seeing
from .truth import KnownImages


def draw_split(
    folder: Path,
    images: SplitImages,
    proven: ProvenSplit,
    explained: list[Explanation],
    classes: tuple[str, ...],
    run: str,
) -> list[dict[str, str]]:
    """Draw the explanations that are worth seeing, all on one scale, replacing those of an earlier proof.

    Args:
        folder: Folder for the pictures, which is created.
        images: Photographs of the split.
        proven: Their proof.
        explained: Their explanations.
        classes: Names of the network's classes, in its order.
        run: Line of text that names the run.

    Returns: entries for the file of the proof.
    """
    folder.mkdir(exist_ok=True)
    for old in (*folder.glob("[1-9]-*.png"), *folder.glob("[1-9]-*.svg")):
        old.unlink()
    seen = worth_seeing(proven.images)
    full, known = full_colour(explained[number] for number, _ in seen), KnownImages(images.boxes, images.root)
    entries = []
    for place, (number, why) in enumerate(seen, start=1):
        one, image = explained[number], proven.images[number]
        caption = Caption(classes, run, truth=known.truth(str(images.root / image.name)))
        canvas = draw_explanation(images.read(image.name), one, full, caption, f"Shown as {why}. {_over(proven)}")
        path = canvas.save(folder / f"{place}-{file_name(Path(image.name).stem)}.png")
        entries.append(
            {
                "image": image.name,
                "why": why,
                "file": path.relative_to(folder.parent).as_posix(),
                "class": image.this,
                "truth": image.truth,
            }
        )
    return entries


def _over(proven: ProvenSplit) -> str:
    """What the proof over the split says about the panel of a single photograph."""
    fill, found = next(iter(proven.fills.items()))
    minus, better = found[f"{DELETION}_minus"][RANDOM], proven.is_better(DELETION, fill)
    said = {True: "better than random orders", False: "worse than random orders", None: "no better than random here"}
    interval = f"{minus['mean']:+.3f} ({minus['low']:+.3f} to {minus['high']:+.3f})"
    return f"Over {len(proven.images):,} images of {proven.split}, area minus random {interval}: {said[better]}."
