"""What a field of a settings class says of itself: all that an option, a check or a table has to know of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import MISSING, field, fields
from typing import Any

from .errors import ConfigurationError
from .spelling import did_you_mean

Rule = tuple[str, Callable[[Any], bool]]  #: what is wanted, in words, and whether a value is that

ABOVE_0: Rule = ("a number above 0", lambda value: 0 < value < math.inf)
NOT_NEGATIVE: Rule = ("0 or above", lambda value: 0 <= value < math.inf)
SHARE: Rule = ("at least 0 and below 1", lambda value: 0 <= value < 1)
AT_LEAST_1: Rule = ("1 or more", lambda value: value >= 1)
ANY: Rule = ("yes or no", lambda value: isinstance(value, bool))
A_SEED: Rule = ("0 to 4294967295", lambda value: 0 <= value < 2**32)
A_NAME: Rule = ("a name", lambda value: isinstance(value, str) and bool(value))


def between(low: float, high: float) -> Rule:
    """The rule of a number within these bounds, both included."""
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
    """A field that says of itself what an option, a check or a table must know.

    Args:
        section: Heading under which it is listed.
        about: What it is, for people.
        rule: What is wanted, in words, and whether a value is that.
        default: Default value; a field without one is required.
        needs: Another field, and the value of it (or a tuple of values) without which this field changes nothing.
        option: Name of its option, without dashes; the field's own by default.
        off: Name of the option that switches a flag off, without dashes; ``no-`` and the option's name by default.
        parse: Function from a word of the command line to a value; `ValueError` for a word that is none. By default
            the field's type decides.
    """
    metadata = {"section": section, "about": about, "rule": rule, "needs": needs}
    return field(default=default, metadata=metadata | {"option": option, "off": off, "parse": parse})


def choice(
    section: str,
    about: str,
    choices: tuple[str, ...],
    default: object = MISSING,
    needs: tuple[str, object] | None = None,
) -> Any:
    """`setting` of one of several values, which its metadata has as ``choices``."""
    rule = (" or ".join(choices), lambda value: value in choices)
    metadata = {"section": section, "about": about, "rule": rule, "needs": needs, "choices": choices}
    return field(default=default, metadata=metadata)


def check_rules(settings: Any, kind: str) -> None:
    """Raise `ConfigurationError` for the first field whose value breaks its rule; ``kind`` names the settings."""
    for one in fields(settings):
        wanted, holds = one.metadata["rule"]
        value = getattr(settings, one.name)
        if not holds(value):
            meant = did_you_mean(str(value), one.metadata.get("choices", ()))
            raise ConfigurationError(f"{kind} setting {one.name!r}: wanted {wanted}, got {value!r}{meant}")


def idle_fields(settings: Any) -> tuple[str, ...]:
    """Names of the fields that change nothing beside the values of the others."""
    found = []
    for one in fields(settings):
        if needs := one.metadata["needs"]:
            other, value = needs
            wanted = value if isinstance(value, tuple) else (value,)
            if getattr(settings, other) not in wanted:
                found.append(one.name)
    return tuple(found)
