"""`agnet compare`: a paired comparison of runs on the same images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options, viewing

if TYPE_CHECKING:
    from ..training.aggregates import Aggregate
    from ..training.models.contract import Views

SAVED_AS = (".png", ".svg", ".md", ".csv", ".json")


@click.command(cls=viewing.SizesCommand, short_help="Compare runs on the same images, with significance tests.")
@click.argument("runs", nargs=-1, required=True, type=options.RunPath(reads=False))
@click.option(
    "--split",
    type=options.Choice(["train", "val", "test", "query"]),
    help="Split that all runs were evaluated on.  [default: test, or query]",
)
@options.aggregate
@viewing.views
@click.option(
    "--save",
    type=click.Path(path_type=Path),
    help="FILE for the comparison: .png, .svg, .md, .json, or .csv (one row per class, or per measure of a search); or "
    "a FOLDER for all of them, comparison.json and so on.",
)
@options.json_
def compare(
    runs: tuple[Path, ...],
    split: str | None,
    aggregate: Aggregate | None,
    sizes: Views | None,
    crops: Views | None,
    save: Path | None,
    as_json: bool,
) -> None:
    """Compare runs, or folders of several seeds, with the first one: a paired comparison on the same images.

    The predictions that agnet evaluate wrote are compared: two single runs by McNemar's exact test and a paired
    bootstrap, several seeds by a test in which images and seeds vary. With more than two runs, p-values are corrected
    by Holm's method. With --sizes or --crops, the predictions of agnet evaluate with the same option are compared; a
    run that is named alone is then compared with itself as trained.
    """
    from ..training.runs.folder import measured_split, predictions_of, runs_of

    views: list[Views | None] = [viewing.views_in(sizes, crops)] * len(runs)
    if len(runs) == 1 and views[0]:
        runs, views = runs * 2, [None, *views]
    if len(runs) < 2:
        raise click.UsageError("name at least two runs: agnet compare RUN RUN")
    if save is not None:
        _check_place(save)
    for run in runs:
        runs_of(run)
    split = split or measured_split(runs_of(runs[0])[0])
    files = [predictions_of(run, split, aggregate, views=its) for run, its in zip(runs, views, strict=True)]
    if views[0] != views[-1] and files[0] == files[-1]:
        raise click.UsageError(f"{runs[0]} was trained with {views[-1]}: name a run to compare it with")
    # Imported here: SciPy takes a second to load.
    from ..training.measure.compare import compare_runs
    from ..training.measure.compare_report import comparison_json, comparison_text, save_comparison

    comparison = compare_runs(runs, split, aggregate, views=views)
    click.echo(comparison_json(comparison) if as_json else comparison_text(comparison), nl=not as_json)
    if save is not None:
        from ..training.runs.plot_texts import cannot_label

        classes = [change.name for change in comparison.challenges[0].classes]
        if save.suffix.lower() not in (".md", ".csv", ".json") and (said := cannot_label([*classes, *map(str, runs)])):
            click.echo(said, err=True)
        click.echo(f"written: {save_comparison(comparison, save)}", err=True)


def _check_place(save: Path) -> None:
    """Raise `click.UsageError` or `ConfigurationError` unless the comparison can be saved there."""
    from ..data.files import check_folder_writable, check_writable

    is_file = save.suffix.lower() in SAVED_AS
    if not is_file and save.suffix and not save.is_dir():
        raise click.UsageError(f"--save {save}: its name must end in {', '.join(SAVED_AS)}, or be that of a folder")
    if not save.parent.is_dir():
        raise click.UsageError(f"--save {save}: there is no folder {save.parent}")
    if is_file:
        check_writable(save, "name another file with --save")
    else:
        check_folder_writable(save, "name another folder with --save")
