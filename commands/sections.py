"""Help in sections, for a command with many options; and an option for each setting of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..training.recipes import RECIPES, settings_of_a_recipe
from .options import Choice


class SectionedOption(click.Option):
    """An option that is listed under a heading of the command's help."""

    def __init__(self, *names: Any, section: str = "", **attributes: Any) -> None:
        super().__init__(*names, **attributes)
        self.section = section


class SectionedCommand(click.Command):
    """A command whose help lists options under their sections, those without one first, in the order declared."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(parameter, "section", ""), []).append(record)
        for section, records in sections.items():
            with formatter.section(section or "Options"):
                formatter.write_dl(records)


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each of a recipe's settings; None where it is not given. Its help tells each recipe's own value."""
    for name, setting in reversed(settings_of_a_recipe().items()):
        flag = name.replace("_", "-")
        values = [getattr(recipe, name) for recipe in RECIPES.values()]
        own = ", ".join(f"{recipe} {_text(value)}" for recipe, value in zip(RECIPES, values, strict=True))
        choices = setting.metadata.get("choices")
        parse = setting.metadata.get("parse")
        kind = Choice(choices) if choices else parse or type(values[0])
        names = f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"
        command = click.option(
            names,
            cls=SectionedOption,
            section=f"{setting.metadata['section']} (of the recipe, unless given)",
            type=kind,
            metavar="SIZE" if parse else None,
            default=None,
            help=f"{setting.metadata['about']}  [{own}]",
        )(command)
    return command


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
