"""Fields of settings classes with metadata, from which options, checks and tables are made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import MISSING, Field, field, fields
from typing import Any

from .errors import ConfigurationError
from .spelling import did_you_mean

Rule = tuple[str, Callable[[Any], bool]]  #: description of valid values, and a function that tests a value
Size = int | tuple[int, int]  #: a square's side, or height and width, in pixels; 0: not set

ABOVE_0: Rule = ("a number above 0", lambda value: 0 < value < math.inf)
NOT_NEGATIVE: Rule = ("0 or above", lambda value: 0 <= value < math.inf)
SHARE: Rule = ("at least 0 and below 1", lambda value: 0 <= value < 1)
AT_LEAST_1: Rule = ("1 or more", lambda value: value >= 1)
ANY: Rule = ("yes or no", lambda value: isinstance(value, bool))
A_SEED: Rule = ("0 to 4294967295", lambda value: 0 <= value < 2**32)
A_NAME: Rule = ("a name", lambda value: isinstance(value, str) and bool(value))
A_SIZE: Rule = (
    "0, a side of 32 to 4096, or height and width such as 256x128",
    lambda value: value == 0 or all(32 <= side <= 4096 for side in _sides(value) or [0]),
)


def meets(value: object, wanted: object) -> bool:
    """Whether a field's value satisfies another field's ``needs``: a value, a tuple of values, or a rule."""
    if is_rule(wanted):
        return bool(wanted[1](value))  # type: ignore[index]
    return value in wanted if isinstance(wanted, tuple) else value == wanted


def is_rule(wanted: object) -> bool:
    """Whether the condition of a ``needs`` is a rule."""
    return isinstance(wanted, tuple) and callable(wanted[-1])


def between(low: float, high: float) -> Rule:
    """Return the rule for a number within these bounds, both included."""
    return f"{low} to {high}", lambda value: low <= value <= high


def setting(
    section: str,
    about: str,
    rule: Rule,
    default: object = MISSING,
    needs: tuple[str, object] | None = None,
    *,
    option: str | None = None,
    off: str | None = None,
    parse: Callable[[str], Any] | None = None,
) -> Any:
    """Declare a field of a settings class, with the metadata for its option, its check and its row in a table.

    Args:
        section: Heading under which the field is listed.
        about: Description of the field; the help text of its option.
        rule: Description of valid values, and a function that tests a value.
        default: Default value; a field without one is required.
        needs: Name of another field, and the value it must have (a value, a tuple of values, or a rule) for this one to
            change anything.
        option: Name of the option, without dashes; the name of the field by default.
        off: Name of the option that switches a flag off, without dashes; ``no-`` and the option's name by default.
        parse: Function that converts a word of the command line to a value, or raises `ValueError`; by default the
            conversion to the field's type.
    """
    metadata = {"section": section, "about": about, "rule": rule, "needs": needs}
    return field(default=default, metadata=metadata | {"option": option, "off": off, "parse": parse})


def choice(
    section: str,
    about: str,
    choices: tuple[str, ...],
    default: object = MISSING,
    needs: tuple[str, object] | None = None,
    *,
    kw_only: bool = False,
) -> Any:
    """Declare a `setting` with a fixed set of values, stored in its metadata as ``choices``.

    A ``kw_only`` field of a base class does not come between the positional fields of its subclasses.
    """
    rule = (" or ".join(choices), lambda value: value in choices)
    metadata = {"section": section, "about": about, "rule": rule, "needs": needs, "choices": choices}
    return field(default=default, metadata=metadata, kw_only=kw_only)


def type_name(one: Field[Any]) -> str:
    """Return the name of a field's type, such as ``int``.

    Annotations are strings in modules with ``from __future__ import annotations``, and types in others.
    """
    return one.type if isinstance(one.type, str) else getattr(one.type, "__name__", str(one.type))


def size_of_text(text: str) -> Size:
    """Parse a size: ``224`` or ``256x128`` (height first). Raises: `ValueError` for other text."""
    sides = tuple(int(side) for side in text.lower().split("x"))
    if len(sides) > 2:
        raise ValueError(f"{text!r} is neither a side nor a height and width such as 256x128")
    return plain_size(sides)


def plain_size(value: Any) -> Any:
    """Normalise a size, which JSON has as a list: a square becomes its side. Other values are returned unchanged."""
    sides = _sides(value)
    return value if sides is None else sides[0] if len(set(sides)) == 1 else tuple(sides)


def is_size(value: object) -> bool:
    """Whether a value is a side, or height and width, of any number of pixels."""
    return _sides(value) is not None


def size_text(size: Size) -> str:
    """Format a size: ``224`` or ``256x128``."""
    return "x".join(map(str, _sides(size) or ()))


def _sides(value: Any) -> list[int] | None:
    sides = list(value) if isinstance(value, (list, tuple)) else [value]
    return sides if 1 <= len(sides) <= 2 and all(type(side) is int for side in sides) else None


def broken_rule(settings: Any) -> tuple[str, str] | None:
    """Return the name of the first field that breaks its rule, and the error message; None if all values are valid."""
    for one in fields(settings):
        wanted, holds = one.metadata["rule"]
        value = getattr(settings, one.name)
        if not holds(value):
            meant = did_you_mean(str(value), one.metadata.get("choices", ()))
            return one.name, f"wanted {wanted}, got {value!r}{meant}"
    return None


def check_rules(settings: Any, kind: str) -> None:
    """Raise `ConfigurationError` for the first field whose value breaks its rule; ``kind`` names the settings."""
    if broken := broken_rule(settings):
        name, complaint = broken
        raise ConfigurationError(f"{kind} setting {name!r}: {complaint}")


def idle_fields(settings: Any) -> tuple[str, ...]:
    """Return the names of the fields that change nothing, given the values of the others."""
    needs = {one.name: one.metadata["needs"] for one in fields(settings)}
    return tuple(name for name, need in needs.items() if need and not meets(getattr(settings, need[0]), need[1]))
