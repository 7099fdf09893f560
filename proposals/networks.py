"""Regions from networks, for the paper's Table VII: slow controls, and the only proposal methods that need torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision
from torch import nn
from torchvision.models import WeightsEnum

from ..data.errors import CheckpointError
from ..data.resizing import resize
from ..data.text import first_line
from .controls import groups_of_boxes
from .hulls import Groups
from .settings import ProposalSettings

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIDE = 224  # 7 x 7 cells in the last feature map
_KMEANS_STARTS = 3


def group_feature_map(image: np.ndarray, settings: ProposalSettings, weights: Path | None) -> Groups:
    """Cluster the cells of ResNet-50's last feature map into κ groups of similar features (k-means on unit vectors).

    A group's points are the corners of its cells, each a seventh of width and height. Its weight is its share of cells.
    (A cell stands for the pixels that it tiles, as in all pooling. Its receptive field lies about a third of a cell
    further left and up, since each of the network's strides starts at the first pixel.)
    """
    pixels = (resize(image, (_SIDE, _SIDE)).astype(np.float32) / 255 - _MEAN) / _STD
    with torch.inference_mode():
        features = _resnet50(weights)(torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None])[0]
    channels, rows, columns = features.shape
    vectors = nn.functional.normalize(features.reshape(channels, -1).T, dim=1).numpy()
    cv2.setRNGSeed(settings.seed & 0x7FFFFFFF)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 100, 1e-4)
    _, found, _ = cv2.kmeans(  # type: ignore[call-overload] # the stubs do not allow None for the start
        vectors, settings.primary, None, stop, _KMEANS_STARTS, cv2.KMEANS_PP_CENTERS
    )
    labels = found.ravel()
    row, column = np.divmod(np.arange(rows * columns), columns)
    corners = np.stack([np.stack([column + x, row + y], axis=1) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))], axis=1)
    corners = corners * (image.shape[1] / columns, image.shape[0] / rows)  # (places, 4, 2)
    share = np.bincount(labels, minlength=settings.primary) / len(labels)
    centres = [corners[labels == group].mean(axis=(0, 1)) for group in range(settings.primary)]
    return Groups(
        points_xy=corners.reshape(-1, 2),
        labels=np.repeat(labels, 4),
        weights=share,
        centres_xy=np.array(centres),
        distinct=(rows + 1) * (columns + 1),
    )


def group_detections(image: np.ndarray, settings: ProposalSettings, weights: Path | None) -> Groups:
    """Use the κ most confident boxes of torchvision's Mask R-CNN (ResNet-50 FPN, COCO) at its own scale and thresholds.

    A group's points are its box's corners, and its weight is the detection's share of all scores. Groups without a
    detection are empty.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
    with torch.inference_mode():
        (found,) = _mask_rcnn(weights)([pixels])
    boxes, scores = found["boxes"][: settings.primary], found["scores"][: settings.primary]
    return groups_of_boxes(boxes.double().numpy(), settings.primary, scores.double().numpy())


@cache
def _resnet50(weights: Path | None) -> nn.Module:
    network = torchvision.models.resnet50()
    network.fc = nn.Identity()
    state = _state(torchvision.models.ResNet50_Weights.DEFAULT, weights)
    _load(network, {name: value for name, value in state.items() if not name.startswith("fc.")}, weights)
    return nn.Sequential(*list(network.children())[:-2]).eval()


@cache
def _mask_rcnn(weights: Path | None) -> nn.Module:
    detection = torchvision.models.detection
    network = detection.maskrcnn_resnet50_fpn(weights_backbone=None)
    _load(network, _state(detection.MaskRCNN_ResNet50_FPN_Weights.DEFAULT, weights), weights)
    return network.eval()


def _state(published: WeightsEnum, file: Path | None) -> dict[str, torch.Tensor]:
    """The state dict in ``file``, or torchvision's published one, downloaded to its cache if necessary."""
    try:
        if file is not None:
            return torch.load(file, map_location="cpu", weights_only=True)
        return published.get_state_dict(progress=False, check_hash=True, map_location="cpu")
    except Exception as error:  # damaged files and failed downloads raise a dozen kinds of error
        reason = first_line(error)
        if file is not None:
            raise CheckpointError(f"{file} holds no readable weights ({reason})") from None
        raise CheckpointError(
            f"the weights {published.url} could not be downloaded ({reason}); get them elsewhere and name the file "
            "with --weights"
        ) from None


def _load(network: nn.Module, state: dict[str, torch.Tensor], file: Path | None) -> None:
    try:
        network.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{file or 'the download'} does not hold weights of {type(network).__name__} ({reason})"
        ) from None
