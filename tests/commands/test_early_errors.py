"""What a user gets wrong is told before PyTorch is loaded, which takes seconds."""

import errno
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from PIL import Image

from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import CheckpointError
from agnet.data.files import atomic_file
from agnet.training.models.backbones.names import _names_in_source, check_backbone_name
from agnet.training.models.registry import ModelSettings, record_of
from agnet.training.recipes import RECIPES
from agnet.training.runs.checkpoint_header import read_header
from agnet.training.runs.checkpoints import save_checkpoint
from agnet.training.runs.folder import read_config

MODEL = ModelSettings(classes=3, regions=6, backbone="mobilenet-v3-small", model="plain")

DONE = "--boxes boxes.h5 --backbone mobilenet-v3-small --model plain"  # how the finished run was trained

# (what is asked for, what is answered), in a folder with a sound run, its boxes file and its images
ERRORS = [
    ("train --boxes nothing.h5", "there is no boxes file nothing.h5; make one with"),
    ("train --boxes text.txt", "not an HDF5 file"),
    ("train --boxes images", "not a file, but a folder or device; --boxes takes the file"),
    ("train --boxes boxes.h5 --root nowhere", "are not under nowhere"),
    ("train --boxes boxes.h5 --backbone resnet5", "unknown backbone 'resnet5'.*; did you mean resnet50"),
    ("train --boxes boxes.h5 --backbone torchvision:resnet5", "torchvision has no model 'resnet5'; did you mean"),
    ("train --boxes boxes.h5 --backbone torchvision:fcn_resnet50", "is not an image classifier"),
    ("train --boxes boxes.h5 --weights imagnet", "there is no weights file imagnet; did you mean imagenet?"),
    ("train --boxes boxes.h5 --weights images", "there is no weights file images"),
    ("train --boxes boxes.h5 --backbone nasnet-mobile", "no ImageNet weights for nasnet-mobile: no library has"),
    ("train --boxes boxes.h5 --device gpu", "device 'gpu': wanted cpu, cuda"),
    ("train --boxes boxes.h5 --device cpu --precision fp16", "fp16 on cpu"),
    ("train --boxes boxes.h5 --model plane", "plane"),
    ("train --boxes boxes.h5 --seed -1", "--seed: wanted 0"),
    ("train --boxes boxes.h5 --weights none --seeds 0 4294967296 --run other", "'seed': wanted 0"),
    ("train --boxes boxes.h5 --dropout 2", "--dropout: wanted"),
    ("train --boxes boxes.h5 --epochs 0", "--epochs: wanted"),
    ("train --boxes boxes.h5 --epoch 3", "--epochs"),
    ("train --boxes boxes.h5 --run run", "run already holds a run; continue it with --resume"),
    ("train --boxes boxes.h5 --run run/best.safetensors", "run already holds a run; continue it with --resume"),
    ("train --boxes boxes.h5 --run run --dry-run", "run already holds a run"),
    ("train --boxes boxes.h5 --run run --seeds 0 1", "run is a single run"),
    ("train --boxes boxes.h5 --run text.txt", "text.txt is not a run"),
    ("train --boxes boxes.h5 --run text.txt/run", "cannot write to text.txt/run"),
    ("train --boxes boxes.h5 --run new --resume", "new is not a run folder"),
    ("train --boxes boxes.h5 --run new --resume --seeds 0 1", "new holds no run with these seeds"),
    ("train --boxes boxes.h5 --run run --resume --epochs 7", "was started with model|was started with epochs"),
    (f"train --run done --resume --epochs 30 {DONE}", "deleted then; .*, --weights done --epochs 30 --run ANOTHER"),
    (f"train --run done --resume --epochs 10 {DONE}", "done is already after epoch 20 of 20; use --epochs 20"),
    ("train --boxes boxes.h5 --model plain --se none", "--se is an option of --model agnet"),
    ("train --boxes boxes.h5 --json", "--json needs --dry-run"),
    ("evaluate --run nothing", "nothing is not a run folder"),
    ("evaluate --run images", "images is not a run folder"),
    ("evaluate --run text.txt", "text.txt is not a run: name its folder"),
    ("evaluate --run run --boxes nothing.h5", "there is no boxes file nothing.h5"),
    ("evaluate --run run --root nowhere", "are not under nowhere"),
    ("evaluate --run run/best.safetensors --root nowhere", "are not under nowhere"),
    ("evaluate --run run --split tset", "tset"),
    ("evaluate --run run --split train", "run was trained on the train split"),
    ("evaluate --run run --boxes other.h5", "has others, such as 'ant'"),
    ("evaluate --run run --json --csv", "exclude each other"),
    ("evaluate --run run --device gpu", "device 'gpu': wanted"),
    ("evaluate --run empty", "empty is not a run folder"),
    ("evaluate --run half", "there is no half/best.safetensors"),
    ("predict --run nothing images", "there is no nothing/best.safetensors"),
    ("predict --run rum images", r"there is no rum/best.safetensors; did you mean run\?"),
    ("predict --run runs images", r"there is no runs/best.safetensors; did you mean 'runs/a run'\?"),
    ("evaluate --run runs", r"runs is not a run folder \(no config.json in it\); did you mean 'runs/a run'\?"),
    ("predict --run empty images", "there is no empty/best.safetensors"),
    ("predict --run text.txt images", "text.txt is not a run"),
    ("predict --run broken images", "is not a safetensors file, or damaged"),
    ("predict --run boxes.h5 images", "boxes.h5 is not a run"),
    ("predict --run run nothing.jpg", "nothing.jpg: cannot be read: No such file"),
    ("predict --run run nothing.mp4", "nothing.mp4"),
    ("predict --run run text.txt", "text.txt: .*not in a supported image format"),
    ("predict --run run empty", "no images or videos in empty"),
    ("predict --run run *.gif --json", "no images or videos match"),
    ("predict --run run images --output no/where.csv", "there is no folder no"),
    ("predict --run run images --save text.txt", "text.txt"),
    ("predict --run run images --save text.txt/pictures", "text.txt is a file"),
    ("predict --run run images --json --format csv", "two different formats"),
    ("predict --run run images --device gpu", "device 'gpu': wanted"),
    ("compare run nothing", "nothing is not a run folder"),
    ("compare run", "name at least two runs"),
    ("compare run run", "has no predictions for test; make them with: agnet evaluate --run run"),
    ("compare run run --save out.doc", "its name must end in"),
    ("export --run nothing", "there is no nothing/best.safetensors"),
    ("export --run empty --format torch", "there is no empty/best.safetensors"),
    ("export --run run --format onyx", "onyx"),
    ("export --run run --format torch --output images", "images is a folder"),
    ("export --run run --format torch --output no/model.pt2", "there is no folder no"),
    ("export --run run --format torch --output model.onnx", "must end in .pt2"),
    ("complexity --backbone resnet5", "unknown backbone 'resnet5'"),
    ("complexity --device gpu", "device 'gpu': wanted"),
    ("inspect --boxes nothing.h5", "there is no boxes file nothing.h5"),
    ("inspect --boxes boxes.h5 --image none.png", "has no image none.png"),
    ("datasets food10", "food10"),
    ("datasets folder --verify --root nowhere", "nowhere"),
    ("propose --dataset folder --root nowhere", "nowhere"),
    ("propose red.png", "red.png is not text .*; name a folder with a folder of photographs for each class"),
]

PROGRAM = """
import json, sys
from click.testing import CliRunner
from agnet.cli import main

for words in json.load(sys.stdin):
    result = CliRunner().invoke(main, words)
    failed = result.exception and not isinstance(result.exception, SystemExit)
    said = f"{result.stderr}{result.exception!r}" if failed else result.stderr + result.stdout
    heavy = sorted({"torch", "torchvision", "timm", "matplotlib", "sklearn"} & set(sys.modules))
    print(json.dumps([result.exit_code, said, heavy]))
"""


@pytest.fixture(scope="module")
def answers(place, untrained):
    """What each of `ERRORS` ends with, asked one after the other in one Python that has loaded nothing before."""
    boxes = read_boxes(place / "boxes.h5")
    (place / "run").mkdir()
    proposals = boxes.settings["proposals"]
    checkpoint = replace(untrained(MODEL), classes=boxes.classes, proposals=proposals, fingerprint=boxes.fingerprint)
    save_checkpoint(place / "run" / "best.safetensors", checkpoint)
    config = {
        "model": record_of(MODEL),
        "recipe": asdict(RECIPES["modern"]),
        "run": {"weights": "imagenet", "seed": 0, "compile": False},
        "boxes": {"file_relative_to_run": "../boxes.h5", "fingerprint": boxes.fingerprint},
        "versions": {},
    }
    (place / "run" / "config.json").write_text(json.dumps(config))
    (place / "run" / "last.safetensors").write_bytes(b"")
    for name in ("empty", "half", "broken", "done", "runs/a run"):
        (place / name).mkdir(parents=True)
    for name in ("done", "runs/a run"):
        save_checkpoint(place / name / "best.safetensors", checkpoint)
    (place / "done" / "config.json").write_text(json.dumps(config))
    epochs = range(1, RECIPES["modern"].epochs + 1)
    (place / "done" / "log.jsonl").write_text("".join(f'{{"epoch": {n}, "val_loss": 1.0}}\n' for n in epochs))
    Image.new("RGB", (40, 40), "red").save(place / "red.png")
    (place / "half" / "config.json").write_text(json.dumps(config))
    (place / "broken" / "best.safetensors").write_bytes(b"no such thing")
    (place / "text.txt").write_text("text")
    for folder in ("train/yak", "train/zebra", "test/yak", "test/zebra"):
        (place / "more" / folder).mkdir(parents=True)
        Image.new("RGB", (40, 40), "red").save(place / "more" / folder / "0.png")
    words = "propose --dataset folder --root more --method grid --primary 3 --jobs 1 --boxes other.h5 --val-fraction 0"
    asked = [words.split(), *(asked.split() for asked, _ in ERRORS)]
    command, root = [sys.executable, "-c", PROGRAM], os.environ | {"AGNET_ROOT": "images"}
    ran = subprocess.run(
        command, input=json.dumps(asked), env=root, cwd=place, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    (code, said, _), *found = map(json.loads, ran.stdout.splitlines())
    assert code == 0, said
    return {asked: answer for (asked, _), answer in zip(ERRORS, found, strict=True)}


@pytest.mark.parametrize(("asked", "complaint"), ERRORS, ids=[asked for asked, _ in ERRORS])
def test_an_error_is_told_before_anything_heavy_is_loaded(answers, asked, complaint):
    code, said, heavy = answers[asked]
    assert code in (1, 2) and re.search(complaint, said), said
    assert "Traceback" not in said and not {"torch", "torchvision", "timm"} & set(heavy)


def test_every_name_of_the_libraries_passes():
    timm = pytest.importorskip("timm")
    import torchvision.models as tv

    for name in [*tv.list_models(module=tv)]:
        check_backbone_name(f"torchvision:{name}")
    registered = [*timm.list_models(), *timm.list_pretrained()[::50], "tv_resnext50_32x4d", "vit_base_resnet50d_224"]
    for name in registered:
        check_backbone_name(f"timm:{name}")
    assert len(_names_in_source("timm").names) > 900


@pytest.mark.parametrize(
    ("name", "meant"),
    [("resnt50", "resnet50"), ("ResNet50", "resnet50"), ("vgg-16", "vgg16"), ("timm:resnet_18", "resnet18")],
)
def test_a_name_that_is_spelt_wrong_is_answered_with_those_that_may_be_meant(name, meant):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(ValueError, match=rf"; did you mean .*{meant}.*\?$"):
        check_backbone_name(name)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_what_may_not_be_read_is_not_said_to_be_absent_or_damaged(answers, place, monkeypatch, number):
    def refused(path, *args, **options):
        raise OSError(number, os.strerror(number), str(path))

    run = place / "done"
    monkeypatch.setattr(Path, "open", refused)
    monkeypatch.setattr(Path, "read_text", refused)
    for read, name in ((read_header, "best.safetensors"), (read_config, "config.json")):
        with pytest.raises(CheckpointError, match=f"{name} cannot be read: {os.strerror(number)}"):
            read(run / name if read is read_header else run)


@pytest.mark.parametrize("named", [None, "unfinished"])
def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path, named):
    with pytest.raises(OSError) as caught, atomic_file(tmp_path / "sheet.png") as unfinished:
        raise OSError(errno.ENOSPC, "No space left on device", *([str(unfinished)] if named else []))
    assert caught.value.filename == str(tmp_path / "sheet.png")
    with pytest.raises(OSError) as caught, atomic_file(tmp_path / "sheet.png"):
        raise OSError(errno.EIO, "Input/output error")  # of whatever was read meanwhile
    assert caught.value.filename is None
