"""The layers of the code: who may import whom, and what must not be loaded where."""

import ast
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import agnet
from agnet.commands.compare import SAVED_AS
from agnet.data.references import named_function
from agnet.data.sets.catalogue import CATALOGUE
from agnet.proposals.settings import METHODS, NETWORKS, SLOT_ORDERS
from agnet.training.export.formats import FORMATS
from agnet.training.measure.compare_report import FORMATS as SAVED
from agnet.training.models.backbones.backbone import BACKBONES, LIBRARIES
from agnet.training.models.backbones.names import BACKBONE_NAMES, LIBRARY_NAMES

EXPORT = "agnet.training.export"
ROOT = Path(agnet.__file__).resolve().parent

# room -> the rooms, or single modules, that it may import from, besides itself
DATA = {"data", "data.boxes"}
MODELS_WHOLE = {"training.models", "training.models.backbones", "training.models.blocks"}
WORDS = {"data.fields", "data.spelling", "data.text"}
# It imports nothing of ours: what is fragile about PyTorch has one home, for networks, too.
FRAGILE_TORCH = "training.machine.torch_internals"
RUNS = {"training", "training.machine", "training.runs", "training.samples", *MODELS_WHOLE, *DATA}
ALLOWED = {
    "data": {"data.decoding"},
    "data.decoding": {"data.errors", "data.faults"},
    "data.boxes": {"data"},
    "data.exports": DATA,
    "data.sets": {"data", "data.boxes.hdf5_tables"},
    "proposals": DATA,
    "training": {*DATA, "training.models.contract"},
    "training.models.blocks": {FRAGILE_TORCH},
    "training.models.backbones": {"training.models.blocks", FRAGILE_TORCH, *WORDS},
    "training.models": {"training.models.backbones", "training.models.blocks", *WORDS},
    # A batch of clips goes through a network of images by the functions that networks of clips use, too.
    "training.samples": DATA | {"training.machine", "training.models.contract", "training.models.blocks.each_frame"},
    "training.machine": {"data", *MODELS_WHOLE},
    "training.runs": RUNS - {"training.runs", "training.samples"} | {"data.sets.catalogue"},
    "training.loop": RUNS,
    "training.measure": {*RUNS, "training.loop", "data.sets"},
    "training.answers": RUNS,
    "training.export": {*RUNS, "training.measure"},
    # It reads the files of a run, and loads no network.
    "training.report": {*DATA, "data.sets", "training", "training.models", "training.runs", "training.measure"},
    # It starts other processes, which do the work, and reads the files that they wrote.
    "training.studies": {*DATA, "training", "training.runs", "training.measure", "training.report.style"},
}
# Methods that users expect on the class itself; inside them, they hand on to the room above.
HANDED_UP = {("training/models/pretrained.py", "training.runs.pretrained")}
# The command line may read settings at import, everything else inside its commands.
LIGHT = {
    "data.exports.formats",
    "data.fields",
    "data.names",
    "data.sampling",
    "data.sets.catalogue",
    "data.text",
    "proposals.settings",
    "training.export.formats",
    "training.recipes",
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


def test_every_room_is_known_and_has_none_above_that_imports_it():
    """No circles: each room is left when those that it imports from are left."""
    packages = {".".join(path.relative_to(ROOT).parent.parts) for path in sources() if path.name == "__init__.py"}
    assert packages == set(ALLOWED)
    left = dict(ALLOWED)
    while free := [here for here, below in left.items() if not below & set(left)]:
        for here in free:
            del left[here]
    assert not left


def test_every_room_imports_only_the_rooms_below_it():
    for path in sources():
        here = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for target, at_top in relative_imports(path):
            if (path.relative_to(ROOT).as_posix(), target) in HANDED_UP:
                assert not at_top
            elif target and target not in {"__version__", "extras"}:
                assert {room(target), target} & (ALLOWED[here] | {here}), f"{path} imports {target}"


def test_the_home_of_what_is_fragile_about_pytorch_imports_nothing_of_ours():
    assert not list(relative_imports(ROOT / "training" / "machine" / "torch_internals.py"))


def test_every_file_has_the_syntax_of_the_oldest_python():
    oldest = re.search(
        r"^python_requires = >=(\d+)\.(\d+)$", (ROOT / "setup.cfg").read_text(encoding="utf-8"), re.MULTILINE
    )
    version = int(oldest[1]), int(oldest[2])
    with pytest.raises(SyntaxError):  # the check itself: exception groups came with 3.11
        ast.parse("try: pass\nexcept* OSError: pass", feature_version=version)
    others = ("benchmarks", "commands", "docs", "examples", "studies", "tests")
    inside = [path for name in others for path in (ROOT / name).rglob("*.py")]
    for path in [*ROOT.glob("*.py"), *sources(), *inside]:
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=version)


def test_inside_the_package_imports_are_relative():
    for path in [*sources(), *command_line()]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in names:
                assert name.split(".")[0] not in {"agnet", "commands", "data", "proposals", "training"}, path


def test_the_command_line_loads_heavy_rooms_only_inside_its_commands():
    for path in command_line():
        for target, at_top in relative_imports(path):
            assert not at_top or target in LIGHT or target.startswith(("commands.", "__version__")), target


def loaded(code):
    """The top-level packages a fresh interpreter has loaded after running ``code``."""
    check = f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    return set(subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.split())


def test_stage_1_and_the_page_about_a_run_do_without_torch():
    packages = loaded("import agnet.proposals.run, agnet.data.sets.catalogue, agnet.training.report.page")
    assert "cv2" in packages and not packages & {"torch", "torchvision", "timm"}


def test_help_loads_nothing_heavy():
    packages = loaded("import agnet.cli")
    assert "click" in packages and not packages & {"torch", "cv2", "numpy", "sklearn", "h5py", "PIL", "joblib"}


def test_names_of_the_hub_are_told_from_paths_without_its_package():
    packages = loaded("import agnet.training.runs.hub as hub; hub.local_run('runs/one')")
    assert "yaml" in packages and not packages & {"huggingface_hub", "torch"}


def test_few_modules_open_hdf5_and_all_read_it_through_hdf5_tables():
    own = {"features.py", "feature_cache.py"}  # arrays, not tables
    for path in sources():
        if "h5py.File(" in path.read_text(encoding="utf-8"):
            assert path.name in {"reader.py", "writer.py", "cuhk03_release.py", *own}, path


def test_images_are_decoded_in_one_place():
    for path in sources():
        text = path.read_text(encoding="utf-8")
        if "Image.open" in text or "imread" in text or "imdecode" in text:
            assert path.relative_to(ROOT).as_posix() == "data/images.py"
        if "simplejpeg.decode" in text:
            assert path.relative_to(ROOT).as_posix() == "data/decoding/jpeg_scans.py"


# Where foreign names are used that are not promised, and errors are known by their words: each with a test of its own.
FRAGILE = {
    "training/machine/torch_internals.py",
    "data/joblib_internals.py",
    "data/decoding/pillow_internals.py",
}
DOCUMENTED = {
    "_exit",
    "_asdict",
    "_replace",
    "_fields",
    "_make",
}  # for all their underscore: of os and named tuples
UNDOCUMENTED = {"aten", "externals", "decoderconfig", "load_prepare"}  # though they have none
SYSTEMS_WORDS = {"libGL", "No space left"}  # of the system's loader and of the C library, whoever passes them on


def is_fragile(name):
    return name in UNDOCUMENTED or (name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED)


def fragile_uses(tree):
    """(line, what) of names that other packages do not promise, and of words looked for in an error's text."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Attribute) and not (
            isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        ):
            names = [node.attr]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr"):
            names = [str(getattr(node.args[1], "value", ""))]
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            where = ast.unparse(node.comparators[0])
            if isinstance(node.left, ast.Constant) and "str(error)" in where and node.left.value not in SYSTEMS_WORDS:
                yield node.lineno, ast.unparse(node)
        yield from ((node.lineno, name) for name in names if name != "__future__" and is_fragile(name))


TOP = ("classifier.py", "doctor.py", "extras.py", "hubconf.py", "predictor.py")


def test_what_is_fragile_about_other_packages_has_one_home_each():
    for path in [*sources(), *command_line(), *(ROOT / name for name in TOP)]:
        found = list(fragile_uses(ast.parse(path.read_text(encoding="utf-8"))))
        assert bool(found) == (path.relative_to(ROOT).as_posix() in FRAGILE), f"{path}: {found}"


def test_packages_with_fragile_uses_end_before_their_next_major_version():
    listed = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    for package in ("torch", "torchvision", "joblib", "pillow"):
        end = re.search(rf"^    {package}>=[\d.]+,<(\d+)$", listed, re.MULTILINE)
        assert end and int(metadata.version(package).split(".")[0]) < int(end[1]), package


def test_names_offered_are_names_known():
    for where in {*METHODS.values(), *SLOT_ORDERS.values()}:
        assert callable(named_function(where, "agnet.proposals"))
    for entry in CATALOGUE.values():
        assert callable(named_function(entry.layout, "agnet.data.sets"))
    assert set(METHODS) > set(NETWORKS)
    assert list(BACKBONE_NAMES) == list(BACKBONES)
    assert set(LIBRARY_NAMES) == set(LIBRARIES)
    assert SAVED_AS == SAVED
    for format in FORMATS.values():
        assert callable(named_function(format.write, EXPORT)) and callable(named_function(format.load, EXPORT))


def test_every_package_is_listed_for_installation():
    listed = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    packages = {path.parent for path in [*sources(), *command_line()]} - {ROOT}
    for package in packages:
        assert (package / "__init__.py").is_file()
        assert f"\n    agnet.{'.'.join(package.relative_to(ROOT).parts)}\n" in listed
