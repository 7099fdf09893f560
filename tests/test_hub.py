"""`torch.hub`, as it meets the repository: a folder of another name, where agnet is not installed."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision

import agnet
from agnet.training.runs.checkpoints import Checkpoint, save_checkpoint

ROOT = Path(agnet.__file__).resolve().parent
SMALL = agnet.ModelSettings(classes=3, regions=2, backbone="mobilenet-v3-small", units=4)

# Nothing of ours to be found, wherever it may be installed, nor what only other parts of agnet need.
GUARD = """
import sys
from importlib.machinery import ModuleSpec

class Guard:
    names = {"agnet", "cv2", "sklearn", "h5py", "joblib", "threadpoolctl", "filelock", "click", "timm", "skimage"}

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return ModuleSpec(name, cls) if name in cls.names else None

    @staticmethod
    def create_module(spec):
        raise ModuleNotFoundError(f"no {spec.name} here", name=spec.name)

    exec_module = None

sys.meta_path.insert(0, Guard)
"""

SESSION = """
import json, pathlib, torch
folder = pathlib.Path(sys.argv[1])
told = {}
try:
    import agnet
except ModuleNotFoundError as error:
    told["importable"] = str(error)
torch.hub.set_dir(folder)  # where it would have put what it downloads
cached = dict(skip_validation=True, trust_repo=True, verbose=False)
told["list"] = torch.hub.list("owner/agnet:main", **cached)
told["help"] = torch.hub.help("owner/agnet:main", "agnet", skip_validation=True, trust_repo=True)
small = dict(classes=3, backbone="mobilenet-v3-small")
torch.manual_seed(7)
first = torch.hub.load("owner/agnet:main", "agnet", weights="none", regions=2, units=4, **small, **cached)
hub = dict(repo_or_dir=str(folder / "owner_agnet_main"), source="local")
torch.save(first.state_dict(), folder / "agnet.pt")
second = torch.hub.load(model="plain", weights=str(folder / "classifier.pth"), **small, **hub)
torch.save(second.state_dict(), folder / "plain.pt")
best = torch.hub.load(model="trained", checkpoint=str(folder / "best.safetensors"), **hub)
images, regions = torch.load(folder / "inputs.pt")
with torch.no_grad():
    torch.save(best.model(images, regions).logits, folder / "logits.pt")
told["classes"] = best.classes
told["of_a_folder"] = torch.hub.load(model="trained", checkpoint=str(folder), **hub).classes
for name, arguments in {"weights": dict(weights="absent.pth"), "backbone": dict(backbone="resnet"),
                        "settings": dict(weights="none", heads=3)}.items():
    try:
        torch.hub.load(model="agnet", **{**small, **arguments}, **hub)
    except Exception as error:
        told[name] = f"{type(error).__name__}: {error}"
import agnet
told["version"] = agnet.__version__
told["files"] = sorted(module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "agnet")
print("told:" + json.dumps(told))
"""


def alone(code, *arguments):
    """Run code in a Python of its own that knows neither this folder nor an installed agnet."""
    command = [sys.executable, "-I", "-c", GUARD + code, *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def cloned(tmp_path_factory):
    """A folder with the repository's modules, as torch.hub names and unpacks it."""
    clone = tmp_path_factory.mktemp("hub") / "owner_agnet_main"
    for room in ("data", "proposals", "training"):
        shutil.copytree(ROOT / room, clone / room, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.glob("*.py"):
        shutil.copy(file, clone)
    return clone


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(1)
    return torchvision.models.mobilenet_v3_small()


@pytest.fixture(scope="module")
def checkpoint():
    torch.manual_seed(2)
    model = agnet.build_model(SMALL).eval()
    return Checkpoint(SMALL, ("ant", "bee", "côté"), {"primary": 2}, "abc", 3, 0.5, model=model)


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, 3, 224, 224, generator=generator), torch.tensor([[[0, 0, 0.5, 1], [0.2, 0.3, 0.9, 0.8]]] * 2)


@pytest.fixture(scope="module")
def session(cloned, classifier, checkpoint, inputs):
    """What a user of torch.hub was told, and the folder with what was made."""
    folder = cloned.parent
    torch.save(classifier.state_dict(), folder / "classifier.pth")
    torch.save(inputs, folder / "inputs.pt")
    save_checkpoint(folder / "best.safetensors", checkpoint)
    told = alone(SESSION, folder).split("told:")[1]
    return json.loads(told), folder


def test_the_package_is_the_cloned_folder_and_no_other(session, cloned):
    told, _ = session
    assert told["importable"] == "no agnet here"
    assert told["version"] == agnet.__version__
    assert len(told["files"]) > 10
    assert all(Path(file).is_relative_to(cloned) for file in told["files"])


def test_the_dependencies_are_what_the_modules_loaded_import(session, cloned):
    told, _ = session
    named = set()
    for file in told["files"]:
        for node in ast.parse(Path(file).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                named |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                named.add(node.module.split(".")[0])
    (line,) = re.findall(r"^dependencies = (.*)$", (cloned / "hubconf.py").read_text(encoding="utf-8"), flags=re.M)
    assert named - sys.stdlib_module_names == set(ast.literal_eval(line))


def test_torch_hub_lists_the_three_and_explains_them(session):
    told, _ = session
    assert sorted(told["list"]) == ["agnet", "plain", "trained"]
    for word in ("classes", "backbone", "weights", "imagenet", "(B, R, 4)", "fractions"):
        assert word in told["help"]


def test_agnet_is_the_network_that_the_library_builds(session):
    _, folder = session
    torch.manual_seed(7)
    wanted = agnet.build_model(SMALL).state_dict()
    got = torch.load(folder / "agnet.pt")
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


def test_plain_has_the_weights_of_a_file(session, classifier):
    _, folder = session
    got = torch.load(folder / "plain.pt")
    assert got["classifier.weight"].shape == (3, 576)
    assert {name for name in got if not name.startswith("backbone.")} == {"classifier.weight", "classifier.bias"}
    body = {name.removeprefix("backbone.body."): value for name, value in got.items() if name.startswith("backbone.")}
    theirs = classifier.features.state_dict()
    assert body.keys() == theirs.keys()
    assert all(torch.equal(body[name], theirs[name]) for name in theirs)


def test_a_trained_run_says_what_it_said_here(session, checkpoint, inputs):
    told, folder = session
    assert told["classes"] == told["of_a_folder"] == ["ant", "bee", "côté"]
    with torch.no_grad():
        wanted = checkpoint.model(*inputs).logits
    assert torch.allclose(torch.load(folder / "logits.pt"), wanted, rtol=0, atol=1e-5)


def test_what_cannot_be_built_is_said_in_one_line(session):
    told, _ = session
    assert told["weights"].startswith("CheckpointError: there is no weights file absent.pth")
    assert told["backbone"].startswith("ConfigurationError: unknown backbone 'resnet'; known: resnet50")
    assert told["settings"].startswith("TypeError: ") and "heads" in told["settings"]
    assert all("\n" not in told[name] for name in ("weights", "backbone", "settings"))


def test_another_agnet_imported_before_is_neither_used_nor_replaced(cloned):
    code = """
import importlib.util, types
other = sys.modules["agnet"] = types.ModuleType("agnet")
other.__file__ = "/somewhere/agnet/__init__.py"
spec = importlib.util.spec_from_file_location("hubconf", sys.argv[1])
hubconf = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hubconf)
try:
    hubconf.trained("best.safetensors")
except ImportError as error:
    print(error)
assert sys.modules["agnet"] is other and "agnet.training" not in sys.modules
"""
    said = alone(code, cloned / "hubconf.py")
    assert "another agnet is imported already, from /somewhere/agnet/__init__.py" in said
    assert str(cloned) in said


def test_a_package_that_fails_to_import_leaves_nothing_behind(cloned, tmp_path):
    shutil.copy(cloned / "hubconf.py", tmp_path)
    (tmp_path / "__init__.py").write_text("raise RuntimeError('half a clone')\n", encoding="utf-8")
    code = """
sys.path.insert(0, sys.argv[1])
import hubconf
try:
    hubconf.trained("best.safetensors")
except RuntimeError as error:
    print(error, "agnet" in sys.modules)
"""
    assert alone(code, tmp_path).split("\n")[0] == "half a clone False"


def test_the_installed_agnet_of_the_same_folder_is_the_one_used():
    before = sys.modules["agnet"]
    settings = {"backbone": "mobilenet-v3-small", "weights": "none", "regions": 2}
    model = torch.hub.load(str(ROOT), "agnet", source="local", classes=2, **settings)
    assert type(model) is agnet.AGNet
    assert sys.modules["agnet"] is before
