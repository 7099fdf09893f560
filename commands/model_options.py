"""Options made from the settings of every model family and of a recipe, and ``--model`` and ``--recipe`` themselves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import Field, fields
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..training.models.contract import Settings
from ..training.models.registry import MODELS, needs_of
from ..training.models.settings import AGNetSettings
from ..training.recipes import CLIPS, REASONS, RECIPES, REGIONS_OF_THE_MODEL, RETRIEVAL, SOURCES, Recipe, idle_settings
from .field_options import Choice, FieldOption, SettingsCommand, field_names, is_given, value_text
from .sections import SectionedOption

DEFAULT_RECIPE = "modern"


class ModelOption(FieldOption):
    """One option for the fields of the same name in several model families; each field has its own default."""

    fixed = False

    def __init__(self, of_families: Mapping[str, Field[Any]]) -> None:
        first = next(iter(of_families.values()))
        # A choice offers the values of all families; the rule of the chosen family's field decides.
        choices = dict.fromkeys(one for field in of_families.values() for one in field.metadata.get("choices", ()))
        more: dict[str, Any] = {"type": Choice(list(choices))} if choices else {}
        super().__init__(field_names(first), first, default=None, **more)
        self.of_families = of_families

    def field_in(self, context: click.Context) -> Field[Any] | None:
        return self.of_families.get(model_in(context))

    def value_in(self, context: click.Context) -> Any:
        field, given = self.field_in(context), super().value_in(context)
        return field.default if given is None and field else given

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the help of the chosen family's field."""
        field = self.field_in(ctx)
        return FieldOption(field_names(field), field).get_help_record(ctx) if field else None


class RecipeOption(FieldOption):
    """The option for a field of the recipes; each recipe has its own default."""

    def __init__(self, field: Field[Any]) -> None:
        super().__init__(field_names(field), field, default=None)

    def value_in(self, context: click.Context) -> Any:
        given = super().value_in(context)
        return getattr(RECIPES[context.params["recipe"]], self.field.name) if given is None else given

    def origin_in(self, context: click.Context) -> str:
        own = not is_given(context, self.name)
        return f" of the recipe {context.params['recipe']}" if own else super().origin_in(context)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        assert record is not None
        recipe = _chosen(ctx, "recipe", DEFAULT_RECIPE)
        why = [f"{recipe}: {value_text(getattr(RECIPES[recipe], self.field.name))}"]
        if reason := REASONS[recipe].get(self.field.name):
            why.append(reason)
        return record[0], f"{record[1]}  [{'; '.join(why)}]"


class RareOption(SectionedOption):
    """An option that is rarely needed: it is listed on the recipe's page of the help, which has room."""


class ModelCommand(SettingsCommand):
    """A command with ``--model`` and an option for each field of every family's settings, read from the registry.

    The help lists the options of the chosen family; with ``--recipe NAME``, only those of the recipe, with its values
    and the reasons for them, and each `RareOption`. An option of another family is rejected.

    Args:
        known: Names of fields without an option, because the command sets their values itself.
        recipe: Whether the command also has ``--recipe`` and the options of a recipe.
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
        if self._families != MODELS:  # a family has been registered in the meantime
            self._make_params()
        return super().get_params(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # click shows the help before it processes other options, but the help depends on these two.
        typed, _, _ = self.make_parser(ctx).parse_args(list(args))
        for option in self._selecting:
            if not ctx.resilient_parsing and option.name in typed:
                ctx.meta[f"{__name__}.{option.name}"] = option.type.convert(typed[option.name], option, ctx)
        return super().parse_args(ctx, args)

    def why_idle(self, context: click.Context, option: FieldOption) -> str:
        field = option.field_in(context)
        if field is None and isinstance(option, ModelOption):
            having, model = " or ".join(option.of_families), model_in(context)
            return f"{option.typed(context)} is an option of --model {having}; --model {model} has no such option"
        if field is not None and field.metadata["needs"] == (REGIONS_OF_THE_MODEL, True):
            taker = self._regions_taken_by(context)
            return f"{option.typed(context)} changes nothing with {taker}; leave one of them out" if taker else ""
        return super().why_idle(context, option)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete as click does, without the options of other families."""
        other = {
            name
            for option in self.field_options()
            if option.field_in(ctx) is None
            for name in [*option.opts, *option.secondary_opts]
        }
        return [item for item in super().shell_complete(ctx, incomplete) if item.value not in other]

    def _regions_taken_by(self, context: click.Context) -> str:
        """Return the option that makes the model ignore regions, or "" if the model uses them."""
        values = _model_values(context)
        if looks_at_regions(context):
            return ""
        for option in self.field_options():
            name = option.field.name
            if isinstance(option, ModelOption) and name in values and looks_at_regions(context, without=name):
                return f"{option.spelled(values[name])}{option.origin_in(context)}"
        return f"--model {model_in(context)}"

    # --- pages of the help

    def _page_of_recipe(self, context: click.Context) -> str | None:
        return context.meta.get(f"{__name__}.recipe")

    def on_this_page(self, ctx: click.Context) -> Iterable[click.Parameter]:
        order = [field.name for field in fields(MODELS[model_in(ctx)].settings)]

        def place(parameter: click.Parameter) -> int:
            own = isinstance(parameter, ModelOption) and parameter.name in order
            return order.index(str(parameter.name)) if own else -1

        for parameter in sorted(self.get_params(ctx), key=place):
            of_recipe = isinstance(parameter, (RecipeOption, RareOption))
            other = isinstance(parameter, ModelOption) and parameter.field_in(ctx) is None
            if of_recipe == bool(self._page_of_recipe(ctx)) and not (
                other or self._is_of_another_recipe(ctx, parameter)
            ):
                yield parameter

    def _is_of_another_recipe(self, context: click.Context, option: click.Parameter) -> bool:
        """Whether the option has an effect in another recipe but none in the recipe of this page, or is of retrieval or
        of clips, which not every recipe is for.
        """
        if not isinstance(option, RecipeOption) or (recipe := self._page_of_recipe(context)) is None:
            return False
        name = option.field.name
        of_kind = {RETRIEVAL: RECIPES[recipe].images_per_class, CLIPS: RECIPES[recipe].frames}
        if not of_kind.get(option.field.metadata["section"], True):
            return True
        using = {one for one, values in RECIPES.items() if name not in idle_settings(values)}
        return bool(using) and recipe not in using

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if recipe := self._page_of_recipe(ctx):
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(f"The recipe {recipe}: {SOURCES[recipe]}. Options override its values.")
        else:
            super().format_help_text(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        recipe, model = self._page_of_recipe(ctx), model_in(ctx)
        lines, kept = [], "" if model == AGNetSettings.model else f" --model {model}"
        if recipe:
            lines.append(("The run and its model", kept))
            lines += [(f"The recipe {one}", f"{kept} --recipe {one}") for one in RECIPES if one != recipe]
        else:
            if self._has_recipe:
                lines.append(
                    ("Epochs, learning rates, augmentation, saved states, ...", f"{kept} --recipe {DEFAULT_RECIPE}")
                )
            lines += [(f"The model {one}", f" --model {one}") for one in MODELS if one != model]
        with formatter.section("Other options"):
            formatter.write_dl([(what, f"{ctx.command_path}{words} --help") for what, words in lines])


def model_in(context: click.Context) -> str:
    """Return the name of the model family chosen in this call."""
    return _chosen(context, "model", AGNetSettings.model)


def model_settings(context: click.Context, **known: Any) -> Settings:
    """Build the chosen family's settings from the options of this call and from those of ``known`` that it has."""
    kind = MODELS[model_in(context)].settings
    names = {one.name for one in fields(kind)}
    return kind(**_model_values(context), **{name: value for name, value in known.items() if name in names})


def looks_at_regions(context: click.Context, without: str = "") -> bool:
    """Whether the chosen model uses regions; ``without`` names an option to ignore."""
    values = {name: value for name, value in _model_values(context).items() if name != without}
    return needs_of(MODELS[model_in(context)].settings(classes=1, **values)).regions > 0


def chosen_recipe(context: click.Context) -> Recipe:
    """Return the chosen recipe with the values of this call's options."""
    values = {name: context.params[name] for name in (one.name for one in fields(Recipe))}
    return RECIPES[context.params["recipe"]].override(**values)


def _chosen(context: click.Context, name: str, default: str) -> str:
    """Return the value of an option that selects a page of the help, even before options are processed."""
    return context.params.get(name) or context.meta.get(f"{__name__}.{name}", default)


def _model_values(context: click.Context) -> dict[str, Any]:
    """Return the values given in this call for fields of the chosen family."""
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
        help="Recipe for the optimiser, schedule, regularisation and augmentation; options override its values.",
    )


def _model_options(known: Collection[str]) -> Iterable[ModelOption]:
    """Make an option for each field name, in the order of families and fields."""
    found: dict[str, dict[str, Field[Any]]] = {}
    for family, spec in MODELS.items():
        for field in fields(spec.settings):
            if field.name not in known:
                found.setdefault(field.name, {})[family] = field
    return [ModelOption(of_families) for of_families in found.values()]
