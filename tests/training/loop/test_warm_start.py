"""A run that begins with another run's weights: what it takes, what it says, and what it may then be measured on."""

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import CheckpointError, MismatchError
from agnet.data.sets.catalogue import open_dataset
from agnet.proposals.run import propose_dataset
from agnet.proposals.settings import ProposalSettings
from agnet.training.loop import preflight
from agnet.training.loop.fit import fit
from agnet.training.loop.job import Console, Job
from agnet.training.loop.warm_start import Parent, find_parent
from agnet.training.machine.devices import Device
from agnet.training.measure.evaluation import evaluate_run
from agnet.training.models.backbones.backbone import Preprocessing
from agnet.training.models.build import build_model
from agnet.training.models.registry import ModelSettings
from agnet.training.recipes import RECIPES, RunSettings
from agnet.training.runs.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from agnet.training.runs.folder import read_config, weights_name
from agnet.training.runs.seen import read_seen

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

CPU = Device(torch.device("cpu"))
NET = ModelSettings(classes=3, regions=6, backbone="mobilenet-v3-small")
PLAIN = ModelSettings(classes=3, model="plain", backbone="mobilenet-v3-small")
BILINEAR = ModelSettings(classes=3, model="bcnn", backbone="a", second_backbone="b")
SEEN = Preprocessing(224, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
CLASSES = ("ant", "bee", "côté")


@pytest.fixture
def parent(tmp_path):
    """``(settings, classes) -> folder`` of a run with random weights and batch norms of its own."""

    def make(settings=NET, classes=CLASSES, name="parent"):
        torch.manual_seed(7)
        model = build_model(replace(settings, classes=len(classes))).eval()
        model.backbone.preprocessing = SEEN
        model.size_hw = (64, 64)
        with torch.no_grad():
            for value in [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]:
                value.uniform_(0.1, 1)
        run = tmp_path / name
        run.mkdir()
        save_checkpoint(
            run / "best.safetensors",
            Checkpoint(replace(settings, classes=len(classes)), classes, {}, "f" * 32, 4, None, model=model),
        )
        return run

    return make


def begun(run, settings=NET, classes=CLASSES):
    """A new network, what was said of handing over, and which of its tensors are the run's."""
    torch.manual_seed(0)
    model = build_model(replace(settings, classes=len(classes)))
    found = find_parent(str(run), settings)
    said = found.hand_over(model, replace(settings, classes=len(classes)), classes)
    theirs = load_checkpoint(run / "best.safetensors").model.state_dict()
    mine = model.state_dict()
    same = {name for name in mine if name in theirs and torch.equal(mine[name], theirs[name])}
    taken, anew = ({name.partition(".")[0] for name in names} for names in (same, mine.keys() - same))
    return model, said, taken, anew


def test_of_the_same_network_everything_is_taken(parent):
    run = parent()
    model, said, _, anew = begun(run)
    assert not anew and model.backbone.preprocessing == SEEN and model.size_hw == (64, 64)
    assert said == (
        "weights of parent, epoch 4: backbone, self-attention, SE-residuals, inter-attention, fusion, classifier"
    )
    by_file = find_parent(str(run / "best.safetensors"), NET)
    assert by_file.hand_over(build_model(NET), NET, CLASSES) == said and by_file.name == "parent"


@pytest.mark.parametrize(
    ("before", "now", "anew", "told"),
    [
        (NET, replace(NET, regions=10), {"se_residual"}, "SE-residuals (regions 6 there)"),
        (NET, replace(NET, use_regions=False), {"se_residual"}, "(use regions True there)"),
        (NET, replace(NET, units=8), {"inter_attention"}, "from scratch: inter-attention (units 32 there)"),
        (NET, replace(NET, se="shared"), {"se_residual"}, "SE-residuals (se slot there)"),
        (NET, replace(NET, spectral_norm=True), {"self_attention"}, "self-attention (spectral norm False there)"),
        (NET, replace(NET, shortcut=True), {"shortcut"}, "shortcut (parent has none)"),
        (NET, replace(NET, stages=2), {"se_residual", "inter_attention", "fusion", "classifier"}, "stages 1 there"),
        (NET, PLAIN, set(), "epoch 4: backbone, classifier"),
        (PLAIN, NET, {"self_attention", "se_residual", "inter_attention", "fusion"}, "(parent has none)"),
    ],
)
def test_a_part_of_other_shapes_begins_anew_as_a_whole_and_the_reason_is_said(parent, before, now, anew, told):
    _, said, taken, found = begun(parent(before), now)
    assert found == anew and "backbone" in taken
    assert told in said and "\n" not in said


LOW_RANK = replace(BILINEAR, bilinear="lowrank", bilinear_channels=64, rank=2)


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (replace(LOW_RANK, classes=5, rank=3), "rank 2 there"),
        (replace(LOW_RANK, bilinear_channels=32, grid=7), "grid 0 there, bilinear channels 64 there"),
        (ModelSettings(classes=3, model="srbn", rank=2), "model bcnn there"),
        (LOW_RANK, "other shapes there"),
    ],
)
def test_the_reason_for_other_shapes_names_the_settings_of_any_family(now, told):
    parent = Parent("parent", SimpleNamespace(settings=LOW_RANK), "", [])
    assert parent._reason(now) == told


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (BILINEAR, replace(BILINEAR, backbone="vgg16"), "use --backbone a --second-backbone b or other weights"),
        (BILINEAR, replace(BILINEAR, backbone="b", second_backbone="a"), "use --backbone a --second-backbone b or"),
        (BILINEAR, PLAIN, "was trained with backbone a + b, but this run has mobilenet-v3-small: use other weights"),
        (PLAIN, BILINEAR, "use --backbone mobilenet-v3-small --second-backbone mobilenet-v3-small or other weights"),
    ],
)
def test_other_backbones_are_refused_with_options_that_can_be_typed(tmp_path, monkeypatch, before, now, told):
    (tmp_path / "best.safetensors").touch()
    monkeypatch.setattr(preflight, "read_header", lambda path: SimpleNamespace(settings=before))
    with pytest.raises(CheckpointError, match=re.escape(told)):
        preflight.parents_checkpoint(str(tmp_path), now)
    assert preflight.parents_checkpoint(str(tmp_path), before) == tmp_path / "best.safetensors"


@pytest.mark.parametrize(("temporal", "anew"), [("mean", set()), ("attention", {"over_time"})])
def test_a_network_of_clips_takes_everything_that_one_of_images_has(parent, temporal, anew):
    _, said, _, found = begun(parent(), replace(NET, temporal=temporal))
    assert found == anew
    assert ("from scratch: attention over time (parent has none)" in said) == bool(anew)


def test_rows_of_the_classifier_go_by_the_names_of_classes(parent):
    run = parent()
    theirs = load_checkpoint(run / "best.safetensors").model.classifier
    model, said, _, _ = begun(run, classes=("wasp", "côté", "ant", "zebra"))
    for row, origin in ((1, 2), (2, 0)):
        assert torch.equal(model.classifier.weight[row], theirs.weight[origin])
        assert model.classifier.bias[row] == theirs.bias[origin]
    torch.manual_seed(0)
    new = build_model(replace(NET, classes=4)).classifier
    assert torch.equal(model.classifier.weight[[0, 3]], new.weight[[0, 3]])
    assert said.endswith("from scratch: classifier (2 of 4 classes, unknown to parent: wasp, zebra)")
    _, said, _, anew = begun(run, classes=("x", "y", "z"))
    assert anew == {"classifier"} and "classifier (no class of the same name there)" in said


def test_another_backbone_several_seeds_and_no_run_are_refused_by_name(parent, tmp_path):
    run = parent()
    with pytest.raises(CheckpointError, match=r"trained with backbone mobilenet-v3-small, but this run has resnet50"):
        find_parent(str(run), replace(NET, backbone="resnet50"))
    (tmp_path / "several" / "seed-3").mkdir(parents=True)
    (tmp_path / "several" / "seed-3" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"several seeds; name one of them, such as .*seed-3$"):
        find_parent(str(tmp_path / "several"), NET)
    with pytest.raises(CheckpointError, match="that folder holds no run"):
        find_parent(str(tmp_path), NET)
    for source in ("none", "imagenet", str(tmp_path / "nowhere.pth")):
        assert find_parent(source, NET) is None


def test_a_weights_name_is_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source, name in (
        *(
            ("imagenet", "imagenet"),
            ("/home/me/net.pth", "net.pth"),
            ("runs/a/", "a"),
            ("runs/a/best.safetensors", "a"),
        ),
        *((".", tmp_path.name), ("best.safetensors", tmp_path.name), ("runs/..", tmp_path.name)),
    ):
        assert weights_name(source) == name, source


RECIPE = RECIPES["modern"].override(epochs=1, batch_size=3, image_size=32)
RUN = RunSettings(weights="none", workers=0, device="cpu")


def measured(run, boxes, root, **options):
    return evaluate_run(run, boxes, root, "test", 4, CPU, 0, watch=lambda what, images: lambda *_: None, **options)


def test_what_the_parent_has_seen_the_child_has_seen(boxes_file, folder, tmp_path):
    """The parent of another split of the same photographs; the grandchild is told by its parent."""
    boxes = read_boxes(boxes_file)
    fit(Job(tmp_path / "old", boxes, folder, PLAIN, RECIPE, RUN))
    # A photograph that the parent was trained on is now in test, under another name.
    shutil.copytree(folder, tmp_path / "moved")
    moved = sorted((tmp_path / "moved" / "train" / "ant").iterdir())[0]
    trained = {c.decode() for c in boxes.contents[boxes.splits == "train"].tolist()}
    for place in sorted((tmp_path / "moved" / "train" / "ant").iterdir()):
        shutil.copy(place, tmp_path / "moved" / "val" / "ant" / f"again-{place.name}")
        place.unlink()
    for number in range(3):
        Image.new("RGB", (90, 80), (50 * number, 30, 30)).save(moved.with_name(f"new-{number}.png"))
    propose_dataset(
        open_dataset("folder", tmp_path / "moved"), ProposalSettings(primary=3), tmp_path / "moved.h5", jobs=1
    )
    other = read_boxes(tmp_path / "moved.h5")
    both = len(trained & {c.decode() for c in other.contents[other.splits == "test"].tolist()})
    assert both >= 3
    said = []
    weights = replace(RUN, weights=str(tmp_path / "old"))
    fit(Job(tmp_path / "child", other, tmp_path / "moved", PLAIN, RECIPE, weights), Console(say=said.append))
    assert any("weights of old, epoch 1: backbone, classifier" in line for line in said)
    assert any("of the test images were seen by old" in line for line in said)
    assert read_seen(tmp_path / "child") >= read_seen(tmp_path / "old")
    config = (tmp_path / "child" / "config.json").read_text()
    assert json.loads(config)["started_from"]["run"] == "old" and str(tmp_path) not in config
    assert json.loads(config)["run"]["weights"] == "old"
    for run, start in (("child", None), ("grandchild", "child")):
        if start:
            settings = replace(RUN, weights=str(tmp_path / start / "best.safetensors"))
            fit(Job(tmp_path / run, other, tmp_path / "moved", PLAIN, RECIPE, settings))
        with pytest.raises(MismatchError, match="started from the weights of a run that was trained on or selected by"):
            measured(tmp_path / run, other, tmp_path / "moved")
        forced = measured(tmp_path / run, other, tmp_path / "moved", force=True)
        assert "were seen by the run that it started from" in forced.warning
    # On the parent's own split nothing new is seen.
    fit(Job(tmp_path / "again", boxes, folder, PLAIN, RECIPE, weights))
    assert measured(tmp_path / "again", boxes, folder).warning == ""


def test_a_parent_that_does_not_say_what_it_saw_makes_test_images_doubtful(parent, boxes_file, folder, tmp_path):
    boxes, run = read_boxes(boxes_file), tmp_path / "child"
    settings = replace(RUN, weights=str(parent(PLAIN)))
    fit(Job(run, boxes, folder, PLAIN, RECIPE.override(epochs=2), settings, stop_after=1))
    shutil.rmtree(tmp_path / "parent")  # not needed any more
    (run / "seen.txt").unlink()  # as the child's own word is
    fit(Job(run, boxes, folder, PLAIN, RECIPE.override(epochs=2), settings, resume=True))
    with pytest.raises(MismatchError, match=r"no record of the images it has seen.*--force"):
        measured(run, boxes, folder)
    assert "it is unknown whether" in measured(run, boxes, folder, force=True).warning


def test_it_begins_where_the_parent_ended_and_at_its_image_size(agnet, boxes_file, folder, tmp_path):
    options = ["train", "--boxes", boxes_file, "--root", folder, "--model", "plain", "--workers", 0, "--device", "cpu"]
    options += ["--backbone", "mobilenet-v3-small", "--epochs", 1, "--batch-size", 3]
    agnet(*options, "--weights", "none", "--image-size", 64, "--run", "old")
    told = agnet(*options, "--weights", "old", "--lr", 1e-30, "--frozen-norms", "--run", "new")
    assert told.stderr.count("weights of old, epoch 1") == 1
    old, new = (load_checkpoint(tmp_path / run / "best.safetensors") for run in ("old", "new"))
    assert new.size_hw == (64, 64)
    for name, value in old.model.state_dict().items():
        torch.testing.assert_close(new.model.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    assert read_config(tmp_path / "new")["started_from"]["checkpoint_blake2b"]
    refused = agnet(*options, "--backbone", "vgg16", "--weights", "old", "--run", "other", code=1)
    assert refused.stderr.strip().splitlines()[-1].startswith("Error: old was trained with backbone mobilenet-v3-small")
    agnet(*options, "--weights", "old", "--run", "tried", "--dry-run")
    assert not (tmp_path / "tried").exists()
