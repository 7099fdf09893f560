"""Training curves of a run: `curves.png`, and an event file for TensorBoard if that is installed."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...data.files import atomic_file

Line = Mapping[str, object]  #: one epoch of the log: values by name

CURVES, EVENTS = "curves.png", "tensorboard/events.out.tfevents.agnet"
_TRAIN, _VAL, _CMC, _CHOSEN, _LR = (
    "#0072b2",
    "#d55e00",
    "#cc79a7",
    "#009e73",
    "#555555",
)  # distinguishable with colour blindness


def draw_curves(lines: Sequence[Line], target: Path, title: str = "") -> Path:
    """Draw loss, top-1 accuracy and learning rate over the epochs; the chosen epoch is the last one marked ``best``.

    Args:
        lines: Lines of the log, at least one.
        target: PNG file to write; replaced only once the new picture is complete.
        title: Title of the figure, in any script.

    Returns: ``target``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # without pyplot: no window, no global state
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(12, 3.8), dpi=100)
    # Matplotlib's automatic layouts draw everything twice.
    figure.subplots_adjust(left=0.05, right=0.985, bottom=0.13, top=0.84 if title else 0.91, wspace=0.2)
    FigureCanvasAgg(figure)
    loss, accuracy, rate = figure.subplots(1, 3)
    _draw(loss, lines, "train_loss", _TRAIN, "train")
    _draw(loss, lines, "val_loss", _VAL, "validation")
    _draw(accuracy, lines, "train_top1", _TRAIN, "train")
    _draw(accuracy, lines, "val_top1", _VAL, "validation")
    searches = any("val_cmc1" in line for line in lines)
    if searches:
        _draw(accuracy, lines, "val_map", _VAL, "validation mAP")
    _draw(accuracy, lines, "val_cmc1", _CMC, "validation CMC@1")
    measured = ("Top-1 accuracy of persons, and search", "map") if searches else ("Top-1 accuracy", "top1")
    _draw(rate, lines, "lr", _LR, "")
    chosen = [line for line in lines if line.get("best")][-1:]
    for axes, name, key in ((loss, "Loss", "loss"), (accuracy, *measured), (rate, "Learning rate", "")):
        axes.set_title(name)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        for line in chosen if key else []:
            shown = f"val_{key}" if f"val_{key}" in line else "train_loss" if key == "loss" else "train_top1"
            _mark(axes, line, shown, percent=key != "loss")
            axes.legend(edgecolor="none", framealpha=0.5)  # the legend may cover curves
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    accuracy.set_ylim(-0.03, 1.03)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))  # long numbers would run into the next axes
    rate.set_ylim(0, 1.05 * max((float(str(line["lr"])) for line in lines if line.get("lr")), default=1.0))
    if title:
        from . import plot_texts

        said, family = plot_texts.line(title, 12, 11.5)
        figure.suptitle(said, fontsize=12, family=family, parse_math=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as unfinished:
        figure.savefig(unfinished, format="png", metadata={"Software": None})
    return target


def _draw(axes, lines: Sequence[Line], key: str, colour: str, label: str) -> None:  # type: ignore[no-untyped-def]
    points = [(line["epoch"], line[key]) for line in lines if line.get(key) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), color=colour, label=label, marker="o" if len(points) < 40 else "", ms=3)


def _mark(axes, line: Line, key: str, percent: bool) -> None:  # type: ignore[no-untyped-def]
    value = float(str(line[key]))
    said = f"{value:.1%}" if percent else f"{value:.3f}"
    axes.axvline(line["epoch"], color=_CHOSEN, lw=1, ls="--")
    axes.plot(
        [line["epoch"]],
        [value],
        "o",
        ms=9,
        mfc="none",
        mec=_CHOSEN,
        mew=2,
        label=f"chosen: epoch {line['epoch']}, {said}",
    )


def tensorboard_installed() -> bool:
    """Whether TensorBoard is installed, so that `append_events` writes a file. Does not import it."""
    return importlib.util.find_spec("tensorboard") is not None


def append_events(run: Path, lines: Sequence[Line], anew: bool = False) -> None:
    """Append lines of the log to the run's TensorBoard event file; does nothing without TensorBoard.

    Args:
        anew: Whether to start a new file, which then holds these lines only.
    """
    if not tensorboard_installed():
        return
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    # PyTorch's SummaryWriter would put the host name into the file name.
    target = run / EVENTS
    target.parent.mkdir(exist_ok=True)
    anew = anew or not target.exists()
    with target.open("wb" if anew else "ab") as file:
        writer = RecordWriter(file)
        if anew:
            writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        for line in lines:
            values = [
                Summary.Value(tag=_tag(name), simple_value=float(value))
                for name, value in line.items()
                if isinstance(value, (int, float)) and name not in ("epoch", "best")
            ]
            event = Event(wall_time=time.time(), step=int(str(line["epoch"])), summary=Summary(value=values))
            writer.write(event.SerializeToString())
        writer.flush()


def _tag(name: str) -> str:
    """TensorBoard tag of a log entry: ``val_loss`` -> ``loss/val``, so that related curves are shown side by side."""
    part, _, figure = name.partition("_")
    return f"{figure}/{part}" if part in ("train", "val") else f"run/{name}"
