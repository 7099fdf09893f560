"""The names of backbones, and what can be said of one before PyTorch is loaded, which takes seconds."""

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
#: Who does not have ImageNet weights of them.
WITHOUT_IMAGENET = {"resnet50-v1": "torchvision has no", "nasnet-mobile": "no library has"}
OF_TIMM = ("efficientnet-lite0",)


def check_backbone_name(name: str) -> None:
    """Raises: `ValueError` for a name that no backbone has, `ImportError` where timm is needed and absent."""
    library, colon, network = name.partition(":")
    if (library == "timm" and colon) or name in OF_TIMM:
        try:
            there = find_spec("timm") is not None
        except ValueError:  # a module without a spec, or none at all, was put in its place
            there = False
        if not there:
            raise ImportError(no_timm())
    if colon and library in LIBRARY_NAMES:
        found = _names_in_source(library)
        plain = network.partition(".")[0] if library == "timm" else network  # its names may have a tag
        if plain in found.elsewhere and library == "torchvision":
            raise ValueError(no_classifier(network))
        if found.names and plain not in found.names | found.elsewhere | found.others:
            raise ValueError(no_such_model(library, network, found.names))
    elif name not in BACKBONE_NAMES:
        known = ", ".join([*BACKBONE_NAMES, *(f"{library}:NAME" for library in LIBRARY_NAMES)])
        raise ValueError(f"unknown backbone {name!r}; known: {known}{did_you_mean(name, BACKBONE_NAMES)}")


def no_timm() -> str:
    """What is said of a backbone of timm's where timm is absent."""
    return f"this backbone needs timm: {how_to_install('timm')}"


def no_such_model(library: str, network: str, known: Iterable[str]) -> str:
    """What is said of a name that the library's models do not have."""
    return f"{library} has no model {network!r}{did_you_mean(network.partition('.')[0], known)}"


def nobody_has(who_has: str) -> str:
    """What is said of ImageNet weights that are to be had from nobody: a value of `WITHOUT_IMAGENET`."""
    return f"{who_has} ImageNet weights for it; give a state dict with --weights FILE"


def no_classifier(network: str) -> str:
    """What is said of a model of torchvision that gives no classes of whole images, or cannot learn."""
    return f"torchvision:{network} is no image classifier, or a quantized one, which cannot be trained"


@dataclass(frozen=True)
class _Found:
    """What a library's source files register."""

    names: frozenset[str]  #: networks of the folder of models itself
    elsewhere: frozenset[str]  #: of folders within it: detectors, segmentation, quantized ones
    others: frozenset[str]  #: what may be a name: old ones, and those given to the decorator


@cache
def _names_in_source(library: str) -> _Found:
    """Names found without importing the library; none where its files are written otherwise than today.

    The library itself is asked later in any case: only what none of its files mentions is refused by this.
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
            if library == "timm":  # old names, with the new ones that they stand for
                found[2].update(re.findall(r"['\"](\w+)['\"]\s*:\s*(?:['\"][\w.]+['\"]|None)\s*[,}]", text))
    return _Found(*map(frozenset, found))
