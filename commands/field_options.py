"""Command-line options made from the fields of settings classes and their metadata (`agnet.data.fields`)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, fields
from typing import Any, ClassVar, TypeVar

import click
from click.core import ParameterSource

from ..data.fields import is_rule, meets, type_name
from .completion import OF_FIELDS
from .sections import SectionedCommand, SectionedOption

_Settings = TypeVar("_Settings")
_Function = TypeVar("_Function", bound=Callable[..., Any])
_TYPES: dict[str, click.ParamType] = {"int": click.INT, "float": click.FLOAT, "str": click.STRING, "bool": click.BOOL}


class Choice(click.Choice):
    """A choice whose error message suggests the closest value."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            from ..data.spelling import did_you_mean

            meant = did_you_mean(str(value), self.choices)
            self.fail(f"{error.message.rstrip('.')}{meant or '.'}", param, ctx)


class _Parsed(click.ParamType):
    """A type with its own parser. Values that are not text are left unchanged."""

    def __init__(self, parse: Callable[[str], Any]) -> None:
        self.name = "value"
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class FieldOption(SectionedOption):
    """The option for a field of a settings class.

    Args:
        names: Names as returned by `field_names`.
        field: Field with the metadata of `agnet.data.fields.setting`.
        default: Default value, or a function that returns it, in place of the field's; None if it is determined
            elsewhere.
        shown_default: Text for the default value in the help, in place of ``default``.
    """

    def __init__(
        self,
        names: Any,
        field: Field[Any],
        default: object = MISSING,
        shown_default: str | None = None,
        **attributes: Any,
    ) -> None:
        chosen = field.default if default is MISSING else default
        given = {"section": field.metadata["section"], "type": _type(field), "help": field.metadata["about"]}
        given["shell_complete"] = OF_FIELDS.get(field.name)
        if chosen is MISSING:
            given["required"] = True
        elif chosen is not None:
            given["default"] = chosen
            given["help"] += f"  [default: {value_text(chosen) if shown_default is None else shown_default}]"
        else:
            given["default"] = None
        super().__init__(names, **given | attributes)
        self.field = field

    #: Whether the field is the same in every call; if so, its rule is checked as soon as the value is known.
    fixed: ClassVar[bool] = True

    def get_default(self, ctx: click.Context, call: bool = True) -> Any:
        # The shell asks for a completion and waits: a default that must be computed may load packages.
        return super().get_default(ctx, call and not ctx.resilient_parsing)

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        found = super().process_value(ctx, value)
        if self.fixed and is_given(ctx, self.name):
            self.check_rule(ctx, self.field, found)
        return found

    def check_rule(self, context: click.Context, field: Field[Any], value: Any) -> None:
        """Check a value against the field's rule. Raises: `click.UsageError` if the rule does not allow it."""
        wanted, holds = field.metadata["rule"]
        if not holds(value):
            name = self.opts[-1] if by_the_user(context, self.name) else f"{self.name}{self.origin_in(context)}"
            raise click.UsageError(f"{name}: wanted {wanted}, got {value_text(value)}")

    def field_in(self, context: click.Context) -> Field[Any] | None:
        """Return the field that the option sets in this call; None if the chosen model has no such field."""
        return self.field

    def section_in(self, context: click.Context) -> str:
        """Return the section of the field that the option sets in this call."""
        field = self.field_in(context)
        return str(field.metadata["section"]) if field else self.section

    def value_in(self, context: click.Context) -> Any:
        """Return the field's value in this call: the given one, or the default."""
        return context.params[str(self.name)]

    def origin_in(self, context: click.Context) -> str:
        """Return words to append to the value in a message that name its origin; empty for the command line."""
        if by_the_user(context, self.name):
            return ""
        return " of the configuration file" if is_given(context, self.name) else ", the default"

    def typed(self, context: click.Context) -> str:
        """Return the option's name as typed; the name of a flag depends on its value."""
        return self.spelled(self.value_in(context)).split()[0]

    def spelled(self, value: object) -> str:
        """Return the option with a value as typed: ``--se none``, ``--no-self-attention``."""
        if isinstance(value, bool):
            return (self.opts if value else self.secondary_opts)[-1]
        return f"{self.opts[-1]} {value_text(value)}"


class SettingsCommand(SectionedCommand):
    """A command that rejects `FieldOption` options that do not fit the chosen model or change nothing."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:
            self.check(ctx)
        return rest

    def field_options(self) -> list[FieldOption]:
        """Return the options that are made from fields."""
        return [option for option in self.params if isinstance(option, FieldOption)]

    def check(self, context: click.Context) -> None:
        """Check all options.

        Raises: `click.UsageError` if a field does not allow its value, or an option changes nothing.
        """
        for option in self.field_options():
            field = option.field_in(context)
            if field and not option.fixed and is_given(context, option.name):
                option.check_rule(context, field, option.value_in(context))
        for option in self.field_options():
            if by_the_user(context, option.name) and (reason := self.why_idle(context, option)):
                raise click.UsageError(reason)

    def why_idle(self, context: click.Context, option: FieldOption) -> str:
        """Return the reason why the option changes nothing in this call, or "" if it does.

        A flag that switches off what is already off is accepted.
        """
        field = option.field_in(context)
        value = option.value_in(context)
        if field is None or field.metadata["needs"] is None or value is False:
            return ""
        name, wanted = field.metadata["needs"]
        (needed,) = (one for one in self.field_options() if one.name == name)
        found = needed.value_in(context)
        if meets(found, wanted):
            return ""
        idle = f"{option.typed(context)} changes nothing with {needed.spelled(found)}"
        if by_the_user(context, needed.name):
            return f"{idle}; leave one of them out"
        if is_rule(wanted):
            remedy = f"{needed.opts[-1]} with {wanted[0]}"
        else:
            remedy = " or ".join(map(needed.spelled, wanted if isinstance(wanted, tuple) else (wanted,)))
        return f"{idle}{needed.origin_in(context)}; add {remedy}, or leave it out"


def field_names(field: Field[Any]) -> list[str]:
    """Return the names of a field and of its option: ``["use_regions", "--use-regions/--no-regions"]``."""
    option = field.metadata.get("option") or field.name.replace("_", "-")
    off = f"/--{field.metadata.get('off') or f'no-{option}'}" if _type(field) is click.BOOL else ""
    return [field.name, f"--{option}{off}"]


def field_option(kind: type, name: str, **attributes: Any) -> Callable[[_Function], _Function]:
    """Return a decorator that adds the option for one field of a settings class; ``attributes`` go to `FieldOption`."""
    (field,) = (one for one in fields(kind) if one.name == name)
    return click.option(*field_names(field), cls=FieldOption, field=field, **attributes)


def field_options(kind: type, without: Collection[str] = ()) -> Callable[[_Function], _Function]:
    """Return a decorator that adds an option for each field of a settings class except ``without``, in field order."""

    def declare(command: _Function) -> _Function:
        for one in reversed(fields(kind)):
            if one.name not in without:
                command = field_option(kind, one.name)(command)
        return command

    return declare


def settings_from(context: click.Context, kind: type[_Settings], **known: object) -> _Settings:
    """Build the settings of a call from the values of its options and from ``known``, which takes precedence."""
    names = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in context.params.items() if name in names} | known)


def by_the_user(context: click.Context, name: str | None) -> bool:
    """Whether a parameter was given on the command line, not in a configuration file (click's ``default_map``)."""
    return context.get_parameter_source(str(name)) is ParameterSource.COMMANDLINE


def is_given(context: click.Context, name: str | None) -> bool:
    """Whether a parameter was given on the command line or in a configuration file."""
    return context.get_parameter_source(str(name)) in (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP)


def value_text(value: object) -> str:
    """Format a value as it is typed on the command line: ``on``, ``0.5``, ``256x128``."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return "x".join(map(value_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _type(field: Field[Any]) -> click.ParamType:
    if choices := field.metadata.get("choices"):
        return Choice(choices)
    if parse := field.metadata.get("parse"):
        return _Parsed(parse)
    return _TYPES[type_name(field)]
