"""Packages that agnet does without until it is asked for what needs them: how to get them."""

from __future__ import annotations

import re
import shutil
import sys
from importlib import metadata
from pathlib import Path


def how_to_install(*packages: str) -> str:
    """A shell command that installs packages for the Python that runs, in the versions that agnet's extras name.

    It does not name agnet, which is no package of PyPI's: whoever registered that name would be installed.
    """
    wanted = _requirements()
    return " ".join([_installer(), *(f'"{wanted.get(name, name)}"' for name in packages)])  # cmd.exe knows no other


def _requirements() -> dict[str, str]:
    """What the installed agnet asks for, extras included: a package's name -> name and versions."""
    try:
        told = metadata.requires("agnet") or []
    except metadata.PackageNotFoundError:  # it runs from a folder, as torch.hub does
        return {}
    found = (requirement.partition(";")[0].strip() for requirement in told)
    return {match[0]: requirement for requirement in found if (match := re.match(r"[\w.-]+", requirement))}


def _installer() -> str:
    first = shutil.which("python")
    mine = first is not None and Path(first).absolute() == Path(sys.executable).absolute()
    python = "python" if mine or not sys.executable else sys.executable
    python = f'"{python}"' if " " in python else python
    if not has_pip() and shutil.which("uv"):  # whose environments have no pip
        return f"uv pip install --python {python}"
    return f"{python} -m pip install"


def has_pip() -> bool:
    """Whether this Python has pip. Looking for its module instead would have setuptools think that pip runs."""
    try:
        metadata.distribution("pip")
    except metadata.PackageNotFoundError:
        return False
    return True
