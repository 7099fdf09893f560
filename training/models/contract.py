"""The contract of every model: its settings, what it needs, what it says, and what its parameters are part of.

Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from ...data.fields import AT_LEAST_1, broken_rule, setting

if TYPE_CHECKING:
    from torch import Tensor

NETWORK = "Network"


class Output(NamedTuple):
    """What a model says about B samples. Trainer, metrics and figures ask for nothing else."""

    logits: Tensor  #: ``(B, classes)``, or ``(B, T, classes)`` of one that answers for each frame
    #: ``(B, R + 1)``, ≥ 0, sum 1, the whole image last: what each token's feature is multiplied by on its way to what
    #: is classified, as a share
    region_weights: Tensor | None = None
    attention_map: Tensor | None = None  #: ``(B, h, w)`` or ``(B, T, h, w)``, ≥ 0, sum 1: where the model looks
    embedding: Tensor | None = None  #: ``(B, C)``, what the classifier sees
    losses: dict[str, Tensor] | None = None  #: auxiliary ones by name, each of every sample ``(B,)``


class Stream(NamedTuple):
    """A backbone that a model has."""

    backbone: str  #: its name
    stages: int = 1  #: maps that it gives, counted from the last back


@dataclass(frozen=True)
class Needs:
    """What a model is given."""

    regions: int = 0  #: R of an image; with 0 none are computed for it


@dataclass(frozen=True)
class Settings:
    """What every family's settings have; each has a class of its own."""

    model: ClassVar[str]  #: the family's name in the registry

    classes: int = setting(NETWORK, "Number of classes.", AT_LEAST_1)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The model's backbones."""
        raise NotImplementedError

    @property
    def backbones(self) -> str:
        """Their names, for people."""
        return " + ".join(dict.fromkeys(stream.backbone for stream in self.streams))


def check_settings(settings: Settings) -> None:
    """Raises: `ValueError` for a value that its field's rule does not allow."""
    if broken := broken_rule(settings):
        raise ValueError(": ".join(broken))


@dataclass(frozen=True)
class ModelSpec:
    """A family of models, without loading it."""

    about: str  #: for people
    settings: type[Settings]
    needs: Callable[..., Needs]  #: of its settings
    builder: str  #: "module:function" beside the registry: (settings, backbones, one of each stream) -> model
