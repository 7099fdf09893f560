"""Training curves of a run: `curves.png` and `curves.svg`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...data.palette import FAINT, SERIES, TEXT
from ..recipes import Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Line = Mapping[str, object]  #: one epoch of the log: values by name

CURVES, VECTOR = "curves.png", "curves.svg"
_TRAIN, _VAL, _CHOSEN, _CMC, _LR = SERIES
_MAP = _CMC  # searches have no mAP of classes
_SIDES = 12.0, 4.1  # inches
_APART = 0.075  # of the height of the axes, least distance between the names of two lines


class _Curve(NamedTuple):
    name: str
    colour: str
    style: str = "-"


def draw_curves(lines: Sequence[Line], target: Path, title: str = "", note: str = "", selected_by: str = "") -> Path:
    """Draw loss, top-1 accuracy and learning rate over the epochs as a PNG and an SVG, and mAP of searches.

    Every line has its name at its end; the chosen epoch is the last one marked ``best``.

    Args:
        lines: Lines of the log, at least one.
        target: PNG to write, replaced only once the new picture is complete; the SVG is beside it.
        title: Title of the figure, in any script.
        note: How the values were measured, in a line below the plots.
        selected_by: Measure of validation that chose the epoch; mAP of classes is drawn if it is ``val_map``.

    Returns: ``target``.
    """
    from matplotlib.ticker import PercentFormatter

    from .plots import plot, save_plot_to_publish

    with plot(*_SIDES) as figure:
        # Matplotlib's automatic layouts draw everything twice.
        top = 0.78 if title else 0.85
        figure.subplots_adjust(left=0.045, right=0.985, bottom=0.19 if note else 0.13, top=top, wspace=0.45)
        loss, accuracy, rate = figure.subplots(1, 3)
        searches = any("val_cmc1" in line for line in lines)
        names = {"train_loss": _Curve("train", _TRAIN), "val_loss": _Curve("validation", _VAL)}
        if any(line.get("train_cross_entropy") != line.get("train_loss") for line in lines):
            names["train_cross_entropy"] = _Curve("train, plain", _TRAIN, ":")
        _draw(loss, lines, names, "Loss, in nats", "val_loss")
        names = {"train_top1": _Curve("train", _TRAIN), "val_top1": _Curve("validation", _VAL)}
        if searches:
            names |= {"val_map": _Curve("mAP", _VAL), "val_cmc1": _Curve("CMC@1", _CMC)}
        measured = ("Top-1 of training persons, and search", "val_map") if searches else ("Top-1 accuracy", "val_top1")
        if selected_by == "val_map" and not searches:
            names["val_map"] = _Curve("validation mAP", _MAP)
            measured = ("Top-1 accuracy, and mAP", "val_map")
        _draw(accuracy, lines, names, *measured, percent=True)
        _draw(rate, lines, {"lr": _Curve("", _LR)}, "Learning rate", "")
        accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
        rate.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))  # long numbers would run into the next axes
        rate.yaxis.get_offset_text().set(ha="right", x=-0.02)  # not into the title
        rate.set_ylim(0, 1.05 * max((float(str(line["lr"])) for line in lines if line.get("lr")), default=1.0))
        _write(figure, 0.045, 0.93, title, 12, TEXT)
        _write(figure, 0.045, 0.03, note, 8.5, FAINT)
        target.parent.mkdir(parents=True, exist_ok=True)
        return save_plot_to_publish(figure, target, tight=False)


def how_measured(recipe: Recipe) -> str:
    """How the values of a run's log were measured, in one line: those of train and of validation differ."""
    labels = [f"labels smoothed by {recipe.label_smoothing:g}"] if recipe.label_smoothing else []
    labels += [f"pairs mixed (mixup {recipe.mixup:g})"] if recipe.mixup else []
    labels += [f"dropout {recipe.dropout:g}"] if recipe.dropout else []
    images = "augmented images" if recipe.augment else "images as they are"
    plain = " (plain: without smoothing)" if recipe.label_smoothing and not recipe.mixup else ""
    return (
        f"train: mean over the epoch, while the network learns, of {', '.join([images, *labels])}{plain}; "
        "validation: after the epoch, of images as they are"
    )


def _write(figure: Figure, x: float, y: float, text: str, points: float, colour: str) -> None:
    from .plot_texts import line

    if text:
        said, family = line(text, points, (0.985 - x) * _SIDES[0])
        figure.text(x, y, said, fontsize=points, family=family, color=colour, parse_math=False)


def _draw(
    axes: Axes,
    lines: Sequence[Line],
    names: Mapping[str, _Curve],
    title: str,
    chosen: str,
    percent: bool = False,
) -> None:
    """Draw the values of a log.

    Args:
        axes: Axes to draw into.
        lines: Lines of the log.
        names: Curve of each value, by its key in the log.
        title: Title of the axes.
        chosen: Key of the value that is marked at the chosen epoch, or of the first one if the log lacks it; none if
            empty.
        percent: Whether the values are shares.
    """
    from matplotlib.ticker import MaxNLocator

    ends = []
    for key, curve in names.items():
        points = [(float(str(line["epoch"])), float(str(line[key]))) for line in lines if line.get(key) is not None]
        if points:
            marker = "o" if len(points) < 40 else ""
            axes.plot(
                *zip(*points, strict=True), color=curve.colour, linestyle=curve.style, marker=marker, markersize=3
            )
            ends.append((curve.name, curve.colour, next((y for _, y in reversed(points) if isfinite(y)), 0.0)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.grid()
    if percent:
        axes.set_ylim(-0.03, 1.03)
    best = [line for line in lines if line.get("best")][-1:]
    axes.set_title(title, pad=22 if best else 8)
    for line in best if chosen else []:
        _mark(axes, line, chosen if chosen in line else next(iter(names)), names, percent)
    _name_ends(axes, ends)


def _mark(axes: Axes, line: Line, key: str, names: Mapping[str, _Curve], percent: bool) -> None:
    """Mark the chosen epoch and write its value below the title, where no curve is."""
    value, epoch = float(str(line[key])), float(str(line["epoch"]))
    axes.axvline(epoch, color=_CHOSEN, linewidth=1, linestyle="--")
    axes.plot([epoch], [value], "o", markersize=9, markerfacecolor="none", markeredgecolor=_CHOSEN, markeredgewidth=2)
    said = f"chosen: epoch {epoch:.0f}, {names[key].name} {f'{value:.1%}' if percent else f'{value:.3f}'}"
    axes.plot(
        [0.012],
        [1.055],
        "o",
        markersize=6,
        markerfacecolor="none",
        markeredgecolor=_CHOSEN,
        markeredgewidth=1.6,
        transform=axes.transAxes,
        clip_on=False,
    )
    axes.text(0.045, 1.03, said, fontsize=8.5, color=FAINT, transform=axes.transAxes)


def _name_ends(axes: Axes, ends: Sequence[tuple[str, str, float]]) -> None:
    """Write the names of lines beside their last values, in their colours and apart from each other."""
    low, high = axes.get_ylim()
    ordered = sorted(ends, key=lambda end: end[2])
    places = [(value - low) / (high - low) for *_, value in ordered]
    for _ in range(len(places)):
        for k, (below, above) in enumerate(pairwise(places)):
            push = max(0.0, _APART - (above - below)) / 2
            places[k], places[k + 1] = below - push, above + push
    for place, (name, colour, _) in zip(places, ordered, strict=True):
        axes.text(1.02, place, name, color=colour, va="center", transform=axes.transAxes)
