import json
import os

import pytest
import torch
from safetensors.torch import save_file

from agnet.data.errors import CheckpointError
from agnet.training.loop.optimizer import build_optimizer
from agnet.training.models.build import build_model
from agnet.training.models.model import Model
from agnet.training.models.registry import ModelSettings
from agnet.training.recipes import RECIPES
from agnet.training.runs.checkpoints import (
    check_finite,
    load_checkpoint,
    load_state_dict,
    load_training_state,
    save_checkpoint,
    save_training_state,
)

pytestmark = pytest.mark.usefixtures("small_mobilenet")

SETTINGS = ModelSettings(classes=3, regions=6, backbone="mobilenet-v3-small")
PIXELS = {"size": 224, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


class OneLayer(Model):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, inputs):
        return self.layer(inputs)


@pytest.fixture
def checkpoint(untrained):
    return untrained(SETTINGS)


def test_what_is_loaded_predicts_what_was_saved(checkpoint, tmp_path):
    path = save_checkpoint(tmp_path / "best.safetensors", checkpoint)
    loaded = load_checkpoint(path)
    for name in ("settings", "classes", "size_hw", "proposals", "fingerprint", "epoch", "val_top1"):
        assert getattr(loaded, name) == getattr(checkpoint, name), name
    images, regions = torch.randn(2, 3, 224, 224), torch.rand(2, 6, 4).sort(dim=-1).values
    with torch.no_grad():
        assert torch.equal(loaded.model(images, regions).logits, checkpoint.model(images, regions).logits)
    assert [file.name for file in tmp_path.iterdir()] == ["best.safetensors"]


def test_a_failing_write_leaves_the_old_file(checkpoint, tmp_path, monkeypatch):
    path = save_checkpoint(tmp_path / "best.safetensors", checkpoint)
    before = path.read_bytes()

    def full_disk(tensors, target, metadata):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agnet.training.runs.checkpoints.save_file", full_disk)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(path, checkpoint)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def _rewrite(path, change_tensors=lambda tensors: None, **changes):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["agnet"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del header["blake2b"]  # a stranger has none, or the right one
    header |= changes
    change_tensors(tensors)
    save_file(tensors, path, metadata={"agnet": json.dumps(header)})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"format": "other"}, "not an agnet checkpoint"),
        ({"format_version": 99}, "version 99"),
        ({"classes": ["a", "b"]}, "2 class names for 3 classes"),
        ({"model": {"classes": 3, "layers": 9}}, "layers"),
        ({"model": {"classes": 3, "backbone": "alexnet"}}, "alexnet"),
        (
            {"model": {"classes": 5, "regions": 6, "backbone": "mobilenet-v3-small"}},
            r"classifier.weight has shape \(3, 576\), its network needs \(5, 576\)$",
        ),
        ({"model": {"classes": 3, "regions": 10**9, "backbone": "mobilenet-v3-small"}}, "se_residual.* has shape"),
        ({"model": {"classes": 3, "regions": 10**30, "backbone": "mobilenet-v3-small"}}, "damaged or foreign"),
        ({"model": {"classes": 3, "backbone": None}}, "backbone is None: it must be of type str"),
        ({"model": {"classes": "3"}}, "classes is '3': it must be of type int"),
        ({"preprocessing": {}}, "its header has no 'size'"),
        ({"classes": None}, "damaged or foreign"),
        *[({"preprocessing": PIXELS | {"size": size}}, "size of its images is") for size in (0, -1, 10**6, 2.5, "a")],
        *[
            ({"preprocessing": PIXELS | {name: values}}, f"the {name} of its images is")
            for name, values in [
                ("mean", [1, 2]),
                ("mean", [0, 0, float("nan")]),
                ("mean", [[0, 0, 0]]),
                ("std", [0, 0, 0]),
                ("std", [1, 1, -1]),
                ("std", [1, 1, float("inf")]),
                ("std", [1, 1, 1e-300]),
            ]
        ],
        ({"preprocessing": PIXELS | {"mean": "abc"}}, "damaged or foreign"),
        ({"preprocessing": PIXELS | {"std": [1, 1, 10**400]}}, "damaged or foreign"),
    ],
)
def test_a_header_that_does_not_fit_is_one_clear_line(checkpoint, tmp_path, changes, complaint):
    path = save_checkpoint(tmp_path / "best.safetensors", checkpoint)
    _rewrite(path, **changes)
    with pytest.raises(CheckpointError, match=complaint) as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_no_network_is_built_for_settings_that_its_tensors_do_not_fit(checkpoint, tmp_path, monkeypatch):
    """Built for real, a thousand million regions would take 83 TB."""
    path = save_checkpoint(tmp_path / "best.safetensors", checkpoint)
    _rewrite(path, model={"classes": 3, "regions": 10**9, "backbone": "mobilenet-v3-small"})
    devices = []

    def build(settings):
        devices.append(torch.get_default_device().type)
        return build_model(settings)

    monkeypatch.setattr("agnet.training.runs.checkpoints.build_model", build)
    with pytest.raises(CheckpointError, match="has shape"):
        load_checkpoint(path)
    assert devices == ["meta"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda tensors: tensors.pop("classifier.bias"), r"classifier\.bias is missing$"),
        (
            lambda tensors: tensors.update({"classifier.more": torch.zeros(1)}),
            r"classifier\.more is not a tensor of its network$",
        ),
        (
            lambda tensors: tensors.update({"classifier.bias": torch.zeros(2)}),
            r"classifier\.bias has shape \(2,\), its network needs \(3,\)$",
        ),
    ],
    ids=["missing", "unexpected", "of another shape"],
)
def test_the_tensor_that_does_not_fit_is_named(checkpoint, tmp_path, change, complaint):
    path = save_checkpoint(tmp_path / "best.safetensors", checkpoint)
    _rewrite(path, change)
    with pytest.raises(CheckpointError, match=complaint) as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.name != "posix", reason="looks at POSIX permissions")
@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_files_may_be_read_by_whom_the_umask_allows(tmp_path, umask):
    (tmp_path / "last.safetensors.tmp").write_bytes(b"of a run that was killed")
    (tmp_path / "last.safetensors.tmp").chmod(0o600)
    before = os.umask(umask)
    try:
        model = OneLayer(torch.nn.Linear(2, 2))
        save_training_state(tmp_path / "last.safetensors", model, build_optimizer(model, RECIPES["modern"]), {})
    finally:
        os.umask(before)
    assert (tmp_path / "last.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize(
    ("outputs", "sound"),
    [([torch.ones(2), None], True), ([torch.tensor([1, torch.nan])], False), ([None, torch.tensor(torch.inf)], False)],
)
def test_outputs_that_are_no_numbers_are_refused(outputs, sound):
    if sound:
        check_finite(outputs)
    else:
        with pytest.raises(CheckpointError, match=r"not finite numbers: .* train again$"):
            check_finite(outputs)


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"not safetensors at all", b"\xff" * 8 + b"{}"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "best.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"best\.safetensors"):
        load_checkpoint(path)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="there is no"):
        load_checkpoint(tmp_path / "best.safetensors")


def test_foreign_safetensors_are_refused(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="not an agnet checkpoint"):
        load_checkpoint(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize("recipe", ["paper", "modern"])
def test_training_goes_on_from_a_saved_state_as_if_it_had_not_stopped(recipe, tmp_path):
    def train(model, optimizer, steps):
        generator = torch.Generator().manual_seed(len(steps))
        for _ in steps:
            loss = model(torch.randn(4, 8, 5, 5, generator=generator)).square().sum()
            optimizer.zero_grad()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = 0.01
            optimizer.step()

    def fresh():
        torch.manual_seed(1)
        model = OneLayer(torch.nn.Conv2d(8, 3, 3)).to(memory_format=torch.channels_last)
        return model, build_optimizer(model, RECIPES[recipe])

    straight = fresh()
    train(*straight, range(2))
    train(*straight, range(3))
    stopped = fresh()
    train(*stopped, range(2))
    save_training_state(tmp_path / "last.safetensors", *stopped, {"epoch": 2})
    resumed = fresh()
    assert load_training_state(tmp_path / "last.safetensors", *resumed) == {"epoch": 2}
    train(*resumed, range(3))
    for one, other in zip(straight[0].parameters(), resumed[0].parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_state_of_another_model_is_refused(tmp_path):
    model = OneLayer(torch.nn.Linear(8, 3))
    save_training_state(tmp_path / "last.safetensors", model, build_optimizer(model, RECIPES["modern"]), {})
    other = OneLayer(torch.nn.Linear(9, 3))
    with pytest.raises(
        CheckpointError, match=r"does not fit this run: layer\.weight has shape \(3, 8\), its network needs \(3, 9\)"
    ):
        load_training_state(tmp_path / "last.safetensors", other, build_optimizer(other, RECIPES["modern"]))


class _Surprise:
    def __reduce__(self):
        return print, ("this must never be printed",)


def test_a_wrapped_state_dict_is_unwrapped(tmp_path):
    torch.save({"epoch": 3, "state_dict": {"w": torch.ones(2)}}, tmp_path / "weights.pth")
    assert load_state_dict(tmp_path / "weights.pth").keys() == {"w"}


@pytest.mark.parametrize("content", [{"weight": _Surprise()}, _Surprise(), [torch.zeros(1)], {"weight": 3}])
def test_weights_that_are_more_than_tensors_are_refused(tmp_path, content, capsys):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError):
        load_state_dict(tmp_path / "weights.pth")
    assert capsys.readouterr().out == ""


def test_half_precision_weights_become_single(tmp_path):
    torch.save({"w": torch.ones(2, dtype=torch.float16), "n": torch.tensor(3)}, tmp_path / "weights.pth")
    loaded = load_state_dict(tmp_path / "weights.pth")
    assert loaded["w"].dtype == torch.float32 and loaded["n"].dtype == torch.int64
