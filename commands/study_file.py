"""The file of `agnet study`: a control and other rows, each with options of propose, train and evaluate."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ..data.names import NONE
from ..data.sets.catalogue import CATALOGUE
from .configuration import named_options
from .configuration_file import read_mapping, shown
from .evaluate import evaluate
from .field_options import by_the_user
from .model_options import chosen_recipe, looks_at_regions, model_settings
from .propose import data_set, proposal_settings, propose
from .train import defaults_of, train
from .viewing import SIZES

if TYPE_CHECKING:
    from ..training.studies.estimate import DataSize
    from ..training.studies.study import Options, Row, Study

_ENTRIES = ("name", "title", "control", "seeds", "splits", "data", "defaults", "rows")
_COMMANDS: dict[str, click.Command] = {"propose": propose, "train": train, "evaluate": evaluate}
# Options that the study gives itself, and those that would end a run early or make it another one's.
_OWN = {
    "propose": ("boxes", "restart"),
    "train": (
        "boxes",
        "run",
        "seed",
        "seeds",
        "folds",
        "resume",
        "stop-after",
        "dry-run",
        "json",
        "config",
        "keep-states",
    ),
    "evaluate": ("boxes", "run", "json", "csv", "aggregate", "sizes", "crops"),
}
# Options that do not decide the result, or name a place.
_FREE = {"root", "run", "title", "boxes", "jobs", "no_preview", "max_unreadable", "workers", "device", "save_every"}
_SAMPLED_PERSONS = 1000  # images: whole persons are sampled
_A_NAME = re.compile(r"[\w.+-]+")

_Values = Mapping[str, Any]


@dataclass(frozen=True)
class Given:
    """What the command line puts in place of the file's values."""

    data: _Values = field(default_factory=dict)  #: in place of single options of ``data``; with dataset or csv, of all
    defaults: Mapping[str, _Values] = field(default_factory=dict)  #: by command, in place of single defaults
    output: Path | None = None


class StudyFile:
    """A study file, read and checked.

    Args:
        file: YAML or JSON file.
        given: Values of the command line.

    Raises: `ConfigurationError` for anything that is not a study, naming row and option.
    """

    def __init__(self, file: Path, given: Given) -> None:
        self._file, self._given = file, given
        self._content = read_mapping(file)
        self._check_names("", self._content, _ENTRIES)
        self._rows = self._section("rows")
        if not self._rows:
            self._fail("it has no rows")
        self._check_folders("row", self._rows)
        self._name = self._text("name", file.stem)
        self._check_name("name", self._name)
        self._folder = given.output or Path("studies-out") / self._name
        self._contexts: dict[str, click.Context] = {}  #: of the proposals of each boxes file

    def study(self) -> Study:
        """Build the study; every option of every row is checked as its command would."""
        from ..training.studies.study import Study

        control = self._text("control", next(iter(self._rows)))
        if control not in self._rows:
            self._unknown("control", control, self._rows)
        rows = [row for data, options in self._data().items() for row in self._rows_on(data, options)]
        self._check_splits(rows)
        return Study(
            name=self._name,
            folder=self._folder,
            control=control,
            seeds=self._seeds("seeds", [0]),
            rows=tuple(rows),
            title=self._text("title", self._name),
            splits=self._splits(),
        )

    def size(self, row: Row) -> DataSize:
        """Return the size of a row's data set, which is opened for it."""
        from ..data.index import ALL_SPLITS
        from ..training.studies.estimate import DataSize

        index = data_set(self._contexts[row.boxes_name])
        counts = {split: int((index.splits == split).sum()) for split in ALL_SPLITS}
        groups = len({*zip(index.labels.tolist(), index.splits.tolist(), strict=True)})
        return DataSize(counts, _SAMPLED_PERSONS if index.is_retrieval else groups)

    # --- parts of the file

    def _section(self, name: str) -> dict[str, Any]:
        value = self._content.get(name) or {}
        if not isinstance(value, dict):
            self._fail(f"{name}: wanted a section of names and values, got {shown(value)}")
        return value

    def _text(self, name: str, otherwise: str) -> str:
        value = self._content.get(name, otherwise)
        if value is None or isinstance(value, (list, dict)):
            self._fail(f"{name}: wanted a text, got {shown(value)}")
        return str(value)

    def _seeds(self, name: str, otherwise: list[int]) -> tuple[int, ...]:
        value = self._content.get(name, otherwise)
        value = [value] if isinstance(value, int) else value
        known = isinstance(value, list) and value and all(type(one) is int and 0 <= one < 2**32 for one in value)
        if not known or len(set(value)) < len(value):
            self._fail(f"{name}: wanted a list of different whole numbers, 0 or more, got {value!r}")
        return tuple(value)

    def _splits(self) -> tuple[int, ...]:
        return self._seeds("splits", []) if "splits" in self._content else ()

    def _data(self) -> dict[str, _Values]:
        """Options of each data set by its name, a data set of several splits once for each."""
        given = self._given.data
        found = {} if {"dataset", "csv"} & given.keys() else self._section("data")
        if not found or not all(isinstance(value, dict) for value in found.values()):
            found = {_name_of({**found, **given}): found}
        self._check_folders("data", found)
        options: dict[str, _Values] = {
            name: {**self._options_in(f"data {name}", values), **given} for name, values in found.items()
        }
        if not all({"dataset", "csv"} & values.keys() for values in options.values()):
            self._fail("it names no data set: give one with --dataset and --root, or in the file under data")
        if not (splits := self._splits()):
            return options
        for name, values in options.items():
            self._check_split_seed(f"data {name}", values, None)
        return {
            f"{name}-split-{split}": {**values, "split-seed": split}
            for name, values in options.items()
            for split in splits
        }

    def _rows_on(self, data: str, options: _Values) -> Iterator[Row]:
        defaults = self._section("defaults")
        self._check_names("defaults", defaults, _COMMANDS)
        for name, section in self._rows.items():
            row = section or {}
            if not isinstance(row, dict):
                self._fail(f"row {name}: wanted a section of names and values, got {shown(row)}")
            self._check_names(f"row {name}", row, (*_COMMANDS, "note"))
            yield self._row(name, data, self._sections(name, row, options, defaults), str(row.get("note", "")))

    def _sections(self, name: str, row: _Values, data: _Values, defaults: _Values) -> dict[str, dict[str, Any]]:
        """Options of a row by command: its own before those of the command line, of all rows and of the data set."""
        sections = {
            command: {
                **(data if command == "propose" else {}),
                **self._options_in(f"defaults, {command}", defaults.get(command)),
                **self._given.defaults.get(command, {}),
                **self._options_in(f"row {name}, {command}", row.get(command)),
            }
            for command in _COMMANDS
        }
        if self._splits():
            self._check_split_seed(f"row {name}, propose", sections["propose"], data["split-seed"])
        if "root" in data:  # which a boxes file does not record if it would tell a user's name
            sections["train"].setdefault("root", data["root"])
            sections["evaluate"].setdefault("root", data["root"])
        return sections

    def _row(self, name: str, data: str, sections: Mapping[str, dict[str, Any]], note: str) -> Row:
        from ..training.studies.study import Row

        entry = CATALOGUE.get(str(sections["propose"].get("dataset")))
        kind = defaults_of(clips=bool(entry and entry.of_clips), persons=bool(entry and entry.camera))
        parsed = {command: self._parsed(name, command, values, kind) for command, values in sections.items()}
        contexts = {command: context for command, (context, _) in parsed.items()}
        self._check_together(name, contexts)
        found = Row(
            name=name,
            data=data,
            note=note,
            split=contexts["evaluate"].params["split"],
            root=contexts["propose"].params["root"],
            epochs=chosen_recipe(contexts["train"]).epochs,
            **{command: _options(context, words) for command, (context, words) in parsed.items()},
        )
        self._contexts.setdefault(found.boxes_name, contexts["propose"])
        return found

    def _options_in(self, where: str, section: object) -> dict[str, Any]:
        if not isinstance(section or {}, dict):
            self._fail(f"{where}: wanted a section of options and values, got {shown(section)}")
        options: dict[str, Any] = dict(section or {})  # type: ignore[call-overload]
        return {name.replace("_", "-"): value for name, value in options.items()}

    # --- checks

    def _parsed(self, row: str, command: str, values: _Values, kind: _Values) -> tuple[click.Context, list[str]]:
        """Parse options as the command does, without running it, and return them as typed, too.

        ``kind``: defaults of `train` for the data set, which it takes from the boxes file.
        """
        where = f"row {row}, {command}"
        values = {name: value for name, value in values.items() if value is not None}  # leaves a default out
        known = {name.replace("_", "-"): it for name, it in named_options(click.Context(_COMMANDS[command])).items()}
        known.pop("help", None)
        for name in values:
            if name in _OWN[command]:
                self._fail(f"{where}: {name} is the study's own; leave it out")
            if name not in known:
                self._unknown(f"{where}: option", name, set(known) - {*_OWN[command]})
        words = [
            word for name, value in values.items() for word in self._words(f"{where}: {name}", *known[name], value)
        ]
        own = {"evaluate": ["--run", "run"], "train": ["--boxes", str(self._folder / "boxes" / "none.h5")]}
        all_words, defaults = [*words, *own.get(command, [])], dict(kind) if command == "train" else {}
        try:
            return _COMMANDS[command].make_context(command, all_words, default_map=defaults), words
        except click.ClickException as error:
            self._fail(f"{where}: {error.format_message()}")

    def _words(self, where: str, option: click.Option, on: bool, value: Any) -> list[str]:
        if option.is_flag:
            if not isinstance(value, bool):
                self._fail(f"{where}: wanted true or false, got {shown(value)}")
            flags = option.opts if value == on else option.secondary_opts
            return list(flags[-1:])
        if option.multiple and isinstance(value, list):
            return [word for one in value for word in (option.opts[-1], str(one))]
        if SIZES in option.opts and isinstance(value, list):
            value = " ".join(map(str, value))
        if isinstance(value, (bool, list, dict)):
            self._fail(f"{where}: wanted one value, got {shown(value)}")
        return [option.opts[-1], str(value)]

    def _check_together(self, row: str, contexts: Mapping[str, click.Context]) -> None:
        """Check what the commands would find out only once they run."""
        from ..data.errors import AgnetError
        from ..training.loop.preflight import check_backbone, check_views, check_weights

        try:
            layout = proposal_settings(contexts["propose"]).layout
            recipe = chosen_recipe(contexts["train"])
            model = model_settings(contexts["train"], classes=2, regions=layout.count)
            for stream in model.streams:
                check_backbone(stream.backbone)
            check_views(recipe.views, model)
            check_weights(contexts["train"].params["weights"], model)
        except AgnetError as error:
            self._fail(f"row {row}: {error}")
        if not layout.count and looks_at_regions(contexts["train"]):
            self._fail(f"row {row}: --model {model.model} needs regions, and propose has the method {NONE}")

    def _check_splits(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.split != rows[0].split:
                told = [one or "not given" for one in (row.split, rows[0].split)]
                self._fail(
                    f"row {row.name}, evaluate: split is {told[0]}, and {told[1]} in row {rows[0].name}; rows are "
                    "compared on the same images, so give it under defaults"
                )

    def _check_names(self, where: str, section: _Values, known: Collection[str]) -> None:
        for name in section:
            if name not in known:
                self._unknown(f"{where}: entry" if where else "entry", name, known)

    def _check_split_seed(self, where: str, options: _Values, wanted: int | None) -> None:
        if options.get("split-seed") != wanted:
            self._fail(f"{where}: split-seed is the study's own, since the file has splits; leave it out")

    def _check_folders(self, what: str, names: Collection[str]) -> None:
        """Check names of folders, which some systems do not tell apart by case."""
        from ..data.text import composed

        seen: dict[str, str] = {}
        for name in names:
            self._check_name(what, name)
            other = seen.setdefault(composed(name).casefold(), name)
            if other != name:
                self._fail(f"{what} {name!r} and {other!r}: names must differ by more than upper and lower case")

    def _check_name(self, what: str, name: str) -> None:
        if not _A_NAME.fullmatch(name) or set(name) <= {"."} or len(name) > 60:
            self._fail(f"{what} {shown(name)}: wanted at most 60 letters, digits and . + - _, which is a folder's name")

    def _unknown(self, what: str, name: Any, known: Collection[str]) -> NoReturn:
        from ..data.spelling import did_you_mean

        self._fail(f"{what} {shown(name)} is unknown{did_you_mean(str(name), known)}")

    def _fail(self, complaint: str) -> NoReturn:
        from ..data.errors import ConfigurationError

        raise ConfigurationError(f"{self._file}: {complaint}")


def _name_of(data: _Values) -> str:
    """Name of a data set, from its options: its own, or that of its folder or list."""
    from ..data.text import file_name

    dataset = str(data.get("dataset", "csv"))
    place = data.get("csv") or data.get("root")
    return file_name(Path(str(place)).resolve().stem if place and dataset in ("folder", "csv", "clips") else dataset)


def _options(context: click.Context, words: list[str]) -> Options:
    """Return the words of a command, and those of its values that decide the result and are not the defaults."""
    from ..training.runs.folder import weights_name
    from ..training.studies.study import Options

    found = {}
    for parameter in context.command.get_params(context):
        name, value = str(parameter.name), context.params.get(str(parameter.name))
        if by_the_user(context, name) and name not in _FREE and value != parameter.get_default(context):
            private = isinstance(value, Path) or name == "weights"  # its folder may have a user's name
            found[name] = weights_name(str(value)) if private else value
    return Options(tuple(words), found)
