"""MkDocs hooks that include files in the pages of docs/ and make tables from the code.

`<!-- page: README.md -->` replaces the page with a file of the repository; `<!-- options: train -->` becomes the tables
of a command's options and `<!-- recipes -->` the table of settings, so that they always agree with the code. The
reference of the API is that of this copy of agnet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from mkdocs.plugins import event_priority

from agnet.cli import main
from agnet.commands.sections import SectionedOption
from agnet.training.models.registry import MODELS
from agnet.training.recipes import REASONS, RECIPES, Recipe

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}

_SOURCES = TemporaryDirectory(prefix="agnet-docs-")


@event_priority(100)  # before mkdocstrings reads them
def on_config(config: Any, **_: Any) -> None:
    """Name the sources of the API reference: a folder ``agnet`` with links to the modules and packages of this copy.

    Otherwise a folder named agnet beside this one would be taken, and the whole of ``.venv`` be searched.
    """
    package = Path(_SOURCES.name) / "agnet"
    package.mkdir(exist_ok=True)
    for path in ROOT.iterdir():
        link = package / path.name
        if not link.exists() and (path.suffix == ".py" or (path / "__init__.py").is_file()):
            link.symlink_to(path)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [_SOURCES.name]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the Markdown of a page for MkDocs to render."""
    if page := re.search(r"<!-- page: (\S+) -->", markdown):
        text = (ROOT / page[1]).read_text(encoding="utf-8")
        return re.sub(r"\]\((docs/)?([^):]+)\)", lambda link: f"]({PAGES.get(link[2], link[2])})", text)
    markdown = re.sub(r"<!-- options: ([\w-]+) -->", lambda found: "\n".join(_options(found[1])), markdown)
    return markdown.replace("<!-- recipes -->", "\n".join(_recipes()))


def on_page_content(html: str, **_: Any) -> str:
    """Return the HTML of a page with every option on one line; browsers may break a line after a hyphen."""
    return re.sub(r"<code>(--[\w-]+)</code>", r'<code class="option">\1</code>', html)


def _options(name: str) -> Iterator[str]:
    """Yield a table for each section of a command's help, and for what other models have instead."""
    command = main.commands[name]
    sections: dict[str, list[tuple[str, str]]] = {"": []}
    seen = set()
    for model in MODELS:
        context = click.Context(command, info_name=f"agnet {name}")
        context.params["model"] = model
        for parameter in command.get_params(context):
            record = parameter.get_help_record(context)
            if record and record not in seen:
                seen.add(record)
                section = parameter.section_in(context) if isinstance(parameter, SectionedOption) else ""
                first = next(iter(MODELS)) == model
                sections.setdefault(section if first else f"{section} (`--model {model}`)", []).append(record)
    for section, records in sections.items():
        yield from (f"\n**{section}**\n",) if section else ()
        yield "| option | meaning |"
        yield "|---|---|"
        for option, about in records:
            yield f"| `{option}` | {_cell(about)} |"


def _recipes() -> Iterator[str]:
    """Yield a table of all settings of a recipe: description, and value in each recipe with the reason for it."""
    yield f"| option | meaning | {' | '.join(RECIPES)} |"
    yield "|---" * (2 + len(RECIPES)) + "|"
    for field in fields(Recipe):
        cells = [f"`--{field.name.replace('_', '-')}`", _cell(field.metadata.get("about", ""))]
        for name, recipe in RECIPES.items():
            reason = REASONS[name].get(field.name, "")
            cells.append(f"**{_cell(str(getattr(recipe, field.name)))}** {_cell(reason)}")
        yield f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Escape a text for a cell of a Markdown table."""
    return re.sub(r"([\\|\[\]*_`])", r"\\\1", " ".join(text.split())).replace("<", "&lt;")
