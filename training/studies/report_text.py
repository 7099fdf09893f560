"""The results of a study as text, Markdown and CSV."""

from __future__ import annotations

from ...data.text import duration, markdown, markdown_table, printable, rough_time, table
from ..measure.compare import Difference, p_text
from ..measure.evaluation_report import rows_csv, spread_texts
from .table import Line, OverSplits, Results, Table, Times

_CSV_COLUMNS = (
    *("data", "row", "seeds", "seeds_wanted", "measure", "mean", "sd", "difference", "difference_low"),
    *("difference_high", "p", "p_holm", "mcnemar_p_by_seed", "training_seconds", "parameters", "gflops"),
)


def results_text(results: Results) -> str:
    """Format results as text: a table for each data set, what the numbers are, and the time."""
    blocks = [printable(results.title)]
    for one in results.tables:
        blocks.append("\n".join([heading(one), *table(cells(one)), *basis(one, results)]))
    for several in results.over_splits:
        blocks.append("\n".join([splits_heading(several), *table(split_cells(several)), splits_basis(several)]))
    return "\n\n".join([*blocks, *([times_text(results.times)] if results.times else [])])


def results_markdown(results: Results) -> str:
    """Format results as Markdown."""
    blocks = [f"# {markdown(results.title)}"]
    for one in results.tables:
        blocks += [
            f"## {markdown(heading(one))}",
            markdown_table(cells(one)),
            "\n".join(f"- {markdown(said)}" for said in basis(one, results)),
        ]
        notes = [f"- **{markdown(line.row)}**: {markdown(line.note)}" for line in one.lines if line.note]
        blocks += ["\n".join(notes)] if notes else []
        if one.cautions:
            blocks.append(
                "\n".join(["Differences and limitations:\n", *(f"- {markdown(said)}" for said in one.cautions)])
            )
    for several in results.over_splits:
        blocks += [
            f"## {markdown(splits_heading(several))}",
            markdown_table(split_cells(several)),
            splits_basis(several),
        ]
    return "\n\n".join([*blocks, *([times_text(results.times)] if results.times else [])]) + "\n"


def results_csv(results: Results) -> str:
    """Format results as CSV, one row per data set, row and measure; values that are not known are empty."""
    rows: list[list[object]] = []
    for one in results.tables:
        for line in one.lines:
            rows += [_csv_row(one, line, name) for name in one.measures]
    return rows_csv(_CSV_COLUMNS, rows)


def _csv_row(one: Table, line: Line, name: str) -> list[object]:
    value = line.measures.get(name)
    tested = name == next(iter(one.measures))
    found = line.differences.get(name)
    ends = [found.value, found.interval.low, found.interval.high] if found else [None] * 3
    by_seed = " ".join(f"{seed}:{p:.3g}" for seed, p in line.mcnemar.items()) if tested else ""
    return [
        *(one.data, line.row, len(line.seeds), line.wanted, name, value and value.mean, value and value.sd),
        *(*ends, *((line.p, line.p_holm) if tested else (None, None)), by_seed),
        *(line.seconds, line.parameters, line.gflops),
    ]


# --- parts that the page has, too


def heading(one: Table) -> str:
    """Data set, split and number of images."""
    counted = f", {one.images:,} images" if one.images else ""
    return f"{one.data}{f' ({one.title})' if one.title else ''}, {one.split}{counted}"


def cells(one: Table) -> list[list[str]]:
    """The table as text, headings first."""
    titles = [*one.measures.values()]
    several = any(line.wanted > 1 for line in one.lines)
    tested = f"{titles[0]} minus {one.lines[0].row}"
    rows = [["row", *titles, tested, "95% interval", "p", "Holm p", *(["McNemar p by seed"] if several else [])]]
    rows[0] += ["training", "M parameters", "GFLOPs"]
    for line in one.lines:
        row = [f"{line.row}{f' ({line.state})' if line.state else ''}"]
        row += [spread_texts(name, line.measures[name])[0] if name in line.measures else "–" for name in one.measures]
        row += [*difference_cells(line.difference), _p(line.p), _p(line.p_holm)]
        row += [", ".join(_p(p) for p in line.mcnemar.values()) or "–"] if several else []
        rows.append([*row, *cost_cells(line)])
    return rows


def difference_cells(found: Difference | None) -> list[str]:
    if found is None:
        return ["–", "–"]
    return [f"{100 * found.value:+.2f}", f"{100 * found.interval.low:+.2f} to {100 * found.interval.high:+.2f}"]


def cost_cells(line: Line) -> list[str]:
    return [
        "–" if line.seconds is None else duration(line.seconds),
        "–" if line.parameters is None else f"{line.parameters / 1e6:.2f}",
        "–" if line.gflops is None else f"{line.gflops:.2f}",
    ]


def _p(p: float | None) -> str:
    return "–" if p is None else p_text(p)


def basis(one: Table, results: Results) -> list[str]:
    """What the numbers of a table are."""
    compared, others = any(line.difference is not None for line in one.lines), len(one.lines) - 1
    seeds = ", ".join(map(str, results.seeds))
    lines = [f"mean ± sd over seeds {seeds}" if len(results.seeds) > 1 else f"one seed, {seeds}: another may differ"]
    if compared:
        over = "images and seeds" if len(results.seeds) > 1 else "images; p is McNemar's"
        lines.append(
            f"differences in points, on the same images; 95% intervals and p over {over}; Holm p is corrected for the "
            f"{others} row{'s' if others > 1 else ''} besides {one.lines[0].row}"
        )
    lines.append("training: mean time of a seed with starting up; GFLOPs of one image, two for a multiply-add")
    if missing := [line.row for line in one.lines if line.state]:
        lines.append(f"not finished, and so not compared: {', '.join(missing)}")
    return [*lines, *([f"rows cannot be compared: {one.trouble}"] if one.trouble else [])]


def splits_heading(several: OverSplits) -> str:
    return f"{several.data}, over {several.splits} splits"


def split_cells(several: OverSplits) -> list[list[str]]:
    """The table over repeated splits as text, headings first."""
    rows = [["row", several.measure, f"minus {several.lines[0].row}", "95% interval", "p", "Holm p"]]
    for line in several.lines:
        value = spread_texts("top1", line.value)[0]
        rows.append([line.row, value, *difference_cells(line.difference), _p(line.p), _p(line.p_holm)])
    return rows


def splits_basis(several: OverSplits) -> str:
    """What the numbers over splits are."""
    return (
        "mean ± sd over splits, each the mean over seeds; intervals and p by Nadeau and Bengio's test (2003), which "
        "allows for the training images that splits share"
    )


def times_text(times: Times) -> str:
    return (
        f"time of {times.units} commands: predicted {rough_time(times.predicted)}, real {rough_time(times.real)} "
        f"({times.real / times.predicted:.2f} times)"
    )
