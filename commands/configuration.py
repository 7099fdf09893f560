"""`agnet train --config FILE`: option values from the record of a run or from a file of options."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ..data.fields import type_name
from ..training.models.registry import MODELS
from ..training.models.settings import AGNetSettings
from ..training.recipes import RECIPES, Recipe, RunSettings
from .configuration_file import read_mapping, shown
from .field_options import FieldOption
from .model_options import ModelOption

if TYPE_CHECKING:
    from ..data.boxes.reader import Boxes

# The model, recipe and run of a record are used, and the place of its boxes file; the other sections are its history.
_SECTIONS = (
    *("model", "recipe", "run", "boxes", "versions", "hardware", "code", "command", "fold", "started_from"),
    "epochs_before",
)
_OF_THE_BOXES_FILE = ("classes", "regions")  # settings of the model
_BACKBONES = ("backbone", "second_backbone")  # settings of the model that mean the same in every family
_OF_THE_MACHINE = ("device", "workers", "processes")  # settings of the run
_A_NUMBER_OF_PROCESSES = "a whole number, 1 or more"
_TYPES = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}


@dataclass
class Configuration:
    """The content of a configuration file, as option values."""

    file: Path
    options: dict[str, Any] = field(default_factory=dict)  #: parameter of an option -> value
    fingerprint: str | None = None  #: fingerprint of the boxes file; None unless the file is the record of a run
    processes: int = 1  #: number of processes that trained the run

    def cautions(self, boxes: Boxes, processes: int) -> list[str]:
        """Return warnings about differences from the recorded run, each naming one reason."""
        found = []
        if self.fingerprint not in (None, boxes.fingerprint):
            found.append(f"{boxes.path} is not the boxes file of that run: its images, regions or splits differ")
        if self.processes != processes and self.fingerprint is not None:
            found.append(f"that run was trained by {shown(self.processes)} processes, this one by {processes}")
        return [f"Warning: {self.file} will not be repeated exactly: {caution}" for caution in found]


class ConfigurableCommand(click.Command):
    """A command with ``--config FILE``, which sets the options that are not given on the command line."""

    def defaults_for(self, given: Mapping[str, object]) -> dict[str, object]:
        """Return defaults that depend on other options. ``given``: those of the command line and of the file."""
        return {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        typed, _, _ = self.make_parser(ctx).parse_args(list(args))
        asked = self.get_help_option(ctx)
        options: dict[str, Any] = {}
        if "config" in typed and not (ctx.resilient_parsing or (asked and asked.name in typed)):
            found = read_configuration(Path(str(typed["config"])), ctx, typed)
            options, ctx.meta[__name__] = found.options, found
        if not ctx.resilient_parsing:
            ctx.default_map = {**self.defaults_for({**options, **typed}), **(ctx.default_map or {}), **options}
        return super().parse_args(ctx, args)


def configuration_in(context: click.Context) -> Configuration | None:
    """Return the configuration of this call; None without ``--config``."""
    return context.meta.get(__name__)


config = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Configuration file: the config.json of a run to repeat, or option names and values as JSON or YAML; options "
    "on the command line override it.",
)


def read_configuration(file: Path, context: click.Context, given: Mapping[str, object]) -> Configuration:
    """Read the options of a configuration file.

    Args:
        file: The record of a run (``config.json``, or the same as YAML), or a mapping with some of its sections, with
            option names, or with both.
        context: Context of the command that has the options.
        given: Values on the command line by parameter; they override the file.

    Raises: `ConfigurationError` if this is not a configuration file, a name is unknown, or a value has the wrong type
        or is out of range.
    """
    return _Reader(file, context, given).read(read_mapping(file))


def named_options(context: click.Context) -> dict[str, tuple[click.Option, bool]]:
    """Map the names of a command's options, with underscores, to the option and to whether they switch it on."""
    return {
        name: (parameter, on)
        for parameter in context.command.get_params(context)
        if isinstance(parameter, click.Option) and parameter.name not in ("config", "help")
        for flags, on in ((parameter.opts, True), (parameter.secondary_opts, False))
        for name in (flag.lstrip("-").replace("-", "_") for flag in flags)
    }


class _Reader:
    """Convert the content of a configuration file to options.

    Args:
        file, context, given: As for `read_configuration`.
    """

    def __init__(self, file: Path, context: click.Context, given: Mapping[str, object]) -> None:
        self._file, self._context, self._given = file, context, given
        self._found, self._origins = Configuration(file), dict[str, str]()
        self._model = self._chosen = AGNetSettings.model  # family of the file, and family that this call trains
        self._parameters = named_options(context)

    def read(self, content: dict[str, Any]) -> Configuration:
        self._check_names(content)
        sections = {name: value for name, value in content.items() if isinstance(value, dict) and name in _SECTIONS}
        is_record = "versions" in sections
        self._take_family(content, is_record)
        for name, value in content.items():
            if name not in sections and name != "model":
                self._take_option(name, value)
        self._take_model(sections.get("model", {}), is_record)
        self._take_recipe(sections.get("recipe", {}), sections.get("command", {}))
        self._take_run(sections.get("run", {}), is_record)
        if is_record:
            self._take_boxes(sections.get("boxes", {}))
        self._settle()
        return self._found

    def _check_names(self, content: Mapping[str, Any]) -> None:
        known = [*_SECTIONS, *self._parameters]
        unknown = [name for name in content if name.replace("-", "_") not in known]
        if content and len(unknown) == len(content):
            self._fail(
                f"has no setting of agnet {self._context.command.name}, only {shown(unknown[0])}; use the config.json "
                "of a run, or a file of option names and values"
            )
        if unknown:
            self._unknown(unknown[0], known)

    def _take_option(self, name: str, value: Any) -> None:
        parameter, on = self._parameters.get(name.replace("-", "_"), (None, True))
        if parameter is None:
            self._fail(f"{name}: wanted a section of names and values, got {shown(value)}")
        if not on:
            value = not self._typed(name, "bool", _TYPES["bool"], value)
        if isinstance(parameter, ModelOption):
            self._take_setting(parameter.field.name, value, name)
            return
        if on and isinstance(parameter, FieldOption):
            value = self._checked(name, parameter.field, value)
        elif on:
            value = self._converted(name, parameter, value)
        self._take(str(parameter.name), value, name)

    def _take_family(self, content: Mapping[str, Any], is_record: bool) -> None:
        """Take the name of the model family, which decides what the other settings of the model mean."""
        section = content.get("model")
        if not isinstance(section, dict):
            if "model" in content:
                self._take_option("model", section)
        elif "model" in section:
            if section["model"] not in list(MODELS):
                self._refuse("model.model", " or ".join(MODELS), section["model"])
            self._take("model", section["model"], "model.model")
        given, named = self._given.get("model"), self._found.options.get("model")
        self._chosen = str(given) if given in MODELS else named or AGNetSettings.model
        # A record without a name is AG-Net's, from before there were others; options without one suit the chosen model.
        self._model = named or (AGNetSettings.model if is_record else self._chosen)

    def _take_model(self, section: Mapping[str, Any], is_record: bool) -> None:
        """Take the settings of the model. A record may have defaults of other families, too."""
        own = {one.name for one in fields(MODELS[self._model].settings)}
        defaults: dict[str, list[Any]] = {}
        for spec in MODELS.values():
            for one in fields(spec.settings):
                defaults.setdefault(one.name, []).append(one.default)
        for name, value in section.items():
            where = f"model.{name}"
            if name == "model":
                continue
            if name not in defaults:
                self._unknown(where, [f"model.{one}" for one in defaults])
            if name in _OF_THE_BOXES_FILE:
                if not is_record:
                    self._fail(f"{where}: the boxes file decides it; leave it out")
            elif name in own or value not in defaults[name]:
                self._take_setting(name, value, where)

    def _take_setting(self, name: str, value: Any, where: str) -> None:
        """Take a setting of the model. If this call trains another family than the file's, take only backbones."""
        own, chosen = (
            {one.name: one for one in fields(MODELS[family].settings)} for family in (self._model, self._chosen)
        )
        if name not in own:
            if "model" not in self._given:
                self._fail(f"{where}: the model {self._model} has no such setting; leave it out")
            return
        value = self._checked(where, own[name], value)
        if self._model == self._chosen or (name in _BACKBONES and name in chosen):
            self._take(name, value, where)

    def _take_recipe(self, section: Mapping[str, Any], command: Mapping[str, Any]) -> None:
        """Take the recipe's settings; a recipe on the command line replaces all of them."""
        known = {one.name: one for one in fields(Recipe)}
        values = {}
        for name, value in section.items():
            if name not in known:
                self._unknown(f"recipe.{name}", [f"recipe.{one}" for one in known])
            values[name] = self._checked(f"recipe.{name}", known[name], value)
        if "recipe" in self._given:
            return
        if command.get("recipe") in list(RECIPES):
            self._take("recipe", command["recipe"], "command.recipe")
        for name, value in values.items():
            self._take(name, value, f"recipe.{name}")
        if all(one.name in values for one in known.values() if one.default is MISSING):
            # A complete recipe may predate newer settings: it was trained with their defaults.
            for one in known.values():
                self._found.options.setdefault(one.name, one.default)

    def _take_run(self, section: Mapping[str, Any], is_record: bool) -> None:
        from ..training.runs.sources import needs_no_file

        known = {one.name: one for one in fields(RunSettings)}
        names = [*known, *(["processes"] if is_record else [])]
        for name, value in section.items():
            where = f"run.{name}"
            if name not in names:
                self._unknown(where, [f"run.{one}" for one in names])
            if is_record and name in _OF_THE_MACHINE:
                continue
            value = self._checked(where, known[name], value)
            if is_record and name == "weights" and not needs_no_file(str(value)) and "weights" not in self._given:
                self._fail(
                    f"the run started from the weights {shown(value)}, whose folder is not recorded; add --weights"
                )
            self._take(name, value, where)
        if is_record:
            processes = self._typed("run.processes", "int", _A_NUMBER_OF_PROCESSES, section.get("processes", 1))
            if processes < 1:
                self._refuse("run.processes", _A_NUMBER_OF_PROCESSES, processes)
            self._found.processes = processes

    def _take_boxes(self, section: Mapping[str, Any]) -> None:
        """Take the recorded places of the boxes file and of the images, if they still exist."""
        from ..data.places import follow_hint, hinted_place

        fingerprint = section.get("fingerprint")
        if fingerprint is not None:
            self._found.fingerprint = self._typed("boxes.fingerprint", "str", _TYPES["str"], fingerprint)
        if "boxes" in {*self._given, *self._found.options}:
            return
        hint, folder = section.get("file_relative_to_run"), self._file.parent
        boxes = follow_hint(hint, folder)
        if boxes is None:
            place = hinted_place(hint, folder)
            known = f"is no longer at {place}" if place else "is not recorded"
            self._fail(f"the boxes file of that run {known}; give it with --boxes")
        self._found.options["boxes"] = str(boxes)
        images = follow_hint(section.get("root_relative_to_run"), folder)
        if images is not None:
            self._found.options.setdefault("root", str(images))

    def _settle(self) -> None:
        """Keep either one seed or several: the command line takes precedence."""
        options = self._found.options
        if {"seed", "seeds"} <= options.keys():
            self._fail("seed and seeds exclude each other")
        if {"seed", "seeds"} & set(self._given):
            options.pop("seed", None)
            options.pop("seeds", None)

    # --- values

    def _take(self, name: str, value: Any, where: str) -> None:
        if name in self._origins:
            self._fail(f"{self._origins[name]} and {where} are the same setting; leave one of them out")
        self._origins[name] = where
        self._found.options[name] = value

    def _checked(self, where: str, one: Field[Any], value: Any) -> Any:
        """Return the value of a setting after checking its type and its rule."""
        wanted, holds = one.metadata["rule"]
        if parse := one.metadata.get("parse"):
            if isinstance(value, list) and type_name(one) == "str":  # several numbers: as typed
                value = " ".join(map(str, value))
            try:
                value = parse(value) if isinstance(value, str) else value
            except ValueError:
                self._refuse(where, wanted, value)
            value = tuple(value) if isinstance(value, list) else value
        elif "choices" not in one.metadata:
            kind = type_name(one)
            if kind == "bool":
                wanted = _TYPES[kind]
            elif not wanted.startswith("a "):
                wanted = f"{_TYPES[kind]}, {wanted}"
            value = self._typed(where, kind, wanted, value)
        try:
            fits = holds(value)
        except TypeError:
            fits = False
        if not fits:
            self._refuse(where, wanted, value)
        return value

    def _typed(self, where: str, kind: str, wanted: str, value: Any) -> Any:
        if kind == "float" and type(value) is int and abs(value) < 2**53:
            return float(value)
        if type(value).__name__ != kind:
            self._refuse(where, wanted, value)
        return value

    def _converted(self, where: str, parameter: click.Option, value: Any) -> Any:
        """Return the value of an option that is not a setting, after checking it against the option's type."""
        kind = "bool" if parameter.is_flag else "str"
        if isinstance(parameter.type, click.types.FloatParamType):
            kind = "float"
        if isinstance(parameter.type, click.types.IntParamType) and not parameter.is_flag:
            kind = "int"
        if parameter.multiple:
            if not isinstance(value, list) or not value:
                self._refuse(where, "a list", value)
            return [self._typed(where, kind, f"a list, each {_TYPES[kind]}", one) for one in value]
        value = self._typed(where, kind, _TYPES[kind], value)
        try:
            parameter.type.convert(value, parameter, self._context)
        except click.BadParameter as error:
            self._fail(f"{where}: {error.message}")
        return value

    # --- complaints

    def _refuse(self, where: str, wanted: str, got: Any) -> NoReturn:
        self._fail(f"{where}: wanted {wanted}, got {shown(got)}")

    def _unknown(self, name: str, known: Collection[str]) -> NoReturn:
        from ..data.spelling import did_you_mean

        self._fail(f"unknown setting {shown(name)}{did_you_mean(name, known)}")

    def _fail(self, complaint: str) -> NoReturn:
        from ..data.errors import ConfigurationError

        raise ConfigurationError(f"{self._file}: {complaint}")
