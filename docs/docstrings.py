"""A Griffe extension that adapts the package's docstrings to mkdocstrings' Google style for the API reference."""

from __future__ import annotations

import ast
import re
from typing import Any

import griffe

_ONE_LINE_SECTION = re.compile(r"^(Returns|Yields): (.+(?:\n .+)*)", flags=re.MULTILINE)


class Docstrings(griffe.Extension):
    """Document attributes by ``#:`` comments and settings' metadata, and turn one-line ``Returns:`` into sections."""

    def on_attribute_instance(self, *, node: Any, attr: griffe.Attribute, **_: Any) -> None:
        """Document an attribute without a docstring by the text next to it."""
        if attr.docstring is None and (text := _comment(attr.source) or _about(getattr(node, "value", None))):
            attr.docstring = griffe.Docstring(text, parent=attr)

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        """Turn ``Returns: text`` into a section with the text below."""
        if func.docstring is not None:
            func.docstring.value = _ONE_LINE_SECTION.sub(_section, func.docstring.value)


def _section(found: re.Match[str]) -> str:
    return f"{found[1]}:\n    {' '.join(found[2].split())}"


def _comment(source: str) -> str:
    return " ".join(re.findall(r"#: (.+)", source))


def _about(value: ast.expr | None) -> str:
    """Return the second argument of ``setting(section, about, ...)`` or ``choice(section, about, ...)``."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in {"setting", "choice"}:
        texts = [each.value for each in value.args[1:2] if isinstance(each, ast.Constant)]
        return str(texts[0]) if texts else ""
    return ""
