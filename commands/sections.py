"""Help in sections, for commands with many options."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

OPTIONS = "Options"


class SectionedOption(click.Option):
    """An option that is listed under a heading of the command's help."""

    def __init__(self, *names: Any, section: str = OPTIONS, **attributes: Any) -> None:
        super().__init__(*names, **attributes)
        self.section = section

    def section_in(self, context: click.Context) -> str:
        """Return the heading in this call's help."""
        return self.section


class SectionedCommand(click.Command):
    """A command whose help lists options by section, in the order declared; those without a section come first."""

    def on_this_page(self, ctx: click.Context) -> Iterable[click.Parameter]:
        """Return the parameters that the help lists."""
        return self.get_params(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {OPTIONS: []}
        for parameter in self.on_this_page(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                section = parameter.section_in(ctx) if isinstance(parameter, SectionedOption) else OPTIONS
                sections.setdefault(section, []).append(record)
        for section, records in sections.items():
            if records:
                with formatter.section(section):
                    formatter.write_dl(records)
