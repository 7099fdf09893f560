"""Installation commands for optional dependencies."""

from __future__ import annotations

import re
import shutil
import sys
from importlib import metadata
from pathlib import Path


def how_to_install(*packages: str) -> str:
    """Return a shell command that installs packages for this Python, in the versions that agnet's extras require.

    The command does not name agnet, which is not on PyPI: anyone could register a package of that name there.
    """
    wanted = _requirements()
    return " ".join([_installer(), *(f'"{wanted.get(name, name)}"' for name in packages)])  # cmd.exe needs double ones


def _requirements() -> dict[str, str]:
    """Return the requirements of the installed agnet, including its extras: package name -> name and versions."""
    try:
        told = metadata.requires("agnet") or []
    except metadata.PackageNotFoundError:  # agnet runs from a source folder, as with torch.hub
        return {}
    found = (requirement.partition(";")[0].strip() for requirement in told)
    return {match[0]: requirement for requirement in found if (match := re.match(r"[\w.-]+", requirement))}


def _installer() -> str:
    first = shutil.which("python")
    mine = first is not None and Path(first).absolute() == Path(sys.executable).absolute()
    python = "python" if mine or not sys.executable else sys.executable
    python = f'"{python}"' if " " in python else python
    if not has_pip() and shutil.which("uv"):  # environments made by uv have no pip
        return f"uv pip install --python {python}"
    return f"{python} -m pip install"


def has_pip() -> bool:
    """Whether this Python has pip.

    Looking up the module instead would make setuptools believe that pip is running.
    """
    try:
        metadata.distribution("pip")
    except metadata.PackageNotFoundError:
        return False
    return True
