"""What prepares a run: refused at once, with a reason, is what cannot be trained."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import CheckpointError, ConfigurationError
from agnet.training.loop.fit import fit
from agnet.training.loop.job import Job
from agnet.training.loop.preflight import check_weights
from agnet.training.loop.preparation import begin_network, build_learner, build_loaders, build_network
from agnet.training.machine.devices import Device
from agnet.training.models.registry import ModelSettings
from agnet.training.recipes import RECIPES, RunSettings

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

PLAIN = ModelSettings(classes=3, regions=6, model="plain", backbone="mobilenet-v3-small")
RUN = RunSettings(weights="none", workers=0)
TINY = RECIPES["modern"].override(image_size=32)  # of which the last map is one cell


@pytest.fixture
def boxes(boxes_file):
    return read_boxes(boxes_file)


def learner(boxes, **changes):
    torch.manual_seed(0)
    recipe = TINY.override(**changes)
    return build_learner(build_network(PLAIN), recipe, RUN, Device(torch.device("cpu")), boxes, lambda text: None)


@pytest.mark.parametrize("batch_size", [1, 4, 8])
def test_a_last_batch_of_one_image_that_is_one_cell_is_refused_before_the_first_epoch(boxes, batch_size):
    assert len(boxes.rows("train")) == 9
    with pytest.raises(ConfigurationError, match=f"9 training images in batches of {batch_size} leave one .*--frozen"):
        learner(boxes, batch_size=batch_size)


def test_a_phase_with_frozen_backbones_does_not_hide_it(boxes):
    with pytest.raises(ConfigurationError, match="leave one"):
        learner(boxes, batch_size=4, head_epochs=1)
    assert learner(boxes, batch_size=4, head_epochs=1, frozen_norms=True).phase.recipe.backbone_lr == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 9},
        {"batch_size": 16},
        {"batch_size": 7},
        {"batch_size": 4, "image_size": 64},
        {"batch_size": 4, "frozen_norms": True},
        {"batch_size": 4, "backbone_lr": 0.0},
    ],
)
def test_other_batches_can_be_learnt_from_and_looking_changes_nothing(boxes, changes):
    torch.manual_seed(0)
    before = build_network(PLAIN).state_dict()
    after = learner(boxes, **changes).model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("recipe", "run", "error"),
    [
        (TINY.override(frozen_stages=99), RUN, ConfigurationError),
        (TINY.override(batch_size=4), RUN, ConfigurationError),
        (TINY, RunSettings(weights="absent.pth", workers=0), CheckpointError),
    ],
)
def test_a_run_that_cannot_be_leaves_nothing_behind(boxes, folder, tmp_path, recipe, run, error):
    with pytest.raises(error):
        fit(Job(tmp_path / "runs" / "run", boxes, folder, PLAIN, recipe, run))
    assert not (tmp_path / "runs").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(error):
        fit(Job(tmp_path / "mine", boxes, folder, PLAIN, recipe, run))
    assert list((tmp_path / "mine").iterdir()) == []  # not made by it, so not its to take away


def test_one_file_of_weights_is_not_given_to_two_backbones(boxes, tmp_path):
    file = tmp_path / "vgg.pth"
    file.touch()
    two = ModelSettings(classes=3, model="bcnn")
    refused = partial(pytest.raises, ConfigurationError, match="this model has vgg16-conv5 and vgg11-conv5: use a run")
    with refused():
        check_weights(str(file), two)
    with refused():
        begin_network(two, str(file), boxes, lambda text: None)
    check_weights("none", two)
    check_weights(str(file), replace(two, second_backbone="vgg16-conv5"))


def test_the_recipe_says_how_far_training_images_are_moved(boxes, folder):
    def pixels(part=0, **changes):
        loaders = build_loaders(boxes, folder, TINY.override(**changes), RUN, (32, 32), False, None)
        loader = loaders[part]
        loader.sampler.shuffle_seed = None
        return torch.cat([batch.images for batch in loader.epoch(0)])

    plain, moved = pixels(augment=False), pixels()
    assert torch.equal(pixels(rotation=0, shift=0, scale=0), plain) and not torch.equal(moved, plain)
    for name in ("rotation", "shift", "scale"):
        assert not torch.equal(pixels(**{name: 0}), moved), name
    assert torch.equal(pixels(part=1), pixels(part=1, augment=False))
