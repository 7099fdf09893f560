"""Options made from settings: a field and its metadata (`agnet.data.fields`) are one option."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from .sections import SectionedCommand, SectionedOption

_Settings = TypeVar("_Settings")
_Function = TypeVar("_Function", bound=Callable[..., Any])
_TYPES: dict[str, click.ParamType] = {"int": click.INT, "float": click.FLOAT, "str": click.STRING, "bool": click.BOOL}


class Choice(click.Choice):
    """A choice whose complaint names what may have been meant."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            from ..data.spelling import did_you_mean

            meant = did_you_mean(str(value), self.choices)
            self.fail(f"{error.message.rstrip('.')}{meant or '.'}", param, ctx)


class _Parsed(click.ParamType):
    """A type with a parser of its own; values that are no text are taken as they are."""

    def __init__(self, parse: Callable[[str], Any]) -> None:
        self.name = "value"
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class FieldOption(SectionedOption):
    """The option of a settings class's field.

    Args:
        names: As `field_names` has them.
        field: Field with the metadata of `agnet.data.fields.setting`.
        default: Default value, or a function that returns it, in place of the field's; None: decided elsewhere.
        shown_default: Default value for people, in place of ``default``.
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
        if chosen is MISSING:
            given["required"] = True
        elif chosen is not None:
            given["default"] = chosen
            given["help"] += f"  [default: {value_text(chosen) if shown_default is None else shown_default}]"
        else:
            given["default"] = None
        super().__init__(names, **given | attributes)
        self.field = field

    def field_in(self, context: click.Context) -> Field[Any] | None:
        """The field that the option sets in this call; None where nothing has it."""
        return self.field

    def value_in(self, context: click.Context) -> Any:
        """The field's value in this call: the given one, or the default."""
        return context.params[str(self.name)]

    def origin_in(self, context: click.Context) -> str:
        """Where the value of this call comes from, for people: words that follow it."""
        if by_the_user(context, self):
            return ""
        return " of the configuration file" if is_given(context, self) else ", the default"

    def typed(self, context: click.Context) -> str:
        """The option's name as it was typed: that of a flag depends on its value."""
        return self.spelled(self.value_in(context)).split()[0]

    def spelled(self, value: object) -> str:
        """The option with a value, as it is typed: ``--se none``, ``--no-self-attention``."""
        if isinstance(value, bool):
            return (self.opts if value else self.secondary_opts)[-1]
        return f"{self.opts[-1]} {value_text(value)}"


class SettingsCommand(SectionedCommand):
    """A command whose `FieldOption` options are checked: the values, and whether they change anything."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:
            self.check(ctx)
        return rest

    def field_options(self) -> list[FieldOption]:
        """The options that are made from fields."""
        return [option for option in self.params if isinstance(option, FieldOption)]

    def check(self, context: click.Context) -> None:
        """Raises: `click.UsageError` for a value that its field does not allow, or an option that changes nothing."""
        for option in self.field_options():
            if is_given(context, option):
                _check_rule(context, option)
        for option in self.field_options():
            if by_the_user(context, option) and (reason := self.why_idle(context, option)):
                raise click.UsageError(reason)

    def why_idle(self, context: click.Context, option: FieldOption) -> str:
        """Why the option changes nothing in this call; empty where it does. To switch off what is off is no offence."""
        field = option.field_in(context)
        value = option.value_in(context)
        if field is None or field.metadata["needs"] is None or value is False:
            return ""
        name, wanted = field.metadata["needs"]
        (needed,) = (one for one in self.field_options() if one.name == name)
        allowed = wanted if isinstance(wanted, tuple) else (wanted,)
        found = needed.value_in(context)
        if found in allowed:
            return ""
        idle = f"{option.typed(context)} changes nothing with {needed.spelled(found)}"
        if by_the_user(context, needed):
            return f"{idle}; leave one of them out"
        remedy = " or ".join(needed.spelled(one) for one in allowed)
        return f"{idle}{needed.origin_in(context)}; add {remedy}, or leave it out"


def field_names(field: Field[Any]) -> list[str]:
    """A field's name, and its option's: ``["use_regions", "--use-regions/--no-regions"]``."""
    option = field.metadata.get("option") or field.name.replace("_", "-")
    off = f"/--{field.metadata.get('off') or f'no-{option}'}" if _type(field) is click.BOOL else ""
    return [field.name, f"--{option}{off}"]


def field_option(kind: type, name: str, **attributes: Any) -> Callable[[_Function], _Function]:
    """A decorator: the option of one field of a settings class, with the arguments of `FieldOption`."""
    (field,) = (one for one in fields(kind) if one.name == name)
    return click.option(*field_names(field), cls=FieldOption, field=field, **attributes)


def field_options(kind: type, without: Collection[str] = ()) -> Callable[[_Function], _Function]:
    """A decorator: an option for each field of a settings class but those named, in their order."""

    def declare(command: _Function) -> _Function:
        for one in reversed(fields(kind)):
            if one.name not in without:
                command = field_option(kind, one.name)(command)
        return command

    return declare


def settings_from(context: click.Context, kind: type[_Settings], **known: object) -> _Settings:
    """The settings of a call: the values of its options, and those that are known without them."""
    names = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in context.params.items() if name in names} | known)


def by_the_user(context: click.Context, option: click.Parameter) -> bool:
    """Whether an option was given on the command line, not by a configuration file (click's ``default_map``)."""
    return context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE


def is_given(context: click.Context, option: click.Parameter) -> bool:
    """Whether an option was given, on the command line or by a configuration file."""
    return context.get_parameter_source(str(option.name)) in (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP)


def value_text(value: object) -> str:
    """A value for people."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _check_rule(context: click.Context, option: FieldOption) -> None:
    field = option.field_in(context)
    if field is None:
        return
    wanted, holds = field.metadata["rule"]
    value = option.value_in(context)
    if not holds(value):
        name = option.opts[-1] if by_the_user(context, option) else f"{option.name}{option.origin_in(context)}"
        raise click.UsageError(f"{name}: wanted {wanted}, got {value_text(value)}")


def _type(field: Field[Any]) -> click.ParamType:
    if choices := field.metadata.get("choices"):
        return Choice(choices)
    if parse := field.metadata.get("parse"):
        return _Parsed(parse)
    return _TYPES[getattr(field.type, "__name__", str(field.type))]
