"""Functions referred to by name, so that their modules are imported only when needed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def named_function(where: str, package: str) -> Callable[..., Any]:
    """The function that ``where`` names as ``module:function`` in a package. Imports the module if necessary."""
    module, _, function = where.partition(":")
    found: Callable[..., Any] = getattr(import_module(f"{package}.{module}"), function)
    return found
