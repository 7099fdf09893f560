"""Read JSON or YAML files of names and values, with one-line error messages."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

MOST_BYTES = 1_000_000  #: size limit; the record of a run has about 2,500
YAML = (".yaml", ".yml")


def shown(value: Any) -> str:
    """Format a value for an error message, in at most 60 characters."""
    if isinstance(value, (dict, list)):  # not the content, which YAML aliases can make endless
        return "a section" if isinstance(value, dict) else "a list"
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    try:
        text = repr(value)
    except ValueError:  # Python converts no integer of thousands of digits to text
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_mapping(file: Path) -> dict[str, Any]:
    """Read a JSON or YAML file.

    Raises: `ConfigurationError` if the file cannot be read or parsed, or is not a mapping.
    """
    from ..data.errors import ConfigurationError

    try:
        if file.is_dir():
            raise ConfigurationError(f"{file} is a folder; name a file, such as the config.json of a run")
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigurationError(f"there is no configuration file {file}") from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise ConfigurationError(f"{file} is too large for a configuration file")
    try:
        text = content.decode("utf-8-sig")
        found = (_yaml if file.suffix.lower() in YAML else _json)(text) if text.strip() else None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file} is not UTF-8 text, and so not a configuration file") from None
    except _BrokenError as error:
        raise ConfigurationError(f"{file}{error}") from None
    except RecursionError:
        raise ConfigurationError(f"{file} is nested too deeply for a configuration file") from None
    if not isinstance(found, dict):
        kind = "is empty" if found is None else f"holds {shown(found)}"
        raise ConfigurationError(f"{file} {kind}; a configuration file has names and values, like a run's config.json")
    return found


def parse_value(text: str) -> Any:
    """Parse one value as in a YAML file: a number, true or false, else text."""
    try:
        found = _yaml(text)
    except _BrokenError:
        return text
    return found if isinstance(found, (bool, int, float)) else text


class _BrokenError(Exception):
    """A parsing error. Its message is the place and the reason, to be appended to the file's name."""


def _json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_twins)
    except json.JSONDecodeError as error:
        raise _BrokenError(f", line {error.lineno}: broken JSON: {error.msg}") from None
    except ValueError as error:  # a number with thousands of digits
        raise _BrokenError(f": broken JSON: {error}") from None


def _yaml(text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """A loader that reads 1e-5 as a number, as YAML 1.2 does, and rejects duplicate names."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            _check_twins([key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
            return {str(key): value for key, value in super().construct_mapping(node, deep).items()}

    exponent = re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", exponent, list("-+.0123456789"))
    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise _BrokenError(f"{line}: broken YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise _BrokenError(f": broken YAML: {str(error).splitlines()[0]}") from None
    except ValueError as error:
        raise _BrokenError(f": broken YAML: {error}") from None


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _check_twins([name for name, _ in pairs])
    return dict(pairs)


def _check_twins(names: list[str]) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            raise _BrokenError(f": {shown(name)} occurs {times} times in one section")
