"""Who learns, and how fast: parts of a network and stages of its backbone."""

from collections import Counter

import pytest
import torch
from torch import nn

from agnet.data.errors import ConfigurationError
from agnet.training.loop.backbone_stages import stages_of_parameters
from agnet.training.loop.engine import train_epoch
from agnet.training.loop.learner import Learner
from agnet.training.loop.optimizer import build_optimizer
from agnet.training.machine.devices import Device
from agnet.training.models.backbones.backbone import Backbone, build_backbone
from agnet.training.models.build import assemble
from agnet.training.models.registry import ModelSettings
from agnet.training.recipes import RECIPES
from agnet.training.samples.loader import Batch

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def mobilenet():
    torch.manual_seed(0)
    return build_backbone("mobilenet-v3-small")


def network(backbone):
    return assemble(ModelSettings(classes=3, regions=6, model="plain"), backbone)


def test_stages_of_resnet_50_are_those_of_its_authors():
    stages = stages_of_parameters(build_backbone("resnet50"))
    for name, stage in stages.items():
        layer = name.split(".")[1]
        assert stage == (int(layer[-1]) if layer.startswith("layer") else 0), name
    assert set(stages.values()) == set(range(5))


def test_stages_end_where_maps_become_smaller(mobilenet):
    """By the strides of its blocks: the blocks that begin with a stride of 2 are 1, 2, 4 and 9."""
    blocks = [name.split(".")[1] for name, _ in mobilenet.named_parameters()]
    stages = list(stages_of_parameters(mobilenet).values())
    assert stages == [sum(int(block) >= first for first in (1, 2, 4, 9)) for block in blocks]


def test_blocks_of_a_transformer_of_one_size_are_its_stages():
    timm = pytest.importorskip("timm")
    assert timm.is_model("vit_tiny_patch16_224")
    stages = stages_of_parameters(build_backbone("timm:vit_tiny_patch16_224"))
    assert stages["body.net.pos_embed"] == stages["body.net.patch_embed.proj.weight"] == 0
    assert [stages[f"body.net.blocks.{number}.attn.qkv.weight"] for number in range(12)] == list(range(1, 13))


def test_watching_changes_nothing(mobilenet):
    mobilenet.train()
    before = {name: value.clone() for name, value in mobilenet.state_dict().items()}
    stages_of_parameters(mobilenet)
    assert all(module.training and not module._forward_hooks for module in mobilenet.modules())
    assert all(torch.equal(value, before[name]) for name, value in mobilenet.state_dict().items())


def test_rates_fall_by_stage_and_part(mobilenet):
    recipe = RECIPES["modern"].override(
        lr=0.1, classifier_lr=3.0, backbone_lr=0.5, layer_decay=0.5, frozen_stages=1, weight_decay=0.2
    )
    model = network(mobilenet)
    optimizer = build_optimizer(model, recipe)
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    stages = stages_of_parameters(mobilenet)
    seen = Counter()
    for name, parameter in model.named_parameters():
        if name.startswith("classifier."):
            wanted = 0.1 * 3
        else:
            stage = stages[name.removeprefix("backbone.")]
            wanted = None if stage == 0 else 0.1 * 0.5 * {1: 0.125, 2: 0.25, 3: 0.5, 4: 1.0}[stage]
        assert parameter.requires_grad == (wanted is not None) == (id(parameter) in groups), name
        if wanted is not None:
            group = groups[id(parameter)]
            assert group["highest_lr"] == pytest.approx(wanted), name
            assert group["weight_decay"] == (0.2 if parameter.ndim > 1 else 0.0), name
        seen[wanted] += 1
    assert len(seen) == 6
    model.requires_grad_(True)


def test_weights_of_many_inputs_learn_slower_by_as_many():
    """How much one step of AdamW moves an output is then the same, whatever the number of inputs."""
    torch.manual_seed(0)
    body = nn.Sequential(Stage(3, 8), Stage(8, 16))
    model = assemble(ModelSettings(classes=3, regions=6), Backbone(body, 16))
    optimizer = build_optimizer(model, RECIPES["modern"].override(lr=0.1, backbone_lr=1.0, fan_in=10))
    rates = {id(p): group["highest_lr"] for group in optimizer.param_groups for p in group["params"]}
    found = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert found["inter_attention.query.weight"] == pytest.approx(0.1 * 10 / (49 * 16))
    assert found["inter_attention.match.weight"] == pytest.approx(0.1 * 10 / 32)
    assert found["se_residual.squeeze"] == pytest.approx(0.1 * 10 / 16)
    assert found["classifier.weight"] == pytest.approx(0.1)  # has a rate of its own
    assert found["se_residual.excite"] == pytest.approx(0.1)  # of one input
    assert found["self_attention.h.weight"] == pytest.approx(0.1 * 10 / 16)
    assert found["inter_attention.query.bias"] == found["self_attention.delta"] == pytest.approx(0.1)
    assert {rate for name, rate in found.items() if name.startswith("backbone.")} == {0.1}


def test_more_stages_than_there_are_cannot_be_frozen(mobilenet):
    with pytest.raises(ConfigurationError, match="0 to 5"):
        build_optimizer(network(mobilenet), RECIPES["modern"].override(frozen_stages=6))


class Stage(nn.Sequential):
    def __init__(self, before, after):
        super().__init__(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU())


def test_frozen_norms_keep_their_statistics_and_learn_their_scales():
    torch.manual_seed(0)
    model = network(Backbone(nn.Sequential(Stage(3, 4), Stage(4, 8)), 8))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    batch = Batch.of_images(images, torch.zeros(4, 6, 4), torch.tensor([0, 1, 2, 0]), torch.arange(4))
    learner = Learner(model, RECIPES["modern"].override(frozen_norms=True), Device(torch.device("cpu")))
    train_epoch(learner, [batch] * 3, 0, steps=3)
    still = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    assert still == {name for name, _ in model.named_buffers() if name in before} and len(still) == 6


@pytest.mark.parametrize(("options", "frozen"), [({"frozen_stages": 2}, (0, 1)), ({"backbone_lr": 0.0}, (0, 1, 2))])
def test_what_is_frozen_does_not_move_nor_do_its_statistics(options, frozen):
    torch.manual_seed(0)
    model = network(Backbone(nn.Sequential(Stage(3, 4), Stage(4, 8), Stage(8, 16)), 16))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    batch = Batch.of_images(images, torch.zeros(4, 6, 4), torch.tensor([0, 1, 2, 0]), torch.arange(4))
    recipe = RECIPES["modern"].override(ema_decay=0.5, **options)
    learner = Learner(model, recipe, Device(torch.device("cpu")))
    train_epoch(learner, [batch] * 3, 0, steps=3)
    for network_ in (learner.model, learner.judged):
        state = network_.state_dict()
        still = {name for name, value in before.items() if torch.equal(state[name], value)}
        assert still == {name for name in before if name.startswith(tuple(f"backbone.body.{n}." for n in frozen))}


def test_adamw_has_the_betas_of_its_recipe():
    model = network(Backbone(nn.Sequential(Stage(3, 4), Stage(4, 8)), 8))
    optimizer = build_optimizer(model, RECIPES["modern"].override(momentum=0.8, beta2=0.95))
    assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.95)}
