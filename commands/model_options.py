"""A command's ``--model`` and ``--recipe``: an option for each field of every family's settings and of a recipe."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import Field, fields
from typing import Any

import click

from ..training.models.contract import Settings
from ..training.models.registry import MODELS, needs_of
from ..training.models.settings import AGNetSettings
from ..training.recipes import REASONS, RECIPES, REGIONS_OF_THE_MODEL, SOURCES, Recipe
from .field_options import Choice, FieldOption, SettingsCommand, field_names, value_text
from .sections import SectionedOption

DEFAULT_RECIPE = "modern"


class ModelOption(FieldOption):
    """The option of all fields of one name in the settings of families of models; each has a default of its own."""

    def __init__(self, of_families: Mapping[str, Field[Any]]) -> None:
        first = next(iter(of_families.values()))
        super().__init__(field_names(first), first, default=None)
        self.of_families = of_families

    def field_in(self, context: click.Context) -> Field[Any] | None:
        return self.of_families.get(model_in(context))

    def value_in(self, context: click.Context) -> Any:
        field, given = self.field_in(context), super().value_in(context)
        return field.default if given is None and field else given

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        field, record = self.field_in(ctx), super().get_help_record(ctx)
        assert field is not None and record is not None  # only the options of the model are listed
        return record[0], f"{field.metadata['about']}  [default: {value_text(field.default)}]"


class RecipeOption(FieldOption):
    """The option of a recipe's field; each recipe has a default of its own."""

    def __init__(self, field: Field[Any]) -> None:
        super().__init__(field_names(field), field, default=None)

    def value_in(self, context: click.Context) -> Any:
        given = super().value_in(context)
        return getattr(RECIPES[context.params["recipe"]], self.field.name) if given is None else given

    def origin_in(self, context: click.Context) -> str:
        own = context.params[self.field.name] is None
        return f" of the recipe {context.params['recipe']}" if own else super().origin_in(context)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        assert record is not None
        recipe = _chosen(ctx, "recipe", DEFAULT_RECIPE)
        why = [f"{recipe}: {value_text(getattr(RECIPES[recipe], self.field.name))}"]
        if reason := REASONS[recipe].get(self.field.name):
            why.append(reason)
        return record[0], f"{record[1]}  [{'; '.join(why)}]"


class ModelCommand(SettingsCommand):
    """A command with ``--model`` and an option for each field of every family's settings, read from the registry.

    Its help lists the options of the chosen family; with ``--recipe NAME``, those of the recipe alone, with its values
    and their reasons. An option of another family is refused.

    Args:
        known: Names of the families' fields that get no option: the command knows their values without one.
        recipe: Whether it has ``--recipe`` and the options of a recipe, too.
    """

    def __init__(self, *arguments: Any, known: Collection[str] = (), recipe: bool = False, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self._known, self._has_recipe, self._declared = known, recipe, self.params
        self._make_params()

    def _make_params(self) -> None:
        self._families = dict(MODELS)
        self._selecting = [_model_option(), *([_recipe_option()] if self._has_recipe else [])]
        of_recipe = [RecipeOption(field) for field in fields(Recipe)] if self._has_recipe else []
        self.params = [*self._selecting, *self._declared, *_model_options(self._known), *of_recipe]

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if self._families != MODELS:  # a family has been registered since
            self._make_params()
        return super().get_params(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # --help is answered before other options are processed, but its page depends on two of them.
        typed, _, _ = self.make_parser(ctx).parse_args(list(args))
        for option in self._selecting:
            if not ctx.resilient_parsing and option.name in typed:
                ctx.meta[f"{__name__}.{option.name}"] = option.type.convert(typed[option.name], option, ctx)
        return super().parse_args(ctx, args)

    def why_idle(self, context: click.Context, option: FieldOption) -> str:
        field = option.field_in(context)
        if field is None and isinstance(option, ModelOption):
            having, model = " or ".join(option.of_families), model_in(context)
            return f"{option.typed(context)} is an option of --model {having}; --model {model} has none"
        if field is not None and field.metadata["needs"] == (REGIONS_OF_THE_MODEL, True):
            taker = self._regions_taken_by(context)
            return f"{option.typed(context)} changes nothing with {taker}; leave one of them out" if taker else ""
        return super().why_idle(context, option)

    def _regions_taken_by(self, context: click.Context) -> str:
        """The option without which the model would look at regions; empty where it looks at them."""
        values = _model_values(context)
        if looks_at_regions(context):
            return ""
        for option in self.field_options():
            name = option.field.name
            if isinstance(option, ModelOption) and name in values and looks_at_regions(context, without=name):
                return option.spelled(values[name])
        return f"--model {model_in(context)}"

    # --- the help's pages

    def _page_of_recipe(self, context: click.Context) -> str | None:
        return context.meta.get(f"{__name__}.recipe")

    def on_this_page(self, ctx: click.Context) -> Iterable[click.Parameter]:
        for parameter in self.get_params(ctx):
            of_recipe = isinstance(parameter, RecipeOption)
            other = isinstance(parameter, ModelOption) and parameter.field_in(ctx) is None
            if of_recipe == bool(self._page_of_recipe(ctx)) and not other:
                yield parameter

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if recipe := self._page_of_recipe(ctx):
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(f"The recipe {recipe}: {SOURCES[recipe]}. An option overrides its value.")
        else:
            super().format_help_text(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        recipe, model = self._page_of_recipe(ctx), model_in(ctx)
        lines = []
        if recipe:
            lines.append(("The run and its model", ""))
            lines += [(f"The recipe {one}", f" --recipe {one}") for one in RECIPES if one != recipe]
        else:
            if self._has_recipe:
                lines.append(("Epochs, learning rates, augmentation, ...", f" --recipe {DEFAULT_RECIPE}"))
            lines += [(f"The model {one}", f" --model {one}") for one in MODELS if one != model]
        with formatter.section("Other options"):
            formatter.write_dl([(what, f"{ctx.command_path}{words} --help") for what, words in lines])


def model_in(context: click.Context) -> str:
    """The name of the family that is chosen in this call."""
    return _chosen(context, "model", AGNetSettings.model)


def model_settings(context: click.Context, **known: Any) -> Settings:
    """The settings of the chosen family, from this call's options; ``known`` are taken where the family has them."""
    kind = MODELS[model_in(context)].settings
    names = {one.name for one in fields(kind)}
    return kind(**_model_values(context), **{name: value for name, value in known.items() if name in names})


def looks_at_regions(context: click.Context, without: str = "") -> bool:
    """Whether the chosen model looks at regions where an image has some; if ``without``, one given value left out."""
    values = {name: value for name, value in _model_values(context).items() if name != without}
    return needs_of(MODELS[model_in(context)].settings(classes=1, **values)).regions > 0


def chosen_recipe(context: click.Context) -> Recipe:
    """The chosen recipe with the values of this call's options."""
    values = {name: context.params[name] for name in (one.name for one in fields(Recipe))}
    return RECIPES[context.params["recipe"]].override(**values)


def _chosen(context: click.Context, name: str, default: str) -> str:
    """The value of an option that selects a page; known before options are processed."""
    return context.params.get(name) or context.meta.get(f"{__name__}.{name}", default)


def _model_values(context: click.Context) -> dict[str, Any]:
    """Values of the chosen family's fields that this call gives."""
    command = context.command
    assert isinstance(command, ModelCommand)
    return {
        option.field.name: context.params[option.field.name]
        for option in command.field_options()
        if isinstance(option, ModelOption)
        and option.field_in(context)
        and context.params[option.field.name] is not None
    }


def _model_option() -> click.Option:
    about = "; ".join(f"{name}: {spec.about}" for name, spec in MODELS.items())
    return SectionedOption(
        ["--model"], type=Choice(list(MODELS)), default=AGNetSettings.model, show_default=True, help=f"Model. {about}."
    )


def _recipe_option() -> click.Option:
    return SectionedOption(
        ["--recipe"],
        type=Choice(list(RECIPES)),
        default=DEFAULT_RECIPE,
        show_default=True,
        help="Recipe: optimiser, schedule, regularisation and augmentation; options override its values.",
    )


def _model_options(known: Collection[str]) -> Iterable[ModelOption]:
    """An option for each name of a field, in the order of families and fields."""
    found: dict[str, dict[str, Field[Any]]] = {}
    for family, spec in MODELS.items():
        for field in fields(spec.settings):
            if field.name not in known:
                found.setdefault(field.name, {})[family] = field
    return [ModelOption(of_families) for of_families in found.values()]
