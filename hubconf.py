"""Entry points for ``torch.hub``, which loads models from this repository without installing it.

    model = torch.hub.load("OWNER/agnet", "agnet", classes=10, backbone="resnet50", weights="imagenet")

The folder of this file is the package, whatever its name: it is imported as ``agnet`` for the rest of the Python
session, in place of an installed agnet.
"""

import importlib.util
import pathlib
import sys
import typing  # modules are imported, not names: torch.hub lists callable names as entry points

if typing.TYPE_CHECKING:
    from agnet.training.models.model import Model as _Model
    from agnet.training.runs.checkpoints import Checkpoint as _Checkpoint

dependencies = ["torch", "torchvision", "safetensors"]


def agnet(classes: int, backbone: str = "resnet50", weights: str = "imagenet", **settings: typing.Any) -> "_Model":
    """Build AG-Net: ``model(images, regions).logits`` from images ``(B, 3, H, W)`` and boxes ``(B, R, 4)``.

    Images are RGB, uint8 or float 0..255, without normalisation: the network normalises them itself. Boxes are xyxy in
    fractions of the image.

    Args:
        classes: Number of classes.
        backbone: Name from the page Models and backbones, ``torchvision:NAME`` or ``timm:NAME`` (which needs timm).
        weights: Weights of the backbone: ``imagenet`` (downloaded by its library), ``none``, or a file with a state
            dict. The head is initialised randomly.
        settings: Any other field of `agnet.ModelSettings`, such as ``regions=10`` (R; default 36).

    Returns: the network, in training mode.

    Raises: `ValueError`, `agnet.data.errors.ConfigurationError` or `agnet.data.errors.CheckpointError` if no network
    can be built from the arguments; `TypeError` for unknown settings; `ImportError` if another agnet is already
    imported.
    """
    return _built("agnet", classes, backbone, weights, settings)


def plain(classes: int, backbone: str = "resnet50", weights: str = "imagenet") -> "_Model":
    """Build AG-Net's control: the same backbone, average pooling and one linear layer; ``model(images).logits``.

    Arguments, images, mode and errors are those of `agnet`.
    """
    return _built("plain", classes, backbone, weights, {})


def trained(checkpoint: "str | pathlib.Path") -> "_Checkpoint":
    """Load a checkpoint that ``agnet train`` wrote: a run's ``best.safetensors``.

    Args:
        checkpoint: The file or the folder of the run, as text or as a path.

    Returns: the checkpoint: ``.model`` in evaluation mode, which takes images like those of `agnet`; ``.size_hw``,
    their height and width; ``.classes``, the class names in the order of its logits; and ``.proposals``, the settings
    that its regions were proposed with.

    Raises: `agnet.data.errors.CheckpointError` if this is not a valid checkpoint; `ImportError` if another agnet is
    already imported.
    """
    _import_package()
    from agnet.training.runs.checkpoints import load_checkpoint

    return load_checkpoint(checkpoint)


def _built(model: str, classes: int, backbone: str, weights: str, others: dict[str, typing.Any]) -> "_Model":
    _import_package()
    from agnet.training.models.build import build_model
    from agnet.training.models.registry import ModelSettings
    from agnet.training.runs.weights import find_weights

    settings = ModelSettings(classes, model=model, backbone=backbone, **others)
    return build_model(settings, find_weights(weights, backbone))


def _import_package() -> None:
    """Import this folder as ``agnet``, whatever its name is."""
    here = pathlib.Path(__file__).resolve().parent
    if "agnet" in sys.modules:
        file = getattr(sys.modules["agnet"], "__file__", None)
        if file is None or pathlib.Path(file).resolve().parent != here:
            raise ImportError(
                f"another agnet is imported already, from {file}; to use the one in {here}, start a new Python and "
                "call torch.hub before importing agnet"
            )
        return
    spec = importlib.util.spec_from_file_location("agnet", here / "__init__.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"there is no agnet in {here}")
    package = importlib.util.module_from_spec(spec)
    sys.modules["agnet"] = package
    try:
        spec.loader.exec_module(package)
    except BaseException:
        del sys.modules["agnet"]
        raise
