"""Exported files compute what the network computes, say what they are, and appear only then."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.export.passes import move_to_device_pass

import agnet as package
from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import CheckpointError, ConfigurationError, DatasetError
from agnet.data.images import read_image
from agnet.proposals.settings import ProposalSettings
from agnet.training.export import export as module
from agnet.training.export import loss as export_loss
from agnet.training.export import measured as export_measurement
from agnet.training.export import target as export_target
from agnet.training.export import writing as export_writing
from agnet.training.export.export import Network, eager, export_run, largest_differences, trial_inputs
from agnet.training.export.formats import FORMATS
from agnet.training.export.loss import measure_loss
from agnet.training.export.lower_precision import write_int8
from agnet.training.export.measured import export_measured
from agnet.training.models.backbones.backbone import Backbone, Preprocessing
from agnet.training.models.build import assemble, build_model
from agnet.training.models.contract import Output
from agnet.training.models.registry import ModelSettings
from agnet.training.models.settings import SRBNSettings
from agnet.training.runs.checkpoints import Checkpoint, save_checkpoint
from agnet.training.samples.views import View

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(package.__file__).resolve().parent
CLASSES = ("ant", "bee", "côté")
PROPOSALS = {"method": "sift", "primary": 3}
SIDE = 64
LESS = {"self_attention": False, "inter_attention": False, "fusion": "mean", "se": "none"}  # still takes boxes


def small_network(settings):
    """As `build_model`, with a backbone of two convolutions, as a real one takes ten seconds to export."""
    if settings.backbone not in ("tiny", "tiny-9"):
        return build_model(settings)
    stride = 4 if settings.backbone == "tiny" else 3  # tiny-9: a map of 9 × 9, which is resized
    body = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=stride), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 16, 3, stride=2)
    )
    return assemble(settings, Backbone(body, 16, Preprocessing(SIDE, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))))


@pytest.fixture(scope="module", autouse=True)
def _checkpoints_know_the_small_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agnet.training.runs.checkpoints.build_model", small_network)
        yield


def checkpoint(proposals=PROPOSALS, **changes):
    torch.manual_seed(0)
    settings = ModelSettings(**{"classes": 3, "regions": 6, "backbone": "tiny", **changes})
    model = small_network(settings).eval()
    if getattr(model, "self_attention", None):
        nn.init.constant_(model.self_attention.delta, 0.5)  # as trained: 0 would hide what it does
    return Checkpoint(settings, CLASSES, proposals, "f" * 32, 4, 0.5, model=model)


def save(folder, made):
    folder.mkdir(exist_ok=True)
    save_checkpoint(folder / "best.safetensors", made)
    return folder


@pytest.fixture
def run(tmp_path):
    """The folder of a run."""
    return save(tmp_path / "run", checkpoint())


@pytest.fixture
def plain_run(tmp_path):
    """The folder of a run of the plain network, which is traced in a second."""
    return save(tmp_path / "run", checkpoint(model="plain"))


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """One exported file of each format, for tests that only look at it."""
    folder = save(tmp_path_factory.mktemp("exports") / "run", checkpoint())
    return {format: export_run(folder, format) for format in FORMATS}


def onnx_session(file):
    import onnxruntime

    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def outputs_of(file, inputs):
    """What a file gives for numpy inputs, without agnet's own loading."""
    if file.suffix == ".onnx":
        session = onnx_session(file)
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, inputs), strict=True))
    program = torch.export.load(file).module()
    given = {name: torch.from_numpy(value) for name, value in inputs.items()}
    return {name: value.numpy() for name, value in program(**given).items()}


def photographs(count, side=SIDE, regions=6):
    generator = np.random.default_rng(count)
    images = generator.integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    corners = np.sort(generator.random((count, regions, 2, 2), dtype=np.float32), axis=2)
    return {"images": images, "boxes": corners.reshape(count, regions, 4)}


def expected(made, inputs):
    """The network's own outputs."""
    with torch.no_grad():
        names = {"images": "images", "regions": "boxes"}  # of the network, and of the file
        return made.model(*(torch.from_numpy(inputs[names[name]]) for name in made.model.inputs))


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_computes_what_the_network_computes_for_any_batch(exports, format):
    exported = exports[format]
    assert exported.file.parts[-2:] == ("run", f"model{FORMATS[format].suffix}")
    for count in (1, 2, 5):
        inputs = photographs(count)
        inputs["boxes"][0, :3] = [(0.3, 0.3, 0.3, 0.3), (0, 0, 1, 1), (0.2, 0.9, 0.8, 0.9)]
        wanted, got = expected(checkpoint(), inputs), outputs_of(exported.file, inputs)
        assert set(got) == {"logits", "probabilities", "region_weights", "attention_map", "embedding"}
        assert wanted.losses is None
        for name, value in list(wanted._asdict().items())[:4]:
            np.testing.assert_allclose(got[name], value.numpy(), atol=2e-5, rtol=2e-4, err_msg=name)
        np.testing.assert_allclose(got["probabilities"], wanted.logits.softmax(dim=1).numpy(), atol=2e-5)
    assert 0 <= max(exported.largest_differences.values()) < 1e-4
    assert exported.largest_differences.keys() == got.keys()


@pytest.mark.parametrize("format", FORMATS)
def test_boxes_matter(exports, format):
    file, inputs = exports[format].file, photographs(2)
    moved = inputs | {"boxes": inputs["boxes"] * np.float32(0.5)}
    assert np.abs(outputs_of(file, inputs)["logits"] - outputs_of(file, moved)["logits"]).max() > 1e-3


def test_a_model_that_looks_at_no_regions_asks_for_none(tmp_path):
    file = export_run(save(tmp_path / "run", checkpoint(use_regions=False)), "torch").file
    inputs = photographs(2)
    wanted = expected(checkpoint(use_regions=False), inputs).logits.numpy()
    got = outputs_of(file, {"images": inputs["images"]})
    np.testing.assert_allclose(got["logits"], wanted, atol=2e-5, rtol=2e-4)
    assert "region_weights" in got


@pytest.mark.parametrize(
    ("format", "changes"),
    [
        ("onnx", {"spectral_norm": True, "attention_softmax": True, "pooling_samples": 2, "backbone": "tiny-9"}),
        ("torch", {"self_attention": False, "inter_attention": False, "fusion": "max", "se": "shared"}),
    ],
    ids=["more", "less"],
)
def test_networks_with_other_parts_or_another_map_can_be_exported(tmp_path, format, changes):
    exported = export_run(save(tmp_path / "run", checkpoint(**changes)), format)
    assert max(exported.largest_differences.values()) < 1e-4


def test_the_spatial_lstm_with_attention_at_each_step_and_a_sketch_can_be_exported(tmp_path, capfd):
    compact = {"bilinear": "compact", "sketch": 32, "bilinear_channels": 8}
    settings = SRBNSettings(3, "tiny", "tiny", grid=2, units=4, directions=1, attention="recurrent", **compact)
    torch.manual_seed(0)
    made = Checkpoint(settings, CLASSES, {}, "f" * 32, 4, 0.5, model=small_network(settings).eval())
    file, inputs = export_run(save(tmp_path / "run", made), "onnx").file, {"images": photographs(2)["images"]}
    wanted, got = expected(made, inputs), outputs_of(file, inputs)
    for name in ("logits", "attention_map", "embedding"):
        np.testing.assert_allclose(got[name], getattr(wanted, name).numpy(), atol=2e-5, rtol=2e-4, err_msg=name)
    assert set(got) == {"logits", "probabilities", "attention_map", "embedding"}
    assert capfd.readouterr() == ("", "")


def metadata_of(file):
    if file.suffix == ".onnx":
        return json.loads(onnx_session(file).get_modelmeta().custom_metadata_map["agnet"])
    extra = {"agnet.json": ""}
    torch.export.load(file, extra_files=extra)
    return json.loads(extra["agnet.json"])


@pytest.mark.parametrize("format", FORMATS)
def test_the_file_alone_says_what_a_user_has_to_know(exports, format):
    about = metadata_of(exports[format].file)
    assert about["classes"] == list(CLASSES) and about["regions"] == 6 and about["proposals"] == PROPOSALS
    assert about["preprocessing"] == {"size": SIDE, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
    assert about["agnet"] == package.__version__ and about["model"]["backbone"] == "tiny"
    assert f"uint8 (batch, 3, {SIDE}, {SIDE})" in about["inputs"]["images"]
    assert "float32 (batch, 6, 4)" in about["inputs"]["boxes"]
    assert "(batch, 7)" in about["outputs"]["region_weights"]


def test_the_onnx_graph_names_its_inputs_and_outputs(exports):
    session = onnx_session(exports["onnx"].file)
    assert {value.name: (value.type, value.shape) for value in session.get_inputs()} == {
        "images": ("tensor(uint8)", ["batch", 3, SIDE, SIDE]),
        "boxes": ("tensor(float)", ["batch", 6, 4]),
    }
    assert {value.name: value.shape for value in session.get_outputs()} == {
        "logits": ["batch", 3],
        "probabilities": ["batch", 3],
        "region_weights": ["batch", 7],
        "attention_map": ["batch", 7, 7],
        "embedding": ["batch", 16],
    }


@pytest.mark.parametrize("format", FORMATS)
def test_no_path_of_this_machine_is_in_the_bytes(exports, format):
    file = exports[format].file
    content = file.read_bytes()
    packages, home = Path(torch.__file__).parent.parent, Path(os.environ.get("HOME", "/"))
    for place in (ROOT, Path(module.__file__).parent, packages, file.parent, home, Path.cwd(), Path(sys.prefix)):
        if len(place.parts) > 1:  # a home of / would be found in every division
            assert str(place).encode() not in content, place
    assert b".py" not in content and b'File "' not in content


def test_a_file_that_computes_something_else_is_not_kept(tmp_path, monkeypatch):
    folder, format = save(tmp_path / "run", checkpoint(**LESS)), "torch"
    (folder / f"model{FORMATS[format].suffix}").write_bytes(b"before")
    half = Network.forward
    monkeypatch.setattr(Network, "forward", lambda self, images, boxes: half(self, images, boxes * 0.9))
    with pytest.raises(CheckpointError, match=r"is not the trained one: its \w+ are off by .* no file was written"):
        export_run(folder, format)
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        ["best.safetensors", f"model{FORMATS[format].suffix}"]
    )
    assert (folder / f"model{FORMATS[format].suffix}").read_bytes() == b"before"


def test_outputs_that_are_missing_misshapen_or_not_finite_differ_infinitely():
    wanted = {"logits": torch.tensor([[30.0, -20.0], [10.0, 0.0]]), "probabilities": torch.tensor([[0.5, 0.25]])}

    def differences(**changes):
        return largest_differences([wanted, {**wanted, **changes}], [wanted, wanted])

    assert differences() == {"logits": 0, "probabilities": 0}
    assert differences(logits=wanted["logits"] - 3)["logits"] == pytest.approx(0.1)  # of the largest magnitude
    assert differences(probabilities=wanted["probabilities"] + 0.2)["probabilities"] == pytest.approx(0.2)  # of 1
    assert differences(logits=wanted["logits"] * torch.nan) == {"logits": float("inf"), "probabilities": 0}
    assert differences(logits=wanted["logits"][:, :1])["logits"] == float("inf")
    assert differences(more=wanted["logits"])["more"] == float("inf")
    assert largest_differences([{}], [wanted]) == {"logits": float("inf"), "probabilities": float("inf")}


def test_weights_that_are_not_finite_are_no_network(tmp_path):
    made = checkpoint()
    nn.init.constant_(made.model.classifier.bias, torch.nan)
    with pytest.raises(CheckpointError, match=r"the network's own outputs are not finite numbers: .*; train again$"):
        export_run(save(tmp_path / "run", made), "torch")
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["best.safetensors"]


@pytest.mark.parametrize("output", [None, Path("elsewhere/net.onnx")], ids=str)
def test_a_folder_that_may_not_be_written_is_said_before_the_work(run, agnet, monkeypatch, output):
    Path("elsewhere").mkdir()
    monkeypatch.setattr(module, "_trace", lambda *arguments: pytest.fail("the work began"))
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # permissions do not keep out root
    failed = agnet("export", "--run", "run", *(["--output", output] if output else []), code=1)
    file = output or Path("run/model.onnx")
    assert failed.stderr == (
        f"Error: {file} cannot be written: no permission in the folder {file.parent}; name another file with --output\n"
    )


def test_a_write_protected_file_is_not_replaced(run, monkeypatch):
    (run / "model.pt2").write_bytes(b"before")
    monkeypatch.setattr(os, "access", lambda path, mode: path != run / "model.pt2")
    with pytest.raises(ConfigurationError, match=r"model\.pt2 is write-protected .* --output$"):
        export_run(run, "torch")
    assert (run / "model.pt2").read_bytes() == b"before"


def test_a_rounded_input_changes_little_and_something():
    made, inputs = checkpoint(), list(trial_inputs((SIDE, SIDE), 6))[-1]
    with torch.no_grad():
        exact, rounded = eager(made)(inputs), eager(made, noise=2**-23)(inputs)
    assert 0 < largest_differences([rounded], [exact])["logits"] < 1e-5


def test_trials_hold_every_kind_of_box():
    boxes = torch.cat([inputs["boxes"] for inputs in trial_inputs((SIDE, SIDE), 6)]).flatten(0, 1)
    width = boxes[:, 2] - boxes[:, 0]
    assert (width >= 0).all() and (width == 0).any()
    assert (boxes == torch.tensor([0, 0, 1, 1])).all(dim=1).any() and (boxes < 0).any() and (boxes > 1).any()
    assert [len(inputs["images"]) for inputs in trial_inputs((SIDE, SIDE), 6)] == [1, 3, 3]
    assert [set(inputs) for inputs in trial_inputs((SIDE, SIDE), 0)] == [{"images"}] * 3


@pytest.mark.parametrize(
    ("error", "place"), [(KeyboardInterrupt, "load"), (OSError(28, "No space left on device"), "write")], ids=str
)
def test_an_interrupted_export_leaves_the_old_file(plain_run, monkeypatch, error, place):
    folder = plain_run
    (folder / "model.pt2").write_bytes(b"before")

    def fail(*arguments):
        arguments[-1].write_bytes(b"half")
        raise error

    monkeypatch.setattr(export_writing, f"{place}_torch", fail)
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        export_run(folder, "torch")
    assert sorted(file.name for file in folder.iterdir()) == ["best.safetensors", "model.pt2"]
    assert (folder / "model.pt2").read_bytes() == b"before"


def test_without_its_packages_the_remedy_is_told(run, agnet, monkeypatch):
    found = export_target.find_spec
    monkeypatch.setattr(export_target, "find_spec", lambda name: None if name.startswith("onnx") else found(name))
    failed = agnet("export", "--run", run, code=1)
    needs, _, command = failed.stderr.rstrip("\n").partition(": ")[2].partition(": ")
    assert needs == "--format onnx needs onnx, onnxscript, onnxruntime"
    assert command.endswith(' install "onnx>=1.17" "onnxscript>=0.6" "onnxruntime>=1.20"')
    assert list(run.iterdir()) == [run / "best.safetensors"]


def test_the_result_as_json(plain_run, agnet):
    told = json.loads(agnet("export", "--run", plain_run, "--format", "torch", "--output", "net.pt2", "--json").stdout)
    assert told["file"] == "net.pt2" and told["bytes"] == Path("net.pt2").stat().st_size
    assert told["format"] == "torch" and told["largest_differences"]["logits"] < 1e-4


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--output", "."], "is a folder; name a file in it, such as model.onnx"),
        (["--output", "model.pt2"], "model.pt2: a file of --format onnx must end in .onnx"),
        (["--output", "nowhere/model.onnx"], "there is no folder nowhere"),
        (["--run", "nothing"], "there is no nothing/best.safetensors"),
    ],
)
def test_bad_input_is_one_line(run, agnet, arguments, complaint):
    failed = agnet("export", "--run", "run", *arguments, code=1)
    assert complaint in failed.stderr and failed.stderr.count("\n") == 1 and failed.stderr.startswith("Error: ")


def test_a_model_of_clips_is_refused_in_one_line(run, monkeypatch):
    monkeypatch.setattr("agnet.training.models.agnet.AGNet.inputs", ("frames", "valid"))
    with pytest.raises(ConfigurationError, match="model agnet takes frames and valid: only models of single images"):
        export_run(run)
    assert [file.name for file in run.iterdir()] == ["best.safetensors"]


def test_probabilities_of_logits_per_frame_are_the_mean_over_the_frames():
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    network = Network(lambda images: Output(logits))
    network.model.inputs = ("images",)
    torch.testing.assert_close(network(None)["probabilities"], logits.softmax(dim=2).mean(dim=1))


def test_a_network_that_cannot_be_traced_is_named(run, monkeypatch, capfd):
    def forward(self, images, boxes):
        return {"logits": images * (1 if images.float().mean().item() > 3 else 2)}

    monkeypatch.setattr(Network, "forward", forward)
    with pytest.raises(CheckpointError, match="tiny cannot be exported: ") as error:
        export_run(run, "torch")
    assert "\n" not in str(error.value) and capfd.readouterr() == ("", "")
    assert [file.name for file in run.iterdir()] == ["best.safetensors"]


def test_what_onnx_cannot_express_is_named(run, monkeypatch, capfd):
    def forward(self, images, boxes):
        return {"logits": torch.linalg.eigvals(images[:, 0].float()).abs()}

    monkeypatch.setattr(Network, "forward", forward)
    with pytest.raises(CheckpointError, match=r"ONNX cannot express this network: .*linalg_eig") as error:
        export_run(run)
    assert "\n" not in str(error.value) and capfd.readouterr() == ("", "")
    assert [file.name for file in run.iterdir()] == ["best.safetensors"]


def test_a_file_that_does_not_run_is_not_kept(plain_run, monkeypatch):
    def load(file):
        raise LookupError("no such operator\nin this version")

    monkeypatch.setattr(export_writing, "load_torch", load)
    with pytest.raises(CheckpointError, match=r"does not run, so no file was written: no such operator$"):
        export_run(plain_run, "torch")
    assert [file.name for file in plain_run.iterdir()] == ["best.safetensors"]


def test_more_than_one_onnx_file_can_hold_is_refused(plain_run, monkeypatch):
    monkeypatch.setattr(export_writing, "_PROTOBUF_LIMIT", 1000)
    with pytest.raises(ConfigurationError, match="one ONNX file holds 2 GiB; use --format torch"):
        export_run(plain_run)
    assert [file.name for file in plain_run.iterdir()] == ["best.safetensors"]


def test_every_format_has_a_suffix_of_its_own():
    assert len({format.suffix for format in FORMATS.values()}) == len(FORMATS)


def documented_programs():
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)


def test_the_documented_program_runs_a_pt2(exports, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(exports["torch"].file.parents[1])
    found = {}
    exec(documented_programs()[1], found)
    wanted = expected(checkpoint(), {"images": found["images"].cpu().numpy(), "boxes": found["boxes"].cpu().numpy()})
    np.testing.assert_allclose(found["probabilities"].cpu(), wanted.logits.softmax(dim=1).numpy(), atol=1e-4)
    assert capsys.readouterr().out == f"{[CLASSES[wanted.logits[0].argmax()]] * 8}\n"
    assert found["about"]["regions"] == 6 and set(found["about"]["inputs"]) == {"images", "boxes"}


def test_every_number_of_a_pt2_moves_with_it(exports):
    """There may be no GPU here; on meta, a tensor left behind would meet one of another device."""
    program = torch.export.load(exports["torch"].file)
    moved = move_to_device_pass(program, "meta")
    tensors = [*moved.state_dict.values(), *(value for value in moved.constants.values() if torch.is_tensor(value))]
    assert tensors and {tensor.device.type for tensor in tensors} == {"meta"}
    devices = {str(node.kwargs["device"]) for node in moved.graph.nodes if node.kwargs.get("device")}
    assert devices <= {"meta"}
    inputs = {name: torch.from_numpy(value).to("meta") for name, value in photographs(2).items()}
    got = moved.module()(**inputs)
    assert {(value.device.type, len(value)) for value in got.values()} == {("meta", 2)}


def test_the_documented_program_predicts_as_predict_does_and_imports_no_torch(agnet, textured, tmp_path, capfd):
    save(tmp_path / "run", checkpoint(regions=36, proposals=ProposalSettings().to_dict(), **LESS))
    (tmp_path / "some").mkdir()
    Image.fromarray(textured(3, 500, 300)).save(tmp_path / "some" / "photo.jpg")
    answer = json.loads(agnet("predict", "--run", "run", "some/photo.jpg", "--json").stdout)["probabilities"]

    exported = agnet("export", "--run", "run")
    assert exported.stdout == "run/model.onnx\n"
    assert re.fullmatch(r"largest differences from the network's own outputs: logits \de[-+]\d+, .*\n", exported.stderr)
    assert capfd.readouterr() == ("", "")  # what libraries write past Python

    program = documented_programs()[0]
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "agnet").symlink_to(ROOT, target_is_directory=True)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{program}\nimport sys\nassert 'torch' not in sys.modules"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "source"), "PYTHONUTF8": "1"},
    )
    assert done.returncode == 0, done.stderr
    name, share = done.stdout.split()
    assert name == max(answer, key=answer.get) and float(share) == pytest.approx(answer[name], abs=1e-4)


@pytest.fixture
def lower(boxes_file, folder, exports, tmp_path, monkeypatch):
    """A function that exports in a lower precision, by a file of float that is there already."""
    monkeypatch.setattr(
        export_measurement, "export_run", lambda run, format, output: shutil.copy(exports["onnx"].file, output)
    )
    boxes = read_boxes(boxes_file)
    run = save(tmp_path / "run", checkpoint(proposals=boxes.settings["proposals"]))
    return lambda precision, output=None, **others: export_measured(run, precision, output, boxes, folder, **others)


@pytest.mark.parametrize("precision", ["half", "int8"])
def test_a_lower_precision_is_measured_against_float_on_photographs(lower, exports, precision, boxes_file, folder):
    done = lower(precision)
    assert done.file.name == f"model-{precision}.onnx"
    boxes = read_boxes(boxes_file)
    answers = {exports["onnx"].file: [], done.file: []}
    for row in boxes.rows("val").tolist():  # one photograph after the other
        number = boxes.usable[row]
        view = View.of(tuple(boxes.sizes_wh[number].tolist()), (SIDE, SIDE))
        pixels = view.pixels(read_image(folder / boxes.names[number].decode())).transpose(2, 0, 1)[None]
        inputs = {"images": np.ascontiguousarray(pixels), "boxes": view.boxes(boxes.regions(row))[None]}
        for file, found in answers.items():
            found.append((outputs_of(file, inputs)["logits"].argmax(), boxes.labels[number]))
    one, other = (np.array(found) for found in answers.values())
    right, right_then = one[:, 0] == one[:, 1], other[:, 0] == other[:, 1]
    told = json.loads(done.report.read_text())
    assert (told["images"], told["split"], told["file"]) == (3, "val", done.file.name)
    assert (told["top1_float"], told["top1"]) == (right.mean(), right_then.mean())
    assert told["agreement"] == (one[:, 0] == other[:, 0]).mean()
    assert told["bytes"] == done.file.stat().st_size and told["bytes_float"] == exports["onnx"].file.stat().st_size
    about = metadata_of(done.file)
    assert about["precision"] == precision and about["classes"] == list(CLASSES)
    assert str(folder).encode() not in done.file.read_bytes()


def test_int8_quantises_every_convolution_and_product_with_weights(lower):
    import onnx

    done = lower("int8")
    graph = onnx.load(done.file).graph
    restored = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    products = [node for node in graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    assert all(set(node.input[:2]) <= restored for node in products)
    counts = done.settings["operators_in_int8"]
    assert counts == metadata_of(done.file)["operators_in_int8"]
    assert counts["Conv"] == 5  # two of the backbone; f, g and h of the self-attention
    assert counts["Gemm"] == 1 and sum(counts.values()) == len(products)
    weights = [value for value in graph.initializer if len(value.dims) == 4 and np.prod(value.dims) > 64]
    assert weights and {value.data_type for value in weights} == {onnx.TensorProto.INT8}


def test_what_stays_as_it_was_is_not_counted_as_int8(tmp_path):
    from onnx import TensorProto, helper, numpy_helper, save

    weights = numpy_helper.from_array(np.eye(4, dtype=np.float32), "weights")
    tables = [("images", TensorProto.FLOAT, 4), ("counts", TensorProto.INT32, 4)]
    inputs = [helper.make_tensor_value_info(name, kind, ["batch", side]) for name, kind, side in tables]
    results = [("product", TensorProto.FLOAT), ("square", TensorProto.INT32)]
    outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in results]
    nodes = [
        helper.make_node("MatMul", ["images", "weights"], ["product"]),
        helper.make_node("MatMul", ["counts", "counts"], ["square"]),  # of whole numbers, which are not quantised
    ]
    graph = helper.make_graph(nodes, "two products", inputs, outputs, [weights])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "float.onnx")
    seen = {"images": torch.rand(4, 4), "counts": torch.ones(4, 4, dtype=torch.int32)}
    done = write_int8(tmp_path / "float.onnx", tmp_path / "int8.onnx", lambda: [seen])
    assert done["operators_in_int8"] == {"Conv": 0, "MatMul": 1, "Gemm": 0}


def test_half_has_half_the_numbers_and_takes_what_float_takes(lower, exports):
    import onnx

    done = lower("half")
    large = [value for value in onnx.load(done.file).graph.initializer if np.prod(value.dims) > 64]
    assert {value.data_type for value in large} == {onnx.TensorProto.FLOAT16}
    inputs = photographs(3)
    wanted, got = outputs_of(exports["onnx"].file, inputs), outputs_of(done.file, inputs)
    assert {name: value.dtype for name, value in got.items()} == {name: value.dtype for name, value in wanted.items()}
    np.testing.assert_allclose(got["probabilities"], wanted["probabilities"], atol=2e-2)


def test_a_loss_is_counted_photograph_by_photograph(tmp_path, monkeypatch):
    files = tmp_path / "a", tmp_path / "b"
    for file, size in zip(files, (1000, 250), strict=True):
        file.write_bytes(bytes(size))
    now = iter([0, 4, 4, 5, 5, 7, 7, 8])  # seconds: 4 and 1 for two images, then 2 and 1 for two
    monkeypatch.setattr(export_loss.time, "perf_counter", lambda: next(now))

    def answering(*classes):
        rest = list(classes)

        def run(inputs):
            chosen = [rest.pop(0) for _ in inputs["images"]]
            return {"logits": torch.nn.functional.one_hot(torch.tensor(chosen), 3) * 2.0}

        return run

    images, done = {"images": torch.zeros(2)}, []
    batches = [(images, torch.tensor([0, 1])), (images, torch.tensor([2, 0]))]
    loss = measure_loss(answering(0, 1, 2, 1), answering(0, 2, 2, 1), batches, files, done.append)
    assert (loss.images, loss.top1_float, loss.top1, loss.difference) == (4, 0.75, 0.5, -0.25)
    assert (loss.only_float_right, loss.only_other_right, loss.agreement, loss.p) == (1, 0, 0.75, 1.0)
    assert (loss.bytes_float, loss.bytes, loss.speed_ratio) == (1000, 250, 3.0)  # the median of 4 and 2
    assert (loss.milliseconds_float, loss.milliseconds) == (1500, 500) and done == [2, 4]
    sure, unsure = np.exp(2) / (np.exp(2) + 2), 1 / (np.exp(2) + 2)
    assert loss.mean_probability_change == pytest.approx((sure - unsure) / 4)
    assert loss.interval.low < -0.25 < loss.interval.high and loss.interval.low + loss.interval.high < 0


def test_a_report_replaces_no_other_json_and_a_split_without_images_is_named(lower, tmp_path):
    config = tmp_path / "run" / "config.json"
    config.write_text("mine")
    done = lower("half", output=config.with_suffix(".onnx"))
    assert config.read_text() == "mine" and done.report.name == "config.onnx.json"
    with pytest.raises(DatasetError, match="has no usable query images: measure on another with --split"):
        lower("half", split="query")


def test_a_file_that_does_not_survive_is_not_kept(lower, tmp_path, monkeypatch):
    def load(file):
        raise RuntimeError("Could not find an implementation for Einsum(12) node with name 'node_einsum'")

    with monkeypatch.context() as patch:
        patch.setattr(export_measurement, "load_onnx", load)
        with pytest.raises(CheckpointError, match=r"does not survive --precision half, .* for Einsum\(12\) node"):
            lower("half")
    with monkeypatch.context() as patch:
        patch.setattr(export_measurement, "_LEAST_AGREEMENT", 1.1)
        with pytest.raises(CheckpointError, match=r"with --precision int8 only \d+% of 3 photographs still get"):
            lower("int8")
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["best.safetensors"]


def test_a_folder_in_place_of_the_report_is_said_before_the_work(run, agnet, monkeypatch):
    (run / "model-int8.onnx.json").mkdir()
    said = agnet("export", "--run", "run", "--precision", "int8", code=1).stderr
    assert said == (
        "Error: run/model-int8.onnx.json is a folder, in place of the report; name another file with --output\n"
    )
    monkeypatch.setattr(os, "access", lambda path, mode: "other.onnx.json" not in str(path))
    Path("other.onnx.json").touch()
    said = agnet("export", "--run", "run", "--precision", "int8", "--output", "other.onnx", code=1).stderr
    assert said == "Error: other.onnx.json is write-protected and would be replaced; name another file with --output\n"


@pytest.mark.parametrize("place", ["calibration", "file", "report"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=repr)
def test_an_interrupted_export_of_lower_precision_leaves_nothing(lower, tmp_path, monkeypatch, error, place):
    def fail(*arguments, **others):
        raise error

    if place == "calibration":
        begun = iter((lambda done, values: None, fail))  # the second batch of photographs is never used
        monkeypatch.setattr(export_measurement, "_BATCH", 2)
        told = {"watch": lambda what, images: lambda done, values: next(begun)(done, values)}
    else:
        function = "fsync" if place == "file" else "write_text"
        monkeypatch.setattr(*((os, function) if place == "file" else (export_measurement, function)), fail)
        told = {}
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with pytest.raises(type(error)):
        lower("int8", **told)
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["best.safetensors"]
    assert not [*(tmp_path / "temporary").iterdir()]


def test_what_a_lower_precision_cannot_do_is_said_before_the_work(run, agnet, clip_boxes, tmp_path):
    said = agnet("export", "--run", "run", "--precision", "int8", "--format", "torch", code=1).stderr
    assert said == "Error: --precision int8 is written as ONNX: leave out --format torch\n"
    said = agnet("export", "--run", "run", "--split", "test", code=2).stderr
    assert "--split changes nothing with --precision float; leave it out" in said
    with pytest.raises(ConfigurationError, match=r"measured on the classes of images, and .* has clips"):
        export_measured(run, "half", None, clip_boxes, tmp_path)
