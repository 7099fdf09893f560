"""The layers of the code: who may import whom, and what must not be loaded where."""

import ast
import subprocess
import sys
from pathlib import Path

import agnet
from agnet.commands.compare import SAVED_AS
from agnet.commands.export import EXPORT_FORMATS
from agnet.commands.options import DATASETS
from agnet.data.regions import KINDS
from agnet.data.sets.catalogue import CATALOGUE
from agnet.proposals.hulls import ORDER_SLOTS
from agnet.proposals.one_image import METHODS
from agnet.proposals.settings import KINDS as KINDS_OFFERED
from agnet.proposals.settings import METHODS as METHODS_OFFERED
from agnet.proposals.settings import NETWORKS, SLOT_ORDERS
from agnet.training.export.formats import FORMATS
from agnet.training.export.target import PACKAGES, SUFFIXES
from agnet.training.measure.compare_report import FORMATS as SAVED
from agnet.training.models.backbones.backbone import BACKBONES, LIBRARIES
from agnet.training.models.backbones.names import BACKBONE_NAMES, LIBRARY_NAMES

ROOT = Path(agnet.__file__).resolve().parent

# room -> the rooms, or single modules, that it may import from, besides itself
ALLOWED = {
    "data": set(),
    "proposals": {"data"},
    "training.models": {"data.spelling"},
    "training": {"data", "training.models"},
}
# The command line may read settings at import, everything else inside its commands.
LIGHT = {
    *("proposals.settings", "training.recipes"),
    *("training.models.contract", "training.models.registry", "training.models.settings"),
}


def room(module):
    return next((name for name in sorted(ALLOWED, key=len, reverse=True) if f"{module}.".startswith(f"{name}.")), "")


def relative_imports(path):
    """(module within agnet, whether at top level) for each relative import of a file."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                target = (
                    f"{module}.{alias.name}"
                    if node.module is None or (ROOT / module.replace(".", "/")).is_dir()
                    else module
                )
                yield target.lstrip("."), id(node) in top


def sources():
    return [path for name in ("data", "proposals", "training") for path in sorted((ROOT / name).rglob("*.py"))]


def command_line():
    return [ROOT / "cli.py", *sorted((ROOT / "commands").glob("*.py"))]


def test_there_is_something_to_check():
    assert len(sources()) > 30
    assert dict(relative_imports(ROOT / "proposals" / "one_image.py"))["data.regions"] is True


def test_every_room_imports_only_the_rooms_below_it():
    for path in sources():
        here = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for target, _ in relative_imports(path):
            if target and target not in {"__version__", "extras"}:
                assert {room(target), target} & (ALLOWED[here] | {here}), f"{path} imports {target}"


def test_inside_the_package_imports_are_relative():
    for path in [*sources(), *command_line()]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in names:
                assert name.split(".")[0] not in {"agnet", "commands", *ALLOWED}, f"{path}: {name}"


def test_the_command_line_loads_heavy_rooms_only_inside_its_commands():
    for path in command_line():
        for target, at_top in relative_imports(path):
            assert not at_top or target in LIGHT or target.startswith(("commands.", "__version__")), target


def loaded(code):
    """The top-level packages a fresh interpreter has loaded after running ``code``."""
    check = f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    return set(subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.split())


def test_stage_1_runs_without_torch():
    packages = loaded("import agnet.proposals.run, agnet.data.sets.catalogue, agnet.data.boxes.reader")
    assert "cv2" in packages and not packages & {"torch", "torchvision", "timm"}


def test_help_loads_nothing_heavy():
    packages = loaded("import agnet.cli")
    assert "click" in packages and not packages & {"torch", "cv2", "numpy", "sklearn", "h5py", "PIL", "joblib"}


def test_only_the_boxes_file_modules_open_hdf5():
    for path in sources():
        if "h5py.File(" in path.read_text(encoding="utf-8"):
            assert path.name in {"reader.py", "writer.py"}, path


def test_images_are_decoded_in_one_place():
    for path in sources():
        text = path.read_text(encoding="utf-8")
        if "Image.open" in text or "imread" in text or "imdecode" in text:
            assert path.relative_to(ROOT).as_posix() == "data/images.py"


def test_names_offered_are_names_known():
    assert set(DATASETS) == set(CATALOGUE)
    assert set(SLOT_ORDERS) == set(ORDER_SLOTS)
    assert set(METHODS_OFFERED) == set(METHODS) > set(NETWORKS)
    assert KINDS_OFFERED == KINDS
    assert list(BACKBONE_NAMES) == list(BACKBONES)
    assert set(LIBRARY_NAMES) == set(LIBRARIES)
    assert SAVED_AS == SAVED
    assert set(SUFFIXES) == set(PACKAGES) == set(FORMATS) == set(EXPORT_FORMATS)


def test_every_package_is_listed_for_installation():
    listed = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    packages = {path.parent for path in [*sources(), *command_line()] if path.name == "__init__.py"}
    for package in packages:
        assert f"\n    agnet.{'.'.join(package.relative_to(ROOT).parts)}\n" in listed
