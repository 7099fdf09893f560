"""Initial weights of a backbone: none, the ImageNet weights of its library, or a file."""

from __future__ import annotations

from pathlib import Path

from ...data.errors import CheckpointError, ConfigurationError
from ...data.text import first_line
from ..models.backbones.backbone import BACKBONES, StateDict, backbone_entry, build_backbone, fits
from .checkpoints import load_state_dict


def find_weights(source: str, backbone: str) -> StateDict | None:
    """Load the state dict named by ``--weights`` and check it against the backbone.

    Args:
        source: ``none``, ``imagenet`` (downloaded by the library of the backbone) or a file.
        backbone: Name of the backbone.

    Returns: the state dict; None for ``none``.

    Raises: `ConfigurationError` for an unknown backbone, `CheckpointError` for weights that cannot be loaded or do not
    fit, naming missing and unexpected keys and the backbones that they do fit.
    """
    try:
        entry = backbone_entry(backbone)
    except (ValueError, ImportError) as error:
        raise ConfigurationError(str(error)) from None
    if source == "none":
        return None
    if source == "imagenet":
        try:
            return entry.imagenet()
        except ValueError as error:
            raise CheckpointError(f"no ImageNet weights for {backbone}: {error}") from None
        except Exception as error:  # libraries raise different errors for failed downloads
            raise CheckpointError(
                f"the ImageNet weights of {backbone} could not be downloaded ({first_line(error)}); use --weights FILE "
                "or none"
            ) from None
    weights = load_state_dict(Path(source))
    try:
        build_backbone(backbone, weights)
    except ValueError as error:
        others = [name for name in BACKBONES if name != backbone and _fits(name, weights)]
        hint = f"; they fit {' and '.join(others)}" if others else ""
        raise CheckpointError(f"{source} does not hold weights of {backbone}{hint} ({error})") from None
    return weights


def _fits(name: str, weights: StateDict) -> bool:
    try:
        return fits(name, weights)
    except (ImportError, ValueError):
        return False
