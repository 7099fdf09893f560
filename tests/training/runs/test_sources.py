"""``--weights`` of one backbone and of two."""

import re

import pytest

from agnet.data.errors import ConfigurationError
from agnet.training.runs.sources import needs_no_file, recorded_source, sources_by_backbone

TWO = ("vgg16-conv5", "vgg11-conv5")


@pytest.mark.parametrize(
    ("source", "backbones", "wanted"),
    [
        ("imagenet", TWO, dict.fromkeys(TWO, "imagenet")),
        ("a.pth", ("resnet50", "resnet50"), {"resnet50": "a.pth"}),
        ("resnet50=a.pth", ("resnet50",), {"resnet50": "a.pth"}),
        ("vgg11-conv5=none,vgg16-conv5=x/a.pth", TWO, {"vgg11-conv5": "none", "vgg16-conv5": "x/a.pth"}),
        ("timm:vgg11=a=b.pth", ("timm:vgg11",), {"timm:vgg11": "a=b.pth"}),
    ],
)
def test_each_backbone_has_a_source(source, backbones, wanted):
    assert sources_by_backbone(source, backbones) == wanted


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("a.pth", "holds the weights of one backbone, but this model has vgg16-conv5 and vgg11-conv5"),
        ("vgg16-conv5=a.pth", "no source for vgg11-conv5"),
        ("vgg16-conv5=a.pth,vgg11-cnv5=b.pth", "no backbone 'vgg11-cnv5', but vgg16-conv5 and vgg11-conv5; did you"),
        ("vgg16-conv5=a.pth,b.pth", "wanted BACKBONE=SOURCE"),
        ("vgg16-conv5=", "wanted BACKBONE=SOURCE"),
    ],
)
def test_what_names_no_source_for_each_is_refused(source, complaint):
    with pytest.raises(ConfigurationError, match=re.escape(complaint)):
        sources_by_backbone(source, TWO)


def test_a_file_with_a_sign_in_its_name_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1.pth").touch()
    assert sources_by_backbone("lr=1.pth", ["resnet50"]) == {"resnet50": "lr=1.pth"}


def test_private_folders_are_not_recorded():
    assert recorded_source("a=/home/me/x.pth,b=imagenet", "best") == "a=x.pth,b=imagenet"
    assert recorded_source("/home/me/run/best", "best") == "run" and recorded_source("none", "best") == "none"
    assert needs_no_file("a=none,b=imagenet") and not needs_no_file("a=none,b=x.pth") and not needs_no_file("x.pth")
