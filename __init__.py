"""AG-Net: fine-grained image recognition guided by salient regions (Bera et al., IEEE TIP 30, 2021).

Two programs share one HDF5 file: ``agnet propose`` writes the regions of every image of a data set, ``agnet train``
trains the network that attends to them. The names below are the public API; each is imported on first access, so that
``import agnet`` is fast.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:  # for type checkers, which cannot follow `__getattr__`
    from .classifier import AgnetClassifier as AgnetClassifier
    from .data.boxes.reader import read_boxes as read_boxes
    from .data.images import read_image as read_image
    from .data.sets.catalogue import open_dataset as open_dataset
    from .predictor import Predictor as Predictor
    from .predictor import Result as Result
    from .predictor import load as load
    from .proposals.one_image import propose_regions as propose_regions
    from .proposals.run import propose_dataset as propose_dataset
    from .proposals.settings import ProposalSettings as ProposalSettings
    from .training.answers.predict import predict as predict
    from .training.machine.devices import choose_device as choose_device
    from .training.models.agnet import AGNet as AGNet
    from .training.models.backbones.backbone import Backbone as Backbone
    from .training.models.build import assemble as assemble
    from .training.models.build import build_model as build_model
    from .training.models.registry import ModelSettings as ModelSettings
    from .training.runs.checkpoints import load_checkpoint as load_checkpoint

__version__ = "0.1.0"

_HOMES = {
    "AgnetClassifier": ".classifier",
    "load": ".predictor",
    "Predictor": ".predictor",
    "Result": ".predictor",
    "AGNet": ".training.models.agnet",
    "Backbone": ".training.models.backbones.backbone",
    "ModelSettings": ".training.models.registry",
    "assemble": ".training.models.build",
    "build_model": ".training.models.build",
    "ProposalSettings": ".proposals.settings",
    "propose_regions": ".proposals.one_image",
    "propose_dataset": ".proposals.run",
    "open_dataset": ".data.sets.catalogue",
    "read_boxes": ".data.boxes.reader",
    "read_image": ".data.images",
    "load_checkpoint": ".training.runs.checkpoints",
    "choose_device": ".training.machine.devices",
    "predict": ".training.answers.predict",
}


__all__ = [*_HOMES]


def __getattr__(name: str) -> _Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'agnet' has no attribute {name!r}")
    return getattr(_import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])
