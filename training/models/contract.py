"""Contract of every model: its settings, its inputs, its output and its registry entry.

Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from ...data.fields import AT_LEAST_1, broken_rule, choice, setting

if TYPE_CHECKING:
    from torch import Tensor

NETWORK = "Network"
NECKS = ("none", "batch-norm")


class Output(NamedTuple):
    """Output of a model for B samples. Training, metrics and figures use nothing else."""

    logits: Tensor  #: ``(B, classes)``, or ``(B, T, classes)`` from a model that classifies T frames
    #: ``(B, R + 1)`` or ``(B, T, R + 1)``, ≥ 0, sum 1, the whole image last: the coefficient of each token in the
    #: joined feature, divided by the sum of all coefficients; what a shortcut adds to that feature is not counted
    region_weights: Tensor | None = None
    attention_map: Tensor | None = None  #: ``(B, h, w)`` or ``(B, T, h, w)``, ≥ 0, sum 1: attention per position
    embedding: Tensor | None = None  #: ``(B, C)``, input of the classifier, before dropout
    losses: dict[str, Tensor] | None = None  #: auxiliary losses by name, each per sample ``(B,)``
    compared: Tensor | None = None  #: ``(B, C)``, embedding before the neck, for the triplet loss; None without a neck


class Stream(NamedTuple):
    """A backbone of a model."""

    backbone: str  #: name of the backbone
    stages: int = 1  #: number of feature maps, counted back from the last


@dataclass(frozen=True)
class Needs:
    """Inputs that a model needs."""

    regions: int = 0  #: number of regions per image, R; 0: none are computed


@dataclass(frozen=True)
class Settings:
    """Base class of the settings of every family of models."""

    model: ClassVar[str]  #: name of the family in the registry

    classes: int = setting(NETWORK, "Number of classes.", AT_LEAST_1)
    neck: str = choice(
        NETWORK,
        "Neck between the embedding and the classifier; batch-norm: for retrieval (Luo et al., 2019).",
        NECKS,
        "none",
        kw_only=True,
    )

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Backbones of the model."""
        raise NotImplementedError

    @property
    def backbones(self) -> str:
        """Names of the backbones, for display."""
        return " + ".join(dict.fromkeys(stream.backbone for stream in self.streams))


def check_settings(settings: Settings) -> None:
    """Check every field. Raises: `ValueError` for a value that its field's rule does not allow."""
    if broken := broken_rule(settings):
        raise ValueError(": ".join(broken))


@dataclass(frozen=True)
class ModelSpec:
    """Registry entry of a family of models; it does not load the family."""

    about: str  #: one-line description
    settings: type[Settings]
    needs: Callable[..., Needs]  #: settings -> inputs of the model
    builder: str  #: "module:function", relative to the registry: (settings, one backbone per stream) -> model
