"""A run that begins with another run's weights: the backbone, and what of the head and the classifier fits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...data.errors import CheckpointError
from ..models.contract import Settings
from ..models.model import BACKBONE, CLASSIFIER, HEAD, Model, kind_of, path_of
from ..runs.checkpoints import Checkpoint, load_checkpoint
from ..runs.folder import BEST, checkpoint_hash, weights_name
from ..runs.seen import UNKNOWN, read_seen
from .preflight import parents_checkpoint

STARTED_FROM = "started_from"  #: the section of a run's configuration

_SHAPING = ("stages", "regions", "use_regions", "units", "se", "se_ratio", "spectral_norm")  # settings of those
_NAMED = 3  # classes that are named in a line


@dataclass(frozen=True)
class Parent:
    """A run whose weights another one begins with."""

    name: str  #: of its folder
    checkpoint: Checkpoint
    digest: str  #: `checkpoint_hash`
    contents: list[str]  #: of the images that it, and the run it began from, have seen; `UNKNOWN` if it does not say

    def provenance(self) -> dict[str, dict[str, object]]:
        """For the configuration of the run that begins."""
        about = {"run": self.name, "checkpoint_blake2b": self.digest, "epoch": self.checkpoint.epoch}
        return {STARTED_FROM: about}

    def hand_over(self, model: Model, settings: Settings, classes: Sequence[str]) -> str:
        """Copy into ``model`` what fits: the backbone with its preprocessing, each part of the head that has the same
        shapes, and the classifier's rows of classes of the same name.

        Returns: a line that says what was taken, and what begins anew and why.
        Raises: `CheckpointError` when the backbone does not fit.
        """
        mine, theirs = _Weights.of(model), _Weights.of(self.checkpoint.model)
        state = self._backbones(mine, theirs, settings)
        taken, anew = ["backbone" if len(model.backbones) == 1 else "backbones"], defaultdict[str, list[str]](list)
        for path in mine.paths(HEAD):  # a part is taken as a whole or not at all
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
        model.size_hw = self.checkpoint.size_hw
        news = "; ".join(f"{' and '.join(titles)} ({reason})" for reason, titles in anew.items())
        begins = f"; begin anew: {news}" if news else ""
        return f"weights of {self.name}, epoch {self.checkpoint.epoch}: {', '.join(taken)}{begins}"

    def _reason(self, settings: Settings) -> str:
        before = self.checkpoint.settings
        differing = [name for name in _SHAPING if getattr(before, name, None) != getattr(settings, name, None)]
        said = [f"{name.replace('_', ' ')} {getattr(before, name)} there" for name in differing]
        return ", ".join(said) or "of other shapes there"

    def _backbones(self, mine: _Weights, theirs: _Weights, settings: Settings) -> dict[str, Tensor]:
        """The parent's backbones, in their order, under this network's names. Raises: `CheckpointError`."""
        here, there = mine.paths(BACKBONE), theirs.paths(BACKBONE)
        if [_shapes(mine.part(path)) for path in here] != [_shapes(theirs.part(path)) for path in there]:
            raise CheckpointError(f"the backbone of {self.name} has other weights than this one's {settings.backbones}")
        return {
            path + name: value
            for path, other in zip(here, there, strict=True)
            for name, value in theirs.part(other).items()
        }

    def _classifier(self, mine: _Weights, theirs: _Weights, classes: Sequence[str]) -> tuple[dict[str, Tensor], str]:
        """The classifier's weights with the rows of the classes that both know, and what of it begins anew and why."""
        own, found = mine.of_kind(CLASSIFIER), theirs.of_kind(CLASSIFIER)
        if own.keys() != found.keys() or any(own[name].shape[1:] != found[name].shape[1:] for name in own):
            return {}, "of another number of inputs there"
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
        return merged, f"of {len(new):,} of {len(classes):,} classes, which {self.name} does not know: {named}"


def find_parent(source: str, backbone: str) -> Parent | None:
    """The run that ``--weights`` names by its folder or its checkpoint; None where it names something else.

    Raises: `CheckpointError` as `parents_checkpoint`, and for a checkpoint that is not sound.
    """
    path = parents_checkpoint(source, backbone)
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
        """Paths of the parts of a kind, in their order."""
        return [path for path, one in self.parts.items() if one == kind]

    def part(self, path: str) -> dict[str, Tensor]:
        """A part's weights by what follows the path in their names; empty where the network has no such part."""
        mine = (name for name in self.state if path_of(self.parts, name) == path)
        return {name.removeprefix(path): self.state[name] for name in mine}

    def of_kind(self, kind: str) -> dict[str, Tensor]:
        """The weights of all parts of a kind, by their names."""
        return {name: value for name, value in self.state.items() if kind_of(self.parts, name) == kind}


def _shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}
