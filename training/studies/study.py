"""A study as a plan: rows, and the commands that propose, train and evaluate them in order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ...data.text import file_name

PROPOSE, TRAIN, EVALUATE = "propose", "train", "evaluate"
COMMANDS = (PROPOSE, TRAIN, EVALUATE)


@dataclass(frozen=True)
class Options:
    """Options of one command, checked."""

    words: tuple[str, ...] = ()  #: as typed, without the files and the seed, which the study names
    values: Mapping[str, object] = field(default_factory=dict)  #: JSON values that decide the result, by name


@dataclass(frozen=True)
class Row:
    """One configuration on one data set: a line of the table."""

    name: str
    data: str  #: name of the data set, or of one of its splits
    propose: Options
    train: Options
    evaluate: Options = Options()
    note: str = ""
    split: str | None = None  #: split that is measured; None for test, or query
    root: Path | None = None  #: folder of the data set, if the study names one
    epochs: int = 0  #: number of epochs of a run, for the time left; 0 if unknown

    @property
    def key(self) -> str:
        return f"{self.data}/{self.name}"

    @property
    def boxes_name(self) -> str:
        """File name without suffix. Rows with the same proposal options on the same data share the file."""
        values = {name: value for name, value in self.propose.values.items() if name not in _OF_THE_DATA}
        told = "-".join([self.data, *(f"{name}-{value}" for name, value in values.items() if name != "method")])
        method = str(values.get("method", "sift"))
        text = json.dumps([self.data, sorted(self.propose.values.items())], ensure_ascii=False)
        return f"{file_name(f'{told}-{method}')}-{hashlib.blake2b(text.encode(), digest_size=3).hexdigest()}"


_OF_THE_DATA = ("dataset", "list_file", "limit", "val_fraction", "split_seed", "split_number", "protocol")


@dataclass(frozen=True)
class Study:
    """Rows, a control among them, that are trained with the same seeds and compared on the same images."""

    name: str
    folder: Path  #: where boxes files, runs, logs and results are written
    control: str
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    title: str = ""
    splits: tuple[int, ...] = ()  #: seeds of repeated splits, each of which is a data set of its own, NAME-split-SEED

    def only(self, names: Collection[str]) -> Study:
        """The study of some rows and the control."""
        return replace(self, rows=tuple(row for row in self.rows if row.name in {*names, self.control}))

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.data for row in self.rows))

    def rows_of(self, data: str) -> list[Row]:
        """Rows on one data set, the control first."""
        found = [row for row in self.rows if row.data == data]
        return sorted(found, key=lambda row: row.name != self.control)

    def boxes(self, row: Row) -> Path:
        return self.folder / "boxes" / f"{row.boxes_name}.h5"

    def run(self, row: Row) -> Path:
        """Folder that holds a run for each seed."""
        return self.folder / "runs" / row.data / row.name

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """Everything that has to be done: boxes files, then every row with the first seed, with the second, ...

        So an unfinished study has rows with equal numbers of seeds.
        """
        pairs = (unit for seed in self.seeds for row in self.rows for unit in self._pair(row, seed))
        return (*self._proposals(), *pairs)

    def _proposals(self) -> Iterator[Unit]:
        shared: dict[str, Row] = {}
        for row in self.rows:
            shared.setdefault(row.boxes_name, row)
        for name, row in shared.items():
            boxes = self.boxes(row)
            words = (*row.propose.words, "--boxes", str(boxes))
            yield Unit(PROPOSE, f"{PROPOSE}-{name}", words, boxes, row)

    def _pair(self, row: Row, seed: int) -> Iterator[Unit]:
        run, boxes = self.run(row) / f"seed-{seed}", self.boxes(row)
        place = f"{row.name}@{row.data}-seed-{seed}"  # @ is in no name: a-b with c is not taken for a with b-c
        words = (*row.train.words, "--boxes", str(boxes), "--seed", str(seed), "--run", str(run))
        yield Unit(TRAIN, f"{TRAIN}-{place}", words, run, row, seed)
        words = (*row.evaluate.words, "--boxes", str(boxes), "--run", str(run))
        yield Unit(EVALUATE, f"{EVALUATE}-{place}", words, run, row, seed)


@dataclass(frozen=True)
class Unit:
    """One command, run in a process of its own."""

    kind: str  #: one of `COMMANDS`
    name: str  #: unique in the study, and a file name
    words: tuple[str, ...]  #: options of the command
    target: Path  #: boxes file or run folder
    row: Row  #: of a boxes file, the first row that uses it
    seed: int | None = None

    @property
    def told(self) -> str:
        """The unit in words."""
        whose = self.target.stem if self.kind == PROPOSE else f"{self.row.key}, seed {self.seed}"
        return f"{self.kind} {whose}"
