"""Published results on the six data sets of the paper, for comparison; not reproduced."""

from __future__ import annotations

from dataclasses import dataclass

from ...data.boxes.reader import Boxes
from ...data.sets.catalogue import CATALOGUE
from ..models.contract import Settings
from ..models.settings import AGNetSettings


@dataclass(frozen=True)
class Claim:
    """Published results on the full test split of a data set, in [0, 1]."""

    of: str  #: network that the results are for
    top1: float
    mean_average_precision: float | None = None


# Top-1 and mAP of AG-Net with its best backbone; top-1 of the paper's plain ResNet-50.
_PAPER: dict[str, tuple[float, float, float | None]] = {
    "auc-v1": (0.9970, 0.9963, 0.9063),
    "auc-v2": (0.9665, 0.9539, 0.7410),
    "stanford40": (0.9783, 0.9621, 0.7646),
    "ppmi24": (0.9820, 0.9735, 0.7533),
    "food101": (0.9930, 0.9893, 0.8004),
    "caltech256": (0.9689, 0.9457, None),
}


def papers_claim(boxes: Boxes, split: str, settings: Settings) -> Claim | None:
    """Published results for a network on this split; None if the paper has none.

    Results apply to the full test split of the paper's data sets, and to AG-Net only with its default settings, apart
    from the backbone.
    """
    if boxes.dataset not in _PAPER or split != "test":
        return None
    counts = CATALOGUE[boxes.dataset].counts or {}
    if int((boxes.splits == "test").sum()) != counts.get("test"):
        return None
    top1, mean_average_precision, plain = _PAPER[boxes.dataset]
    if settings.model == "plain":
        return None if plain is None else Claim(f"its plain ResNet-50; this run uses plain {settings.backbones}", plain)
    if not isinstance(settings, AGNetSettings) or settings != AGNetSettings(
        settings.classes, backbone=settings.backbone
    ):
        return None
    return Claim(f"AG-Net with its best backbone; this run uses {settings.backbone}", top1, mean_average_precision)
