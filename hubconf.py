"""What ``torch.hub`` offers from this repository, without installing it.

    model = torch.hub.load("OWNER/agnet", "agnet", classes=10, backbone="resnet50", weights="imagenet")

The package is the folder of this file, whatever its name: it is imported from there as ``agnet``, and so it stays
until Python ends. Where an agnet is installed, that one rests meanwhile.
"""

import importlib.util
import pathlib
import sys
import typing  # as modules: torch.hub would list names taken out of them as entries

if typing.TYPE_CHECKING:
    from agnet.training.models.model import Model as _Model
    from agnet.training.runs.checkpoints import Checkpoint as _Checkpoint

dependencies = ["torch", "torchvision", "safetensors"]


def agnet(classes: int, backbone: str = "resnet50", weights: str = "imagenet", **settings: typing.Any) -> "_Model":
    """AG-Net: ``model(images, regions).logits`` from images ``(B, 3, H, W)`` and boxes ``(B, R, 4)``.

    Images are RGB, uint8 or floats 0..255, as they are read: the network normalises them itself. Boxes are xyxy in
    fractions of the image.

    Args:
        classes: how many there are to tell apart.
        backbone: a name on the page Models and backbones, ``torchvision:NAME`` or ``timm:NAME`` (which needs timm).
        weights: the backbone's: ``imagenet`` (downloaded by its own library), ``none``, or a file with a state dict.
            The head's are random.
        settings: any other field of `agnet.ModelSettings`, such as ``regions=10`` (R, 36 unless told).

    Returns: the network, in training mode.

    Raises: `ValueError`, `agnet.data.errors.ConfigurationError` or `agnet.data.errors.CheckpointError` for what no
    network can be built from; `TypeError` for unknown settings; `ImportError` when another agnet is imported already.
    """
    return _built("agnet", classes, backbone, weights, settings)


def plain(classes: int, backbone: str = "resnet50", weights: str = "imagenet") -> "_Model":
    """AG-Net's control: the same backbone, average pooling and one linear layer; ``model(images).logits``.

    Arguments, images, mode and errors as of `agnet`.
    """
    return _built("plain", classes, backbone, weights, {})


def trained(checkpoint: "str | pathlib.Path") -> "_Checkpoint":
    """What ``agnet train`` wrote: a run's ``best.safetensors``.

    Args:
        checkpoint: the file or the run's folder, as text or as a path.

    Returns: the checkpoint: ``.model`` in evaluation mode, which takes images as `agnet` has it, ``.size_hw``, their
    height and width, ``.classes`` by name in the order of its logits, and ``.proposals``, the settings that its regions
    were proposed with.

    Raises: `agnet.data.errors.CheckpointError` for anything else than a sound checkpoint; `ImportError` when another
    agnet is imported already.
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
    """Import this folder under the name that its own modules do not need, but users know."""
    here = pathlib.Path(__file__).resolve().parent
    if "agnet" in sys.modules:
        file = getattr(sys.modules["agnet"], "__file__", None)
        if file is None or pathlib.Path(file).resolve().parent != here:
            raise ImportError(
                f"another agnet is imported already, from {file}; for the one of {here}, start a new Python and "
                "ask torch.hub before you import agnet"
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
