"""Functions that a list names: known by their names before what they need is loaded."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def named_function(where: str, package: str) -> Callable[..., Any]:
    """The function that ``where`` names as ``module:function`` of a package, whose module is loaded now if need be."""
    module, _, function = where.partition(":")
    found: Callable[..., Any] = getattr(import_module(f"{package}.{module}"), function)
    return found
