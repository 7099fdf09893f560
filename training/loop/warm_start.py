"""Start a run from another run's weights: the backbone, and the parts of head and classifier that fit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ...data.errors import CheckpointError
from ..models.contract import Settings
from ..models.model import BACKBONE, CLASSIFIER, HEAD, Model, kind_of, path_of
from ..runs.checkpoints import Checkpoint, load_checkpoint
from ..runs.folder import BEST, checkpoint_hash, weights_name
from ..runs.seen import UNKNOWN, read_seen
from .preflight import parents_checkpoint

STARTED_FROM = "started_from"  #: section in the configuration of a run

_NAMED = 3  # number of classes named in a message


@dataclass(frozen=True)
class Parent:
    """A run whose weights initialise another run."""

    name: str  #: name of its folder
    checkpoint: Checkpoint
    digest: str  #: `checkpoint_hash`
    contents: list[str]  #: hashes of the images seen by it and its own parents; `UNKNOWN` if not recorded

    def provenance(self) -> dict[str, dict[str, object]]:
        """Return the section for the configuration of the new run."""
        about = {"run": self.name, "checkpoint_blake2b": self.digest, "epoch": self.checkpoint.epoch}
        return {STARTED_FROM: about}

    def hand_over(self, model: Model, settings: Settings, classes: Sequence[str]) -> str:
        """Copy the weights that fit into ``model``: the backbone with its preprocessing, each part of the head with
        the same shapes, and the classifier's rows for classes of the same name.

        Args:
            model: Network to initialise.
            settings: Settings of ``model``.
            classes: Class names of the new run.

        Returns: A line that lists what was copied, and what starts from scratch and why.
        Raises: `CheckpointError` if the backbone does not fit.
        """
        mine, theirs = _Weights.of(model), _Weights.of(self.checkpoint.model)
        state = self._backbones(mine, theirs, settings)
        taken, anew = ["backbone" if len(model.backbones) == 1 else "backbones"], defaultdict[str, list[str]](list)
        for path in mine.paths(HEAD):  # a part is copied as a whole or not at all
            own, found = mine.part(path), theirs.part(path)
            if _shapes(own) == _shapes(found):
                state |= {path + name: value for name, value in found.items()}
                taken.append(model.title(path))
            else:
                anew[self._reason(settings) if found else f"{self.name} has none"].append(model.title(path))
        rows, said = self._classifier(mine, theirs, classes)
        state |= rows
        if rows:
            taken.append("classifier")
        if said:
            anew[said].append("classifier")
        model.load_state_dict(mine.state | state)
        for backbone, trained in zip(model.backbones, self.checkpoint.model.backbones, strict=True):
            backbone.preprocessing = trained.preprocessing
        model.size_hw = self.checkpoint.model.size_hw
        news = "; ".join(f"{' and '.join(titles)} ({reason})" for reason, titles in anew.items())
        begins = f"; from scratch: {news}" if news else ""
        return f"weights of {self.name}, epoch {self.checkpoint.epoch}: {', '.join(taken)}{begins}"

    def _reason(self, settings: Settings) -> str:
        """Return why a part of the head that both networks have differs in its shapes, as far as settings tell."""
        before = self.checkpoint.settings
        if before.model != settings.model:
            return f"model {before.model} there"
        names = [one.name for one in fields(settings) if getattr(before, one.name) != getattr(settings, one.name)]
        said = [f"{name.replace('_', ' ')} {getattr(before, name)} there" for name in names if name != "classes"]
        return ", ".join(said) or "other shapes there"

    def _backbones(self, mine: _Weights, theirs: _Weights, settings: Settings) -> dict[str, Tensor]:
        """Return the weights of the parent's backbones under this network's names. Raises: `CheckpointError`."""
        here, there = mine.paths(BACKBONE), theirs.paths(BACKBONE)
        if [_shapes(mine.part(path)) for path in here] != [_shapes(theirs.part(path)) for path in there]:
            raise CheckpointError(f"the backbone of {self.name} has weights of other shapes than {settings.backbones}")
        return {
            path + name: value
            for path, other in zip(here, there, strict=True)
            for name, value in theirs.part(other).items()
        }

    def _classifier(self, mine: _Weights, theirs: _Weights, classes: Sequence[str]) -> tuple[dict[str, Tensor], str]:
        """Return the classifier with copied rows of the common classes, and what starts from scratch and why."""
        own, found = mine.of_kind(CLASSIFIER), theirs.of_kind(CLASSIFIER)
        if own.keys() != found.keys() or any(own[name].shape[1:] != found[name].shape[1:] for name in own):
            return {}, "another number of inputs there"
        place = {name: row for row, name in enumerate(self.checkpoint.classes)}
        common = [(row, place[name]) for row, name in enumerate(classes) if name in place]
        if not common:
            return {}, "no class of the same name there"
        to, origin = (torch.tensor(rows) for rows in zip(*common, strict=True))
        merged = {name: own[name].index_copy(0, to, found[name][origin]) for name in own}
        new = [name for name in classes if name not in place]
        if not new:
            return merged, ""
        named = ", ".join(new[:_NAMED]) + (f" and {len(new) - _NAMED:,} more" if len(new) > _NAMED else "")
        return merged, f"{len(new):,} of {len(classes):,} classes, unknown to {self.name}: {named}"


def find_parent(source: str, settings: Settings) -> Parent | None:
    """Load the run that ``--weights`` names by its folder or its checkpoint; None if it names something else.

    Raises: `CheckpointError` as in `parents_checkpoint`, and for a damaged checkpoint.
    """
    path = parents_checkpoint(source, settings)
    if path is None:
        return None
    seen = read_seen(path.parent) if path.name == BEST else None
    contents = sorted([UNKNOWN] if seen is None else seen)
    return Parent(weights_name(source), load_checkpoint(path), checkpoint_hash(path), contents)


@dataclass(frozen=True)
class _Weights:
    """A network's state dict and its parts."""

    state: dict[str, Tensor]
    parts: dict[str, str]

    @classmethod
    def of(cls, model: Model) -> _Weights:
        return cls(model.state_dict(), model.parts())

    def paths(self, kind: str) -> list[str]:
        """Return the paths of all parts of a kind, in order."""
        return [path for path, one in self.parts.items() if one == kind]

    def part(self, path: str) -> dict[str, Tensor]:
        """Return a part's weights, named relative to its path; empty if the network has no such part."""
        mine = (name for name in self.state if path_of(self.parts, name) == path)
        return {name.removeprefix(path): self.state[name] for name in mine}

    def of_kind(self, kind: str) -> dict[str, Tensor]:
        """Return the weights of all parts of a kind, by name."""
        return {name: value for name, value in self.state.items() if kind_of(self.parts, name) == kind}


def _shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}
