"""Hints at packages that are not there: commands that work where the user is, and install nothing of a stranger's."""

import configparser
import os
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import agnet
from agnet import extras
from agnet.data.errors import DatasetError
from agnet.data.sets import demo
from agnet.extras import how_to_install

ROOT = Path(agnet.__file__).resolve().parent


def test_no_text_offers_a_package_called_agnet():
    """There is none of ours on PyPI: whoever registered the name would be installed."""
    offers = re.compile(r"agnet\[\w|\bpip install (-U )?['\"]?agnet\b")
    for path in ROOT.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(ROOT).parts)
        if (
            path.is_file()
            and not hidden
            and path.suffix in {".py", ".md", ".cfg", ".toml", ""}
            and "test" not in path.name
        ):
            found = offers.search(path.read_text(encoding="utf-8", errors="ignore"))
            assert not found, (path, found[0])


def test_versions_are_those_of_the_extras():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = setup["options.extras_require"]
    wanted = [line for extra in ("timm", "onnx", "tensorboard") for line in listed[extra].split("\n") if line]
    assert len(wanted) == 5
    for requirement in wanted:
        name = re.match(r"[\w-]+", requirement)[0]
        assert shlex.split(how_to_install(name))[-1] == requirement


def test_several_packages_are_one_command_and_unknown_ones_are_named_alone(monkeypatch):
    assert shlex.split(how_to_install("timm", "nobody-s"))[-2:] == ["timm>=1.0.9", "nobody-s"]

    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)  # it runs from a folder, without being installed
    assert shlex.split(how_to_install("timm"))[-1] == "timm"


@pytest.mark.skipif(not extras.has_pip(), reason="an environment without pip")
def test_the_command_works_in_a_shell_and_is_of_this_python():
    command = f"{how_to_install('numpy')} --no-index --dry-run"
    quiet = os.environ | {"PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=quiet)
    assert done.returncode == 0 and "already satisfied" in done.stdout, done.stderr
    place = subprocess.run(
        [*shlex.split(command)[: shlex.split(command).index("-m")], "-c", "import sys; print(sys.prefix)"],
        capture_output=True,
        text=True,
    )
    assert place.stdout.strip() == sys.prefix


def test_where_there_is_uv_and_no_pip_it_is_uvs(monkeypatch):
    monkeypatch.setattr(extras, "has_pip", lambda: False)
    monkeypatch.setattr(extras.shutil, "which", lambda name: "/opt/uv" if name == "uv" else None)
    assert shlex.split(how_to_install("timm")) == ["uv", "pip", "install", "--python", sys.executable, "timm>=1.0.9"]
    monkeypatch.setattr(extras.shutil, "which", lambda name: None)
    assert shlex.split(how_to_install("timm")) == [sys.executable, "-m", "pip", "install", "timm>=1.0.9"]


def test_a_python_on_the_path_is_called_python(monkeypatch):
    this = sys.executable
    monkeypatch.setattr(extras.shutil, "which", lambda name: this if name == "python" else None)
    assert how_to_install("timm") == 'python -m pip install "timm>=1.0.9"'
    monkeypatch.setattr(sys, "executable", "/my photos/python")
    assert shlex.split(how_to_install("timm"))[0] == "/my photos/python"


def test_the_embedded_data_set_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(DatasetError, match=r'needs the package .skimage.*: .* install "scikit-image>=0\.22"$'):
        demo.ensure_demo(tmp_path)
