import dataclasses
import json

import pytest

from agnet.data.errors import ConfigurationError
from agnet.data.fields import size_of_text, size_text
from agnet.training.recipes import RECIPES


def test_the_papers_recipe_is_to_the_letter():
    paper = RECIPES["paper"]
    assert (paper.optimizer, paper.lr, paper.momentum, paper.epochs, paper.batch_size) == ("sgd", 1e-5, 0.99, 50, 8)
    assert (paper.weight_decay, paper.label_smoothing, paper.clip_norm, paper.augment) == (0, 0, 0, True)
    assert (paper.backbone_lr, paper.classifier_lr, paper.layer_decay, paper.frozen_stages) == (1, 1, 1, 0)
    assert (paper.mixup, paper.dropout, paper.ema_decay, paper.accumulate, paper.patience) == (0, 0, 0, 1, 0)
    assert (paper.warmup_epochs, paper.image_size, paper.class_weights, paper.nesterov) == (0, 0, "none", False)
    factors = [paper.lr_factor(epoch + share) for epoch in range(50) for share in (0.01, 0.99)]
    assert factors[:50] == [1] * 50 and factors[50:] == pytest.approx([0.1] * 50)


def test_the_modern_schedule_warms_up_and_ends_at_nothing():
    modern = RECIPES["modern"]
    assert modern.lr_factor(0) == 0 and modern.lr_factor(0.5) == 0.5
    assert modern.lr_factor(modern.warmup_epochs) == 1
    middle = (modern.epochs + modern.warmup_epochs) / 2
    assert modern.lr_factor(middle) == pytest.approx(0.5)
    assert modern.lr_factor(modern.epochs) == pytest.approx(0)


def test_a_schedule_has_its_own_step_and_start():
    recipe = RECIPES["paper"].override(step_epochs=2, step_factor=0.5, warmup_epochs=1.0, warmup_start=0.2)
    assert [recipe.lr_factor(epoch) for epoch in (0, 0.5, 1, 2, 5.9)] == pytest.approx([0.2, 0.6, 1, 0.5, 0.25])


def test_one_epoch_is_a_schedule_too():
    short = RECIPES["modern"].override(epochs=1)
    assert 0 < short.lr_factor(0.5) <= 1


def test_phases_have_their_own_optimiser_rates_and_schedule():
    recipe = RECIPES["bilinear"]
    head, rest = recipe.phases
    assert [recipe.phase(epoch).start for epoch in (0, 9, 10, 69)] == [0, 0, 10, 10]
    assert (head.recipe.optimizer, head.recipe.lr, head.recipe.backbone_lr) == ("adamw", 1e-3, 0)
    assert (rest.recipe.optimizer, rest.recipe.lr, rest.recipe.lr * rest.recipe.backbone_lr) == ("sgd", 1e-2, 1e-3)
    assert (head.recipe.epochs, rest.recipe.epochs) == (10, 60)
    moments = [head.lr_factor(0), head.lr_factor(5), rest.lr_factor(10), rest.lr_factor(40), rest.lr_factor(70)]
    assert moments == pytest.approx([1, 0.5, 1, 0.5, 0])


def test_a_recipe_without_phases_is_its_own_and_only_one():
    assert RECIPES["modern"].phases == ((RECIPES["modern"], 0),)


def test_each_phase_has_the_settings_of_its_optimiser_alone():
    momentum = RECIPES["paper"].override(nesterov=True, beta2=0.5, head_epochs=3)
    assert [one.recipe.nesterov for one in momentum.phases] == [False, True]
    assert momentum.phases[0].recipe.beta2 == 0.999  # with SGD, --beta2 is refused
    assert RECIPES["modern"].override(beta2=0.5, head_epochs=3).phases[0].recipe.beta2 == 0.5


def test_options_replace_and_none_keeps():
    changed = RECIPES["modern"].override(lr=0.5, epochs=None)
    assert changed.lr == 0.5 and changed.epochs == RECIPES["modern"].epochs


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0.0},
        {"lr": float("nan")},
        {"epochs": 0},
        {"batch_size": 0},
        {"momentum": 1.0},
        {"weight_decay": -1.0},
        {"backbone_lr": -0.1},
        {"label_smoothing": 1.0},
        {"clip_norm": -1.0},
        {"warmup_epochs": -1.0},
        {"optimizer": "adam"},
        {"schedule": "linear"},
        {"step_epochs": 0},
        {"lr": float("inf")},
        {"classifier_lr": 0.0},
        {"layer_decay": 0.0},
        {"layer_decay": 1.1},
        {"frozen_stages": -1},
        {"accumulate": 0},
        {"mixup": -0.1},
        {"ema_decay": 1.0},
        {"dropout": 1.0},
        {"patience": -1},
        {"select_by": "train_loss"},
        {"class_weights": "rare"},
        {"image_size": 31},
        {"beta2": 1.0},
        {"step_factor": 0.0},
        {"warmup_start": 1.0},
        {"ema_warmup": 0},
        {"rotation": 181.0},
        {"shift": -0.1},
        {"scale": 1.0},
        {"image_size": 5000},
        {"image_size": (256, 16)},
        {"image_size": (256, 128, 3)},
        {"image_size": "256x128"},
        {"nesterov": True},
        {"head_epochs": 20},
        {"head_epochs": -1},
        {"head_lr": 0.0},
        {"head_optimizer": "adam"},
    ],
)
def test_a_bad_value_is_named(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        RECIPES["modern"].override(**options)


def test_an_unknown_setting_is_named():
    with pytest.raises(ConfigurationError, match="learning_rate"):
        RECIPES["modern"].override(learning_rate=1)


def test_what_was_changed_is_told():
    assert RECIPES["paper"].override(lr=0.5, mixup=0.2).differences(RECIPES["paper"]) == {"lr": 0.5, "mixup": 0.2}
    assert RECIPES["paper"].differences(RECIPES["paper"]) == {}


@pytest.mark.parametrize(
    ("text", "size", "size_hw"), [("0", 0, None), ("224", 224, (224, 224)), ("256x128", (256, 128), (256, 128))]
)
def test_an_image_size_is_a_side_or_a_height_and_a_width_also_when_it_comes_from_json(text, size, size_hw):
    found = RECIPES["modern"].override(image_size=size_of_text(text))
    assert found.image_size == size and found.size_hw == size_hw and size_text(found.image_size) == text
    again = json.loads(json.dumps(dataclasses.asdict(found)))["image_size"]
    assert RECIPES["modern"].override(image_size=again) == found


def test_a_square_is_its_side_and_other_text_is_no_size():
    assert RECIPES["modern"].override(image_size=[320, 320]) == RECIPES["modern"].override(image_size=320)
    assert size_of_text("96X96") == 96
    for text in ("256x", "1x2x3", "small", ""):
        with pytest.raises(ValueError):
            size_of_text(text)
