"""`agnet predict`: photographs that are in no data set."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..proposals.settings import ProposalSettings, name_of_weights
from . import options

if TYPE_CHECKING:
    import numpy as np


@click.command()
@options.run
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Classes to name.")
@click.option("--save", type=click.Path(path_type=Path), help="A folder for pictures: regions, evidence, prediction.")
@click.option(
    "--proposal-weights",
    type=click.Path(path_type=Path),
    help="The FILE given to propose --weights, where regions come from a network.",
)
@options.device
@options.json_
def predict(
    run: Path,
    images: tuple[Path, ...],
    top: int,
    save: Path | None,
    proposal_weights: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Classify photographs (files or folders), proposing their regions on the fly if the model looks at any.

    An unreadable image is reported and the rest go on; the exit code is then 1.
    """
    from PIL import Image

    from ..data.errors import ImageError
    from ..data.images import read_image
    from ..data.memory import keep_network_memory
    from ..proposals.one_image import propose_regions
    from ..training.checkpoints import load_checkpoint
    from ..training.devices import choose_device
    from ..training.figures import draw_prediction
    from ..training.predict import predict as predict_images
    from ..training.run_folder import BEST

    keep_network_memory()
    checkpoint = load_checkpoint(run / BEST)
    settings = ProposalSettings.from_dict(checkpoint.proposals)
    if checkpoint.regions and settings.weights != name_of_weights(proposal_weights):
        raise click.ClickException(
            f"the regions of {run} were proposed by {settings.method} with other weights; give that file with "
            "--proposal-weights"
        )
    failed = predicted = 0

    def read() -> Iterator[tuple[str, np.ndarray]]:
        nonlocal failed
        for path in _image_files(images):
            try:
                yield str(path), read_image(path)
            except ImageError as error:
                failed += 1
                click.echo(f"Error: {error}", err=True)

    results = predict_images(
        checkpoint,
        read(),
        lambda image: propose_regions(image, settings, proposal_weights),
        choose_device(device),
        top,
        evidence=save is not None,
    )
    for prediction, image in results:
        predicted += 1
        answer = dict(zip(prediction.classes, prediction.probabilities, strict=True))
        if as_json:
            click.echo(json.dumps({"image": prediction.name, "probabilities": answer}))
        else:
            ranked = "  ".join(f"{name} {share:.1%}" for name, share in answer.items())
            click.echo(f"{prediction.name}: {ranked}")
        if save:
            save.mkdir(parents=True, exist_ok=True)
            target = _new_file(save, Path(prediction.name))
            Image.fromarray(draw_prediction(image, prediction)).save(target)
            click.echo(f"written: {target}", err=True)
    if not predicted and not failed:
        raise click.ClickException(f"no images in {', '.join(map(str, images))}")
    if failed:
        sys.exit(1)


def _new_file(folder: Path, image: Path) -> Path:
    """A name for an image's picture that is not taken: class-photo.png, class-photo-2.png, ..."""
    name = "-".join([*image.parts[-2:-1], image.stem]).lstrip(".-/") or "image"
    numbered = (folder / f"{name}-{number}.png" for number in itertools.count(2))
    return next(path for path in itertools.chain([folder / f"{name}.png"], numbered) if not path.exists())


def _image_files(paths: tuple[Path, ...]) -> Iterator[Path]:
    from ..data.images import IMAGE_SUFFIXES

    for path in paths:
        if path.is_dir():
            images = (file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
            yield from sorted(file for file in images if not file.name.startswith("."))
        else:
            yield path
