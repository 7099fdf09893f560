"""Names of the backbones, and checks that are possible before PyTorch is loaded, which takes seconds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ....data.spelling import did_you_mean
from ....extras import how_to_install

BACKBONE_NAMES = (
    *("resnet50", "resnet50-v1", "densenet121", "inception-v3", "nasnet-mobile", "vgg16", "vgg16-conv5", "vgg11-conv5"),
    *("mobilenet-v3-small", "efficientnet-lite0"),
)
LIBRARY_NAMES = ("torchvision", "timm")
#: Backbones without published ImageNet weights, and the start of the error message for each.
WITHOUT_IMAGENET = {"resnet50-v1": "torchvision has no", "nasnet-mobile": "no library has"}
OF_TIMM = ("efficientnet-lite0",)


def check_backbone_name(name: str) -> None:
    """Check the name of a backbone.

    Raises: `ValueError` for an unknown name, `ImportError` if timm is needed but not installed.
    """
    library, colon, network = name.partition(":")
    if (library == "timm" and colon) or name in OF_TIMM:
        try:
            there = find_spec("timm") is not None
        except ValueError:  # sys.modules contains a substitute without a spec
            there = False
        if not there:
            raise ImportError(no_timm())
    if colon and library in LIBRARY_NAMES:
        found = _names_in_source(library)
        plain = network.partition(".")[0] if library == "timm" else network  # timm's names may have a tag
        if plain in found.elsewhere and library == "torchvision":
            raise ValueError(no_classifier(network))
        if found.names and plain not in found.names | found.elsewhere | found.others:
            raise ValueError(no_such_model(library, network, found.names))
    elif name not in BACKBONE_NAMES:
        known = ", ".join([*BACKBONE_NAMES, *(f"{library}:NAME" for library in LIBRARY_NAMES)])
        raise ValueError(f"unknown backbone {name!r}; known: {known}{did_you_mean(name, BACKBONE_NAMES)}")


def no_timm() -> str:
    """Error message for a timm backbone if timm is not installed."""
    return f"this backbone needs timm: {how_to_install('timm')}"


def no_such_model(library: str, network: str, known: Iterable[str]) -> str:
    """Error message for a model name that the library does not have."""
    return f"{library} has no model {network!r}{did_you_mean(network.partition('.')[0], known)}"


def nobody_has(who_has: str) -> str:
    """Error message for a backbone with no published ImageNet weights; ``who_has`` is a value of `WITHOUT_IMAGENET`."""
    return f"{who_has} ImageNet weights for it; give a state dict with --weights FILE"


def no_classifier(network: str) -> str:
    """Error message for a torchvision model that does not classify whole images, or cannot be trained."""
    return f"torchvision:{network} is not an image classifier, or is quantized and cannot be trained"


@dataclass(frozen=True)
class _Found:
    """Model names in the source files of a library."""

    names: frozenset[str]  #: models in the folder ``models`` itself
    elsewhere: frozenset[str]  #: models in its subfolders: detection, segmentation, quantized
    others: frozenset[str]  #: possible names: deprecated ones, and arguments of the decorator


@cache
def _names_in_source(library: str) -> _Found:
    """Find the model names of a library without importing it; none if its source files have another form than today's.

    The library itself is consulted later in any case: this only rejects names that none of its files mentions.
    """
    found: tuple[set[str], set[str], set[str]] = set(), set(), set()
    spec = find_spec(library)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "models"
        for path in folder.rglob("*.py"):
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            registered = re.findall(r"^@register_model\b(?!\(name).*?^def (\w+)\(", text, re.MULTILINE | re.DOTALL)
            found[path.parent != folder].update(registered)
            found[2 if library == "timm" else 1].update(re.findall(r"^@register_model\(name=['\"](\w+)", text, re.M))
            if library == "timm":  # deprecated names, mapped to the new ones
                found[2].update(re.findall(r"['\"](\w+)['\"]\s*:\s*(?:['\"][\w.]+['\"]|None)\s*[,}]", text))
    return _Found(*map(frozenset, found))
