"""`agnet.load`: what `agnet predict` says, in a line of Python."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import agnet as package
from agnet.data.errors import CheckpointError, ConfigurationError, ImageError
from agnet.training.models.registry import ModelSettings
from agnet.training.runs.checkpoints import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

ROOT = Path(package.__file__).resolve().parent


@pytest.fixture(scope="module")
def run(tmp_path_factory, untrained, textured):
    """A run's folder, whose network was never trained, but tells one image from another by their regions, too."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    checkpoint = untrained(ModelSettings(classes=3, regions=6, backbone="mobilenet-v3-small", units=4))
    model, seen = checkpoint.model.train(), np.stack([textured(number, 64, 64) for number in range(100, 108)])
    images = torch.from_numpy(seen).permute(0, 3, 1, 2)
    with torch.no_grad():
        for _ in range(20):  # batch norms get to know images, without which all look the same
            model(images, torch.rand(8, 6, 4).sort(dim=-1).values)
    torch.nn.init.normal_(model.eval().classifier.weight, std=3.0)
    model.size_hw = (64, 64)
    save_checkpoint(folder / "best.safetensors", checkpoint)
    return folder


@pytest.fixture(scope="module")
def network(run):
    return package.load(str(run), device="cpu")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory, textured):
    """Three photographs, the second one turned by its metadata, and something else."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(3):
        turned = Image.Exif()
        turned[0x0112] = 6 if number == 1 else 1
        Image.fromarray(textured(number, 90 + 20 * number, 70)).save(folder / f"{number}.png", exif=turned)
    (folder / "3.png").write_bytes(b"not an image")
    (folder / "clip.mp4").write_bytes(b"not looked at")
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_the_same_numbers_as_the_command_to_the_bit(network, run, photographs, agnet):
    files = [str(photographs / f"{number}.png") for number in (0, 1, 2, 3)]
    lines = agnet("predict", "--run", run, *files, "--json", "--device", "cpu", code=1).stdout.splitlines()
    told = [json.loads(line) for line in lines]
    found = network.predict(files)
    assert [one.image for one in found] == files and [bool(one.error) for one in found] == [False] * 3 + [True]
    for one, line in zip(found[:3], told, strict=False):
        seven = {name: float(f"{share:.7g}") for name, share in one.to_dict()["probabilities"].items()}
        assert list(seven.items()) == list(line["probabilities"].items())
        assert (one.label, float(f"{one.probability:.7g}")) == (line["label"], line["probability"])
    assert found[3].to_dict() == told[3] and "error" in told[3]


def test_an_image_is_the_same_however_it_is_given(network, photographs):
    files = [photographs / f"{number}.png" for number in range(3)]
    alone = [network.predict(file) for file in files]
    assert len({one.probability for one in alone}) == 3  # or nothing could be told apart
    arrays = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    arrays[1] = np.rot90(arrays[1], -1)  # what orientation 6 means
    for one, file, array in zip(alone, files, arrays, strict=True):
        for given in (str(file), array, Image.open(file), Image.fromarray(np.ascontiguousarray(array))):
            assert network.predict(given).top == one.top
    # Batches round otherwise; what is given changes nothing.
    together = network.predict(files)
    for given in (tuple(files), iter(files), arrays, (Image.open(file) for file in files)):
        assert [one.top for one in network.predict(given)] == [one.top for one in together]
    for one, other in zip(alone, together, strict=True):
        assert [name for name, _ in one.top] == [name for name, _ in other.top]
        assert one.probability == pytest.approx(other.probability, abs=1e-5)


def test_a_folder_and_a_pattern_hold_all_that_is_in_them(network, photographs):
    found = network.predict(photographs)
    assert [Path(one.image).name for one in found] == ["0.png", "1.png", "2.png", "3.png", "clip.mp4"]
    assert "not in a supported image format" in found[3].error and "is a video" in found[4].error
    assert len(network.predict(f"{photographs}/[01].png")) == 2
    assert len(network.predict([photographs, photographs / "0.png"], batch_size=2)) == 6


def test_grey_is_colour_three_times(network, textured):
    grey = np.ascontiguousarray(textured(5, 60, 60)[..., 0])
    wanted = network.predict(np.repeat(grey[..., None], 3, axis=2)).top
    for given in (grey, grey[..., None], Image.fromarray(grey)):
        assert network.predict(given).top == wanted


def test_what_is_said_is_small_and_readable(network, photographs):
    one = network.predict(photographs / "0.png", top=2)
    assert one.label == one.top[0][0] in network.classes and one.probability == one.top[0][1]
    shares = ", ".join(f"{name} {share:.1%}" for name, share in one.top)
    assert len(one.top) == 2 and repr(one) == f"<{photographs / '0.png'}: {shares}>"
    assert json.loads(json.dumps(one.to_dict()))["probabilities"] == dict(one.top)
    assert repr(network) == "<agnet on mobilenet-v3-small: 3 classes, cpu>"
    assert repr(network.predict([photographs / "3.png"])[0]).startswith(f"<{photographs / '3.png'}: error: ")
    assert network.predict(np.zeros((9, 9, 3), np.uint8)).image == "image 0"
    assert network.predict([]) == []


@pytest.mark.parametrize("name", ["3.png", "nothing.png", "clip.mp4"])
def test_one_image_that_cannot_be_read_raises(network, photographs, name):
    with pytest.raises(ImageError, match=name):
        network.predict(photographs / name)


@pytest.mark.parametrize(
    ("given", "error", "complaint"),
    [
        (np.zeros((4, 4, 3)), ValueError, r"wanted a uint8 array .*; got float64 \(4, 4, 3\)"),
        (np.zeros((4, 4, 4), np.uint8), ValueError, r"got uint8 \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"got uint8 \(0, 4, 3\)"),
        (None, TypeError, "wanted paths, arrays or PIL images, got NoneType"),
        ([3], TypeError, "image 0: wanted a path, an array or a PIL image, got int"),
    ],
)
def test_what_is_no_image_is_the_callers_error(network, given, error, complaint):
    with pytest.raises(error, match=complaint):
        network.predict(given)


def test_a_run_is_its_folder_or_its_checkpoint_as_text_or_as_a_path(run, photographs, agnet):
    wanted = None
    for name in (run, str(run), run / "best.safetensors", str(run / "best.safetensors")):
        assert load_checkpoint(name).epoch == 4
        found = package.load(name, device="cpu").predict(photographs / "0.png").top
        wanted = wanted or found
        assert found == wanted
        answer = agnet("predict", "--run", name, photographs / "0.png", "--json", "--device", "cpu").stdout
        assert json.loads(answer)["label"] == wanted[0][0]
        pixels = [("0.png", package.read_image(photographs / "0.png"))]
        propose = package.load(run)._propose
        (one,) = package.predict(name, pixels, propose, package.choose_device("cpu"))
        assert one.classes[0] == wanted[0][0]


def test_what_is_no_single_run_is_refused_with_the_remedy(run, tmp_path):
    (tmp_path / "several" / "seed-3").mkdir(parents=True)
    (tmp_path / "several" / "seed-3" / "config.json").write_text("{}")
    (tmp_path / "text.txt").write_text("text")
    for name, complaint in (
        ("several", "several seeds; name one of them, such as .*seed-3"),
        ("text.txt", "is not a run: name its folder"),
        ("nothing", "there is no .*nothing.best.safetensors"),
    ):
        with pytest.raises(CheckpointError, match=complaint):
            package.load(tmp_path / name)
    with pytest.raises(ConfigurationError, match="device 'gpu'"):
        package.load(run, device="gpu")
    with pytest.raises(ConfigurationError, match="precision 'half': wanted"):
        package.load(run, device="cpu", precision="half")


def test_type_checkers_see_every_name():
    """They know nothing of names that are imported when they are asked for."""
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    told = {alias.asname: f".{node.module}" for node in block.body for alias in node.names}
    assert told == package._HOMES
    assert (ROOT / "py.typed").is_file() and "agnet = py.typed" in (ROOT / "setup.cfg").read_text(encoding="utf-8")
