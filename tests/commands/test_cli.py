"""The commands as a user meets them."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from agnet.cli import main
from agnet.commands.evaluate import evaluate
from agnet.commands.train import train
from agnet.data.boxes.reader import read_boxes
from training_crash import OPTIONS

pytestmark = pytest.mark.usefixtures("small_mobilenet")

TRAIN = ["--backbone", "mobilenet-v3-small", "--weights", "none", "--workers", "0", "--device", "cpu"]


def last_line(result):
    return result.stderr.strip().splitlines()[-1]


def test_from_a_folder_of_photographs_to_a_prediction(agnet, folder, tmp_path):
    proposed = agnet("propose", "--dataset", "folder", "--root", folder, "--jobs", 1)
    assert proposed.stdout == "boxes.h5\n" and "12 photographs are in boxes.h5 as previews" in proposed.stderr
    trained = agnet("train", "--boxes", "boxes.h5", "--run", "run", "--epochs", 2, "--image-size", 96, *TRAIN)
    assert trained.stdout == "run/best.safetensors\n"
    assert "recipe modern with epochs 2" in trained.stderr and "val_top1" in trained.stderr

    measured = json.loads(agnet("evaluate", "--run", "run", "--workers", 0, "--json").stdout)
    assert measured["images"] == 6 and 0 <= measured["top1"] <= 1
    table = agnet("evaluate", "--run", "run", "--workers", 0).stdout
    assert re.search(rf"top-1 +{100 * measured['top1']:.2f}%", table) and "côté" in table
    assert json.loads((tmp_path / "run" / "metrics-test.json").read_text())["confusion"] == measured["confusion"]

    photographs = sorted((folder / "val").rglob("*.png"))
    lines = agnet("predict", "--run", "run", *photographs, "--json", "--save", "pictures").stdout.splitlines()
    answers = [json.loads(line) for line in lines]
    assert [answer["image"] for answer in answers] == [str(path) for path in photographs]
    # Predicting a photograph agrees with evaluating it: same pixels, same regions, same network.
    best = [max(answer["probabilities"], key=answer["probabilities"].get) for answer in answers]
    right = sum(name == path.parent.name for name, path in zip(best, photographs, strict=True))
    assert right / 6 == pytest.approx(measured["top1"])
    for answer in answers:
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert len(pictures) == 6
    with Image.open(pictures[0]) as picture:
        assert picture.width > 600 and np.asarray(picture).std() > 20


def test_predict_agrees_with_evaluate_to_the_digit(agnet, boxes_file, folder):
    import torch

    from agnet.training.loop.engine import evaluate
    from agnet.training.machine.devices import Device
    from agnet.training.runs.checkpoints import load_checkpoint
    from agnet.training.samples.loader import Loader, RegionDataset

    agnet("train", "--root", folder, "--run", "run", "--epochs", 1, "--image-size", 96, *TRAIN)
    checkpoint, boxes = load_checkpoint(Path("run/best.safetensors")), read_boxes(boxes_file)
    loader = Loader(RegionDataset(boxes, folder, (96, 96)), boxes.rows("test"), 1, 0)
    device = Device(torch.device("cpu"))
    scores = evaluate(checkpoint.model, loader.epoch(0), device=device)
    expected = torch.from_numpy(scores.logits).softmax(dim=1).tolist()
    names = [boxes.names[boxes.usable[row]].decode() for row in scores.rows]
    lines = agnet("predict", "--run", "run", *(folder / name for name in names), "--json").stdout.splitlines()
    for line, wanted in zip(lines, expected, strict=True):
        got = json.loads(line)["probabilities"]
        assert [got[name] for name in boxes.classes] == pytest.approx(wanted, abs=1e-4)


def test_a_plain_model_goes_the_same_way(agnet, folder):
    agnet("propose", "--dataset", "folder", "--root", folder, "--jobs", 1, "--method", "grid")
    agnet("train", "--model", "plain", "--epochs", 1, "--image-size", 64, *TRAIN)
    agnet("evaluate", "--run", "runs/images-plain", "--workers", 0)
    agnet("predict", "--run", "runs/images-plain", folder / "val" / "ant", "--save", "pictures")


def test_weights_that_are_no_numbers_predict_nothing(agnet, boxes_file, folder):
    import torch

    from agnet.training.runs.checkpoints import load_checkpoint, save_checkpoint

    agnet("train", "--boxes", boxes_file, "--root", folder, "--run", "run", "--model", "plain", "--epochs", 1, *TRAIN)
    checkpoint = load_checkpoint(Path("run/best.safetensors"))
    torch.nn.init.constant_(checkpoint.model.classifier.bias, torch.nan)
    save_checkpoint(Path("run/best.safetensors"), checkpoint)
    failed = agnet("predict", "--run", "run", folder / "val/ant/0.png", "--save", "pictures", code=1)
    assert failed.stdout == "" and not Path("pictures").exists()
    assert failed.stderr.count("\n") == 1 and "train again" in failed.stderr


@pytest.mark.usefixtures("boxes_file")
def test_stopping_and_resuming(agnet, folder):
    common = ["train", "--root", folder, "--run", "run", "--model", "plain", "--epochs", 3, "--image-size", 64, *TRAIN]
    agnet(*common, "--stop-after", 1)
    refused = agnet(*common, code=1)
    assert last_line(refused) == (
        "Error: run already holds a run; continue it with --resume or name another folder with --run"
    )
    assert "epoch 3" in agnet(*common, "--resume").stderr


def test_the_root_may_come_from_the_environment(agnet, folder, monkeypatch):
    agnet("propose", "--dataset", "folder", "--root", folder, "--jobs", 1, "--method", "grid")
    elsewhere = folder.rename(folder.with_name("elsewhere"))
    command = ["train", "--model", "plain", "--epochs", 1, "--image-size", 64, *TRAIN]
    failed = agnet(*command, code=1)
    assert f"are not under {folder.name} (looked for {folder.name}/" in last_line(failed)  # where they were
    assert "; say where with --root" in last_line(failed)
    monkeypatch.setenv("AGNET_ROOT", str(elsewhere))
    agnet(*command)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["propose", "--dataset", "food101", "--root", "nowhere"], "food-101/meta/train.txt"),
        (["propose", "--dataset", "folder", "--root", "nowhere"], "there is no folder nowhere"),
        (["train", "--boxes", "nothing.h5"], "there is no boxes file nothing.h5"),
        (["train", "--boxes", "text.h5"], "text.h5: not an HDF5 file"),
        (["evaluate", "--run", "nothing"], "nothing is not a run folder"),
        (["predict", "--run", "nothing", "a.jpg"], "there is no nothing/best.safetensors"),
    ],
)
def test_bad_input_is_one_line_with_exit_code_1(agnet, tmp_path, arguments, complaint):
    (tmp_path / "text.h5").write_text("hello")
    result = agnet(*arguments, code=1)
    assert complaint in last_line(result)
    assert last_line(result).startswith("Error: ") and "Traceback" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["propose"],
        ["propose", "--dataset", "cifar10"],
        ["propose", "--dataset", "folder"],
        ["train", "--lr", "fast"],
        ["fly"],
    ],
)
def test_wrong_usage_has_exit_code_2(agnet, arguments):
    agnet(*arguments, code=2)


@pytest.mark.parametrize(
    ("option", "code"),
    [
        (["--lr", "0"], 2),
        (["--seed", "-1"], 2),
        (["--device", "meta"], 1),
        (["--epochs", "0"], 2),
        (["--backbone", "alexnet"], 1),
        (["--weights", "no.pth"], 1),
    ],
)
def test_a_bad_training_option_is_named(agnet, boxes_file, folder, option, code):
    result = agnet("train", "--boxes", boxes_file, "--root", folder, *TRAIN, *option, code=code)
    assert option[0].strip("-") in last_line(result) or option[1] in last_line(result)


def test_unreadable_images_are_counted_and_too_many_fail(agnet, folder):
    common = ["propose", folder, "--jobs", 1, "--method", "grid"]
    for number in range(3):
        (folder / "train" / "ant" / f"{number}.png").write_bytes(b"not an image")
    few = agnet(*common)  # however small the data set is
    said = "3 of 18 images (16.7%) could not be read; see the table failures in boxes.h5"
    assert few.stdout == "boxes.h5\n" and said in few.stderr
    assert read_boxes("boxes.h5").failures[0][0] == "train/ant/0.png"
    assert said in last_line(agnet(*common, "--max-unreadable", 0.1, code=1))
    (folder / "train" / "bee" / "0.png").write_bytes(b"not an image")
    failed = agnet(*common, "--restart", code=1)
    assert "4 of 18 images (22.2%)" in last_line(failed) and "--max-unreadable 0.223 accepts" in last_line(failed)
    assert agnet(*common, "--max-unreadable", 0.223).stdout == "boxes.h5\n"


def test_what_cannot_be_read_and_what_is_left_out_is_told_with_the_remedy(agnet, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    (folder / "train" / "ant" / "IMG_1.HEIC").write_bytes(heic)
    (folder / "train" / "ant" / "IMG_2.DNG").write_bytes(b"?")
    common = ["propose", "--dataset", "folder", "--root", folder, "--jobs", 1, "--method", "grid"]
    told = agnet(*common, "--max-unreadable", 1).stderr
    assert "left out: 1 .dng\n" in told
    assert "cannot be read: train/ant/IMG_1.HEIC: it is a HEIC photograph" in told
    assert "pip install pillow-heif" in told and "1 of 19 images" in told
    for image in folder.rglob("*.png"):
        image.unlink()
    for place in ("train/bee", "train/côté", "val/ant", "val/bee", "val/côté"):
        (folder / place / "IMG_3.HEIC").write_bytes(heic)
    assert "pip install pillow-heif" in agnet(*common, "--restart", code=1).stderr
    (folder / "val" / "bee" / "IMG_3.HEIC").rename(folder / "val" / "bee" / "IMG_3.NEF")
    assert "val/bee holds no images that can be read here, but 1 .nef;" in agnet(*common, "--restart", code=1).stderr


def test_a_broken_photograph_does_not_stop_the_others(agnet, folder, tmp_path):
    agnet("propose", "--dataset", "folder", "--root", folder, "--jobs", 1, "--method", "grid")
    agnet("train", "--run", "run", "--model", "plain", "--epochs", 1, "--image-size", 64, *TRAIN)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 nothing else")
    result = agnet("predict", "--run", "run", "broken.jpg", folder / "val/ant/0.png", "absent.jpg", code=1)
    assert len(result.stdout.splitlines()) == 1
    assert "broken.jpg" in result.stderr and "absent.jpg" in result.stderr


def test_other_settings_than_the_files_are_an_error_that_names_them(agnet, folder):
    common = ["propose", "--dataset", "folder", "--root", folder, "--jobs", 1, "--method", "grid"]
    agnet(*common)
    refused = agnet(*common, "--primary", 5, code=1)
    assert "primary = 8, this run has 5; add --restart" in last_line(refused)
    agnet(*common, "--primary", 5, "--restart")
    assert read_boxes("boxes.h5").layout.primary == 5


def test_a_hyphenless_module_call_works_and_help_names_every_command():
    called = subprocess.run([sys.executable, "-m", "agnet", "--help"], capture_output=True, text=True, check=True)
    for command in ("propose", "train", "evaluate", "predict"):
        assert f"\n  {command}" in called.stdout
        assert (
            "--help"
            in subprocess.run(
                [sys.executable, "-m", "agnet", command, "--help"], capture_output=True, text=True, check=True
            ).stdout
        )


@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
def test_an_interrupted_training_goes_on(nursery, boxes_file, folder, tmp_path, agnet):
    run, log = tmp_path / "run", tmp_path / "run" / "log.jsonl"
    options = ["--root", folder, "--epochs", 200]
    child = nursery.train(boxes_file, run, *options)
    child.wait_for(lambda: log.exists() and log.read_text().count("\n") >= 2)
    child.send(signal.SIGINT)
    assert child.wait() == 130, child.said()
    assert "--resume" in child.said().splitlines()[-1] and "Traceback" not in child.said()
    finished = log.read_text().count("\n")
    words = ["train", "--boxes", boxes_file, "--run", run, *OPTIONS, *options]
    resumed = agnet(*words, "--stop-after", finished + 1, "--resume")
    assert f"epoch {finished + 1} " in resumed.stderr


MOMENTS = {"make_context": main, "get_command": main, "signal": signal}


@pytest.mark.parametrize("name", MOMENTS)
def test_an_interrupt_is_one_at_every_moment(agnet, monkeypatch, name):
    """While the command line is read, in the command, and where its first signal handler is set: click's code is 1."""
    whole = getattr(MOMENTS[name], name)

    def interrupted(*arguments, **options):
        whole(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(MOMENTS[name], name, interrupted)
    result = agnet("datasets", "--json", code=130)
    assert result.stderr == "\nInterrupted.\n" and result.stdout == ""


def test_an_end_of_a_file_is_no_interrupt(monkeypatch):
    """Click takes them for the same; this one is a programming error, or a damaged file that no one thought of."""

    def ended(context):
        raise EOFError("No data left in file")

    monkeypatch.setattr(main, "invoke", ended)
    with pytest.raises(EOFError, match="No data left"):
        CliRunner().invoke(main, ["datasets"], catch_exceptions=False)


@pytest.fixture
def plain_run(agnet, boxes_file, folder):
    """A run of one epoch in the folder ``run``."""
    options = ["--root", folder, "--run", "run", "--model", "plain", "--epochs", 1, "--image-size", 64]
    agnet("train", "--boxes", boxes_file, *options, *TRAIN)


def test_want_of_memory_is_one_line(agnet, folder, monkeypatch):
    def wants(*_, **__):
        raise MemoryError

    monkeypatch.setattr("agnet.proposals.run.propose_dataset", wants)
    result = agnet("propose", "--dataset", "folder", "--root", folder, "--boxes", "b.h5", "--method", "grid", code=1)
    assert last_line(result).startswith("Error: not enough memory; close other programs")


@pytest.mark.usefixtures("plain_run")
def test_an_empty_folder_to_predict_is_said(agnet, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no images or videos in empty" in last_line(agnet("predict", "--run", "run", "empty", code=1))


@pytest.mark.usefixtures("plain_run")
def test_saved_pictures_are_never_written_over(agnet, folder, tmp_path):
    for _ in range(2):
        agnet("predict", "--run", "run", folder / "val/ant/0.png", folder / "val/bee/0.png", "--save", "pictures")
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {"ant-0.png", "ant-0-2.png", "bee-0.png", "bee-0-2.png"}


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_an_error_in_the_middle_of_an_epoch_ends_the_program_and_its_workers(nursery, boxes_file, folder, tmp_path):
    options = ["--root", folder, "--recipe", "paper", "--lr", "1e30", "--workers", "1", "--batch-size", "2"]
    child = nursery.train(boxes_file, tmp_path / "run", *options)
    assert child.wait() == 1 and "the loss is" in child.said(), child.said()


@pytest.mark.parametrize(("cores", "processes", "workers"), [(1, None, 2), (6, None, 6), (96, None, 16), (32, "8", 4)])
def test_images_are_read_by_as_many_processes_as_there_are_cores(monkeypatch, cores, processes, workers):
    """Two of them cannot feed a GPU."""
    monkeypatch.setattr(joblib, "cpu_count", lambda: cores)
    if processes is None:
        monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    else:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    for command in (train, evaluate):
        context = command.make_context("", ["--run", "run"])
        assert context.params["workers"] == workers


def test_training_stops_when_it_gets_no_better(agnet, boxes_file, folder, tmp_path):
    options = ["--model", "plain", "--image-size", 64, "--lr", 1e-30, "--epochs", 5, "--frozen-norms"]
    stop = ["--patience", 1, "--select-by", "val_top1"]
    ended = agnet("train", "--boxes", boxes_file, "--root", folder, "--run", "run", *TRAIN, *options, *stop)
    assert "no better val_top1 for 1 epoch: finished; epoch 1 is kept" in ended.stderr
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 2
