"""Contract of every model: its settings, its inputs, its output and its registry entry.

Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ...data.fields import AT_LEAST_1, broken_rule, choice, setting

if TYPE_CHECKING:
    from torch import Tensor

NETWORK = "Network"
NECKS = ("none", "batch-norm")
NONE, FIVE = "none", "five"
CROPS = (NONE, FIVE)
STRIDE = 32  #: pixels, between two positions of most backbones' last maps
MOST_SIDE = 4096


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
    views: bool = True  #: whether it may see a photograph in several views (`Views`): its first input is images


@dataclass(frozen=True)
class Views:
    """Views of a photograph that one network sees with the same weights; its answers are averaged.

    Either the whole photograph at each of some sizes, or five crops: its corners and its centre, each at the size of
    the network's input, of a photograph that is 8/7 as large, as 256 pixels are for 224.

    Raises: `ValueError` for anything but sides that ascend and are multiples of `STRIDE`.
    """

    sizes: tuple[int, ...] = ()  #: sides of the square inputs in pixels, ascending; empty: five crops

    def __post_init__(self) -> None:
        sound = all(type(side) is int and side in _SIDES for side in self.sizes)
        if not sound or list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"sizes {str(self.sizes)[:80]}: wanted {SIZES_WANTED}")

    @classmethod
    def parse(cls, sizes: str = NONE, crops: str = NONE) -> Views | None:
        """Build the views of two options, sizes such as ``224 448`` and one of `CROPS`; None if both are `NONE`.

        Raises: `ValueError` for other sizes, or sizes and crops.
        """
        if NONE not in (sizes, crops):
            raise ValueError("sizes and crops are two kinds of views: leave one of them out")
        if sizes != NONE:
            return cls(tuple(map(int, sizes_text(sizes).split())))
        return cls() if crops != NONE else None

    @classmethod
    def of_record(cls, record: Any) -> Views | None:
        """Build the views from their record; None from None. Raises: `ValueError` for an invalid one."""
        if record is None or record == {"crops": FIVE}:
            return None if record is None else cls()
        sizes = record.get("sizes") if isinstance(record, dict) else None
        if not isinstance(sizes, list) or not sizes:
            raise ValueError(f"its views are {str(record)[:80]}")
        return cls(tuple(sizes))

    @property
    def record(self) -> dict[str, object]:
        """JSON values: ``{"sizes": [224, 448]}`` or ``{"crops": "five"}``."""
        return {"sizes": list(self.sizes)} if self.sizes else {"crops": FIVE}

    def __str__(self) -> str:
        return f"{' + '.join(map(str, self.sizes))} pixels" if self.sizes else "five crops"

    @property
    def options(self) -> str:
        """The option that asks for these views, as typed."""
        return f"--sizes {' '.join(map(str, self.sizes))}" if self.sizes else f"--crops {FIVE}"

    @property
    def part(self) -> str:
        """Part of the names of files, so that those of other views are not overwritten."""
        return self.options.removeprefix("-").replace(" ", "-")

    def input_hw(self, own_hw: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the photograph that the views are made of.

        Args:
            own_hw: Height and width of the network's input without views.
        """
        if self.sizes:
            return self.sizes[-1], self.sizes[-1]
        return round(own_hw[0] * 8 / 7), round(own_hw[1] * 8 / 7)

    def seen_hw(self, own_hw: tuple[int, int]) -> list[tuple[int, int]]:
        """Height and width of each view, from those of the network's input without views."""
        return [(side, side) for side in self.sizes] or [own_hw] * 5


_SIDES = range(STRIDE, MOST_SIDE + 1, STRIDE)
SIZES_WANTED = f"different multiples of {STRIDE} up to {MOST_SIDE}, such as 224 448"


def sizes_text(text: str) -> str:
    """Normalise text about sizes: numbers in ascending order, or `NONE`. Raises: `ValueError` for other text."""
    words = text.replace(",", " ").split()
    if words == [NONE]:
        return NONE
    if not words or not all(word.isascii() and word.isdecimal() and len(word) < 6 for word in words):
        raise ValueError(f"wanted {SIZES_WANTED}, got {text!r}")
    return " ".join(map(str, sorted(map(int, words))))


def are_sizes(text: object, least: int = 2) -> bool:
    """Whether a value is normalised text that is `NONE`, or names at least so many valid sizes."""
    if text == NONE:
        return True
    if not isinstance(text, str):
        return False
    try:
        views = Views.parse(text)
    except ValueError:
        return False
    return views is not None and len(views.sizes) >= least and sizes_text(text) == text


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
