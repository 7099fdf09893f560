"""Settings of the networks; importing them loads nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...data.fields import A_NAME, ABOVE_0, ANY, AT_LEAST_1, NOT_NEGATIVE, Rule, between, choice, setting
from .contract import NETWORK, Needs, Settings, Stream

FUSIONS = ("learned", "max", "mean")
SE_KINDS = ("slot", "shared", "none")
POOLINGS = ("align", "crop")
TEMPORALS = ("frames", "mean", "attention", "alstm")
BILINEAR_SUMS = ("full", "compact", "lowrank")
BILINEAR_POSITIONS = ("lowrank", "compact")
ATTENTIONS = ("static", "recurrent")
READOUTS = ("mean", "last")
SCORES = ("content", "location", "hidden")
COVERAGE_TARGETS = ("even", "one")
STARTS = ("zero", "conv")
FRAME_READOUTS = ("gap", "flatten")
DIRECTIONS: Rule = ("1 or 4", lambda value: value in (1, 4))

PARTS = "AG-Net's parts"
BACKBONE = "Name of the backbone, torchvision:NAME or timm:NAME."
STREAMS, SPATIAL = "Two streams", "SRBN's parts"
RECURRENT = "Attention from frame to frame"


@dataclass(frozen=True)
class AGNetSettings(Settings):
    """Settings that determine the architecture of AG-Net; the defaults are the paper's."""

    model: ClassVar[str] = "agnet"

    regions: int = setting(
        NETWORK,
        "Number of regions per image, R, primary and secondary together.",
        NOT_NEGATIVE,
        36,
        option="region-count",
    )
    backbone: str = setting(NETWORK, BACKBONE, A_NAME, "resnet50")
    units: int = setting(PARTS, "Width of the inter-attention.", AT_LEAST_1, 32, needs=("inter_attention", True))
    se_ratio: int = setting(
        PARTS, "Reduction ratio of the SE-Residual blocks.", AT_LEAST_1, 16, needs=("se", ("slot", "shared"))
    )
    spectral_norm: bool = setting(
        PARTS,
        "Spectral normalisation of the self-attention's projections.",
        ANY,
        False,
        needs=("self_attention", True),
    )
    attention_softmax: bool = setting(
        PARTS, "Softmax after the inter-attention's sigmoid.", ANY, False, needs=("inter_attention", True)
    )
    # The next three remove parts: the rows of the paper's Table VII.
    use_regions: bool = setting(
        PARTS, "Region tokens. Off: the whole image is the only token.", ANY, True, off="no-regions"
    )
    self_attention: bool = setting(
        PARTS, "Self-attention. Off: regions are pooled from the backbone's own map.", ANY, True
    )
    inter_attention: bool = setting(PARTS, "Inter-attention. Off: tokens are averaged.", ANY, True)
    fusion: str = choice(
        PARTS,
        "Fusion of max and average pooling. learned: sum with learned weights (Eq. 4); max or mean: that one alone.",
        FUSIONS,
        "learned",
    )
    se: str = choice(PARTS, "SE-Residual blocks: one per token slot, one for all tokens, or none.", SE_KINDS, "slot")
    pooling: str = choice(
        PARTS,
        "Region pooling: RoIAlign, or whole cells of a map resized to 42 x 42 (the authors' sister code).",
        POOLINGS,
        "align",
    )
    pooling_samples: int = setting(
        PARTS,
        "Number of bilinear samples along each side of a RoIAlign bin.",
        between(1, 16),
        1,
        needs=("pooling", "align"),
    )
    shortcut: bool = setting(
        PARTS,
        "Shortcut: the classifier's input is the last map's average plus a learned multiple of F, initially 0; not in "
        "the paper.",
        ANY,
        False,
    )
    stages: int = setting(
        PARTS,
        "Number of feature maps of the backbone that regions are pooled from, counted back from the last.",
        AT_LEAST_1,
        1,
    )
    temporal: str = choice(
        PARTS,
        "Treatment of a clip's frames. frames: each as an image, probabilities averaged; mean, attention: each "
        "region's mean over the frames, or a sum with learned weights; alstm: an LSTM over the frames that also "
        "weights the regions; all but frames not in the paper.",
        TEMPORALS,
        "frames",
    )
    region_channels: int = setting(
        PARTS,
        "Number of channels that a 1 x 1 convolution reduces the last map to before self-attention; 0: no convolution.",
        NOT_NEGATIVE,
        0,
        needs=("temporal", TEMPORALS[1:]),
    )
    lstm_units: int = setting(PARTS, "Hidden units of the LSTM.", AT_LEAST_1, 512, needs=("temporal", "alstm"))

    @property
    def streams(self) -> tuple[Stream, ...]:
        return (Stream(self.backbone, self.stages),)


def agnet_needs(settings: AGNetSettings) -> Needs:
    """Return the inputs of AG-Net: images, and regions unless they are switched off."""
    of_clips = settings.temporal != "frames"
    return Needs(regions=settings.regions if settings.use_regions else 0, views=not of_clips)


@dataclass(frozen=True)
class PlainSettings(Settings):
    """Settings that determine the architecture of a plain backbone."""

    model: ClassVar[str] = "plain"

    backbone: str = setting(NETWORK, BACKBONE, A_NAME, "resnet50")

    @property
    def streams(self) -> tuple[Stream, ...]:
        return (Stream(self.backbone),)


def plain_needs(settings: PlainSettings) -> Needs:
    """Return the inputs of a plain backbone: images only."""
    return Needs()


@dataclass(frozen=True)
class TwoStreamSettings(Settings):
    """Settings of the two streams of SRBN and B-CNN."""

    backbone: str = setting(
        NETWORK, "Name of the first stream's backbone, torchvision:NAME or timm:NAME.", A_NAME, "vgg16-conv5"
    )
    second_backbone: str = setting(
        STREAMS,
        "Name of the second stream's backbone. The same name as the first's: one backbone, computed once.",
        A_NAME,
        "vgg11-conv5",
    )
    grid: int = setting(
        STREAMS,
        "Side of the square grid that both maps are resized to; 0: the grid of the first stream's map.",
        between(0, 64),
        0,
    )

    @property
    def streams(self) -> tuple[Stream, ...]:
        first, second = Stream(self.backbone), Stream(self.second_backbone)
        return (first,) if first == second else (first, second)


def stream_needs(settings: TwoStreamSettings) -> Needs:
    """Return the inputs of a model of two streams: images only."""
    return Needs()


def srbn_needs(settings: SRBNSettings) -> Needs:
    """Return the inputs of SRBN: images only. A larger one would give its LSTM another number of steps."""
    return Needs(views=False)


_RANK = "Rank of each low-rank bilinear channel."
_SKETCH = "Size of the tensor sketch of an outer product."


@dataclass(frozen=True)
class BCNNSettings(TwoStreamSettings):
    """Settings that determine the architecture of B-CNN."""

    model: ClassVar[str] = "bcnn"

    bilinear: str = choice(
        STREAMS,
        "Bilinear features: whole outer products, a tensor sketch of them, or low-rank products.",
        BILINEAR_SUMS,
        "full",
    )
    bilinear_channels: int = setting(
        STREAMS, "Number of low-rank bilinear channels.", AT_LEAST_1, 512, needs=("bilinear", "lowrank")
    )
    rank: int = setting(STREAMS, _RANK, AT_LEAST_1, 1, needs=("bilinear", "lowrank"))
    sketch: int = setting(STREAMS, _SKETCH, AT_LEAST_1, 8192, needs=("bilinear", "compact"))


@dataclass(frozen=True)
class SRBNSettings(TwoStreamSettings):
    """Settings that determine the architecture of SRBN."""

    model: ClassVar[str] = "srbn"

    bilinear: str = choice(
        STREAMS,
        "Bilinear features at each position: low-rank products, or a tensor sketch of the outer product.",
        BILINEAR_POSITIONS,
        "lowrank",
    )
    bilinear_channels: int = setting(STREAMS, "Number of bilinear channels at each position.", AT_LEAST_1, 512)
    rank: int = setting(STREAMS, _RANK, AT_LEAST_1, 1, needs=("bilinear", "lowrank"))
    sketch: int = setting(STREAMS, _SKETCH, AT_LEAST_1, 8192, needs=("bilinear", "compact"))
    attention: str = choice(
        SPATIAL,
        "Attention over the positions: static, once for the map; or recurrent, at each step of the LSTM from its "
        "neighbours' states, on a grid of at most 14 x 14.",
        ATTENTIONS,
        "static",
    )
    coverage: float = setting(
        SPATIAL,
        "Weight of the coverage loss, which penalises unequal total attention over positions.",
        NOT_NEGATIVE,
        0.0,
        needs=("attention", "recurrent"),
    )
    units: int = setting(SPATIAL, "Hidden units of the spatial LSTM, per direction.", AT_LEAST_1, 256)
    directions: int = setting(
        SPATIAL, "Corners that the spatial LSTM starts from: 4, or 1, the upper left.", DIRECTIONS, 4
    )
    stable: bool = setting(
        SPATIAL,
        "Stable cell: a weighted mean of both neighbours' memories instead of their sum, which may grow with the map.",
        ANY,
        False,
    )
    readout: str = choice(
        SPATIAL,
        "Readout: mean of the hidden states over all positions, or the last state of each direction.",
        READOUTS,
        "mean",
    )


_CARRY = (
    "Memory carried from frame to frame. Off: the LSTM restarts from zeros at every frame, and only the attention "
    "knows the previous frame's state, as in published code."
)


@dataclass(frozen=True)
class ALSTMSettings(Settings):
    """Settings that determine the architecture of ALSTM."""

    model: ClassVar[str] = "alstm"

    backbone: str = setting(NETWORK, BACKBONE, A_NAME, "vgg16")
    units: int = setting(RECURRENT, "Hidden units of the LSTM.", AT_LEAST_1, 512)
    score: str = choice(
        RECURRENT,
        "Scores that attention is computed from: content, of each position's features and the previous hidden state; "
        "location, of the frame's mean and that state; hidden, of that state alone.",
        SCORES,
        "content",
    )
    attention_units: int = setting(
        RECURRENT,
        "Hidden units of the scores; 0: half of the LSTM's.",
        NOT_NEGATIVE,
        0,
        needs=("score", ("content", "location")),
    )
    carry: bool = setting(RECURRENT, _CARRY, ANY, True)
    coverage: float = setting(
        RECURRENT,
        "Weight of the coverage loss, which penalises positions whose attention over all frames is not the target.",
        NOT_NEGATIVE,
        0.0,
    )
    coverage_target: str = choice(
        RECURRENT,
        "Target of the coverage loss for the attention of each position over all frames. even: frames / positions; "
        "one: 1, as published, which fewer frames than positions cannot reach.",
        COVERAGE_TARGETS,
        "even",
        needs=("coverage", ABOVE_0),
    )

    @property
    def streams(self) -> tuple[Stream, ...]:
        return (Stream(self.backbone),)


@dataclass(frozen=True)
class ConvALSTMSettings(Settings):
    """Settings that determine the architecture of ConvALSTM."""

    model: ClassVar[str] = "conv-alstm"

    backbone: str = setting(NETWORK, BACKBONE, A_NAME, "vgg16")
    units: int = setting(RECURRENT, "Channels of the LSTM's maps.", AT_LEAST_1, 256)
    carry: bool = setting(RECURRENT, _CARRY, ANY, True)
    rescale: bool = setting(
        RECURRENT,
        "Attended map times the number of positions, so that even attention changes nothing.",
        ANY,
        True,
    )
    start: str = choice(
        RECURRENT, "Initial states: zeros, or convolutions of the mean map over all frames.", STARTS, "zero"
    )
    readout: str = choice(
        RECURRENT,
        "Readout of each frame: mean of the hidden map, or all its values, of a map resized to 7 x 7.",
        FRAME_READOUTS,
        "gap",
    )

    @property
    def streams(self) -> tuple[Stream, ...]:
        return (Stream(self.backbone),)


def clip_needs(settings: ALSTMSettings | ConvALSTMSettings) -> Needs:
    """Return the inputs of a model of clips: frames only."""
    return Needs(views=False)
