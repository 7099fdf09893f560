"""The page: one HTML file that needs no network and no server, loads nothing and runs only its own script."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from ...data.boxes.reader import Boxes
from ...data.errors import ConfigurationError
from ...data.files import write_text
from ...data.places import without_paths
from ...data.text import percent, printable, rough_size
from ..measure.evaluation_report import number
from ..runs.folder import runs_of
from . import sections, words
from .facts import Facts, Row, read_facts
from .pictures import LEVELS, Embedded, Level, Photographs, explanation
from .style import style_sheet

MOST_BYTES = 5_000_000
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Card:
    """An image with its answer."""

    row: Row
    pictures: tuple[Embedded, ...]
    true: int  #: place of the true class in the list of classes
    taken: int  #: place of the answer
    tip: str
    badges: tuple[str, ...]


@dataclass(frozen=True)
class Written:
    """The page that was written, its size, and how many photographs are in it."""

    file: Path
    bytes: int
    photographs: int


def write_report(
    run: Path,
    target: Path,
    split: str,
    *,
    boxes: Boxes | None = None,
    root: Path | None = None,
    against: Path | None = None,
    images: bool = True,
) -> Written:
    """Write the page about a run, or about runs of several seeds.

    Args:
        target: HTML file to write.
        split: Split that the run was evaluated on.
        boxes: Boxes file of the run, for what it says about the data set.
        root: Folder of the data set, for photographs.
        against: Run to compare with.
        images: Whether to embed photographs.

    Raises: as `read_facts`.
    """
    facts = read_facts(run, split, boxes, against)
    photographs = Photographs(root if images else None, facts.boxes)
    folder = runs_of(run)[0]
    for level in LEVELS if images else LEVELS[-1:]:
        text, embedded = render(facts, photographs, level, folder if images else None)
        size = len(text.encode("utf-8"))
        if size < MOST_BYTES:
            write_text(target, text)
            return Written(target, size, embedded)
    raise ConfigurationError(
        f"the page would have {rough_size(size)} without a photograph, more than {rough_size(MOST_BYTES)}: the run has "
        "too many classes for one page; agnet evaluate --csv lists them"
    )


def render(facts: Facts, photographs: Photographs, level: Level, folder: Path | None) -> tuple[str, int]:
    """The page as HTML, and the number of photographs in it.

    Args:
        folder: Folder of the first single run, with the pictures of explanations; None to leave them out.
    """
    style, script = style_sheet(), _script()
    mistakes, others = _mistakes(facts), _others(facts)
    wrong = _cards(facts, mistakes[: level.mistakes], photographs, level)
    unsure = _cards(facts, others[: level.others], photographs, level)
    explained = list(_explained(facts, folder, level))
    previews = photographs.previews(level, facts.split)
    embedded = sum(len(card.pictures) for card in [*wrong, *unsure]) + len(explained) + len(previews)
    functions = {"words": words, "charts": sections, "percent": percent, "number": number}
    text = _template().render(
        **functions,
        facts=facts,
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        wrong=wrong,
        wrong_of=len(mistakes),
        unsure=unsure,
        unsure_of=len(others),
        explained=explained,
        previews=previews,
        photographs=embedded,
        first_level=level is LEVELS[0],
        download=_download(facts),
        settings=json.dumps(without_paths(facts.config), indent=1, ensure_ascii=False, default=str),
        without_paths=without_paths,
    )
    return text, embedded


def _mistakes(facts: Facts) -> list[Row]:
    """The mistakes, surest first; of a search, the queries whose nearest image is wrong, worst first."""
    if facts.classified is None:
        found = [row for row in facts.rows if not row.right and row.precision is not None]
        return sorted(found, key=lambda row: row.precision or 0.0)
    return sorted((row for row in facts.rows if not row.right), key=lambda row: -(row.probability or 0.0))


def _others(facts: Facts) -> list[Row]:
    """The right answers, least sure first; none of a search."""
    found = [row for row in facts.rows if row.right and row.probability is not None]
    return sorted(found, key=lambda row: row.probability or 0.0)


def _cards(facts: Facts, rows: Sequence[Row], photographs: Photographs, level: Level) -> list[Card]:
    place = {name: k for k, name in enumerate(facts.class_names)}

    def card(row: Row) -> Card:
        names = [(row.name, row.content), *([(row.nearest, "")] if row.nearest else [])]
        found = [photographs.picture(name, content, level) for name, content in names]
        shown = tuple(one for one in found if one is not None)
        at = place.get(row.truth, -1), place.get(row.answer, -1)
        return Card(row, shown, *at, words.tip(row), tuple(words.badges(row)))

    return [card(row) for row in rows]


def _explained(facts: Facts, folder: Path | None, level: Level) -> Iterator[tuple[Mapping[str, Any], Embedded]]:
    if folder is None or facts.explanations is None:
        return
    for one in facts.explanations["pictures"][: level.explained]:
        picture = explanation(folder / str(one["file"]), level)
        if picture is not None:
            yield without_paths(one), picture


def _download(facts: Facts) -> str:
    """The numbers of the page as a JSON file in a data URI."""
    content = {
        "format": "agnet report",
        "format_version": 1,
        "run": facts.name,
        "seeds": facts.seeds,
        "split": facts.split,
        "verdict": words.verdict(facts),
        "measures": {name: asdict(found) for name, found in facts.measures.items()},
        "metrics": facts.metrics,
        "log": facts.logs,
        "comparison": facts.comparison,
        "explanations": {k: v for k, v in (facts.explanations or {}).items() if k not in ("rows", "pictures")},
        "configuration": facts.config,
    }
    text = json.dumps(without_paths(content), default=str)
    return f"data:application/json;base64,{base64.b64encode(text.encode()).decode()}"


@cache
def _template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["printable"] = printable
    environment.filters["printable_lines"] = lambda text: "\n".join(map(printable, text.splitlines()))
    environment.filters["breakable"] = lambda text: Markup(re.sub("([_/-])", r"\1<wbr>", str(escape(printable(text)))))
    environment.filters["coded"] = _coded
    environment.filters["capitalised"] = lambda text: text[:1].upper() + text[1:]
    return environment.from_string((_HERE / "page.html.j2").read_text(encoding="utf-8"))


def _coded(text: str) -> Markup:
    """Text with what is between backticks as code."""
    parts = [escape(part) for part in printable(text).split("`")]
    return Markup("".join(f"<code>{part}</code>" if k % 2 else part for k, part in enumerate(parts)))


def _policy(style: str, script: str) -> str:
    """The page's Content-Security-Policy: nothing but its own style, script and embedded pictures."""
    allowed = [f"{kind}-src 'sha256-{_hash(text)}'" for kind, text in (("style", style), ("script", script))]
    return "; ".join(["default-src 'none'", "img-src data:", *allowed, "base-uri 'none'", "form-action 'none'"])


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _script() -> str:
    return (_HERE / "page.js").read_text(encoding="utf-8")
