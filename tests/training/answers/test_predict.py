"""`agnet predict` and what it is made of: inputs of all kinds, read ahead of the network, told in every format."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

import agnet as package
from agnet.data import fonts
from agnet.data.errors import ImageError
from agnet.data.images import read_image
from agnet.data.inputs import find_inputs
from agnet.data.palette import SERIES
from agnet.data.regions import Layout
from agnet.data.videos import Frame, Video, VideoWriter
from agnet.data.workers import ahead_by_processes, ahead_by_threads
from agnet.proposals.one_image import propose_regions
from agnet.proposals.settings import ProposalSettings
from agnet.training.answers import annotated
from agnet.training.answers.pictures import draw_frame, small_frame
from agnet.training.answers.predict import predict, predict_samples
from agnet.training.answers.predict_files import FilePredictor, Moment
from agnet.training.answers.truth import Truth
from agnet.training.answers.video_labels import Label
from agnet.training.machine.devices import Device
from agnet.training.models.build import build_model
from agnet.training.models.registry import ModelSettings
from agnet.training.runs.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from agnet.training.samples.reading import Unreadable, sample, sample_of_file

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

PROPOSALS = ProposalSettings(primary=3)
CLASSES = ("ant", "bee", "côté")
CPU = Device(torch.device("cpu"))


@pytest.fixture(scope="module")
def network(tmp_path_factory, textured):
    """A run's folder whose network was never trained, but whose answers differ from image to image."""
    torch.manual_seed(0)
    settings = ModelSettings(classes=3, regions=Layout(3).count, backbone="mobilenet-v3-small")
    model = build_model(settings).train()
    seen = np.stack([textured(number, 64, 64) for number in range(100, 116)])
    seen = torch.from_numpy(seen).permute(0, 3, 1, 2)
    with torch.no_grad():  # batch norms get to know images, without which all look the same
        for _ in range(30):
            model(seen, torch.rand(16, Layout(3).count, 4).sort(dim=-1).values)
    model.eval()
    torch.nn.init.normal_(model.classifier.weight, std=20.0)
    with torch.no_grad():
        model.classifier.bias -= model(seen, torch.rand(16, Layout(3).count, 4).sort(dim=-1).values).logits.mean(dim=0)
    model.size_hw = (64, 64)
    run = tmp_path_factory.mktemp("run")
    checkpoint = Checkpoint(settings, CLASSES, PROPOSALS.to_dict(), "", 1, None, model=model)
    save_checkpoint(run / "best.safetensors", checkpoint)
    return run


@pytest.fixture(scope="module")
def photographs(tmp_path_factory, textured):
    """Seven images of different sizes, and one that is broken in the middle."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(7):
        pixels = textured(number, 60 + 30 * number, 200 - 15 * number)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "3b.png").write_bytes(b"not an image")
    return folder


def write_video(path, greys, rate=10.0, size_wh=(64, 48), code="mp4v"):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), rate, size_wh)
    if not writer.isOpened():
        pytest.skip(f"this build of OpenCV cannot write {code}")
    for grey in greys:
        writer.write(np.full((size_wh[1], size_wh[0], 3), grey, np.uint8))
    writer.release()
    return path


# --- batches


def test_predictions_depend_on_no_batch(network, photographs):
    checkpoint = load_checkpoint(network / "best.safetensors")
    propose = partial(propose_regions, settings=PROPOSALS)
    samples = [sample_of_file(str(path), (64, 64), propose) for path in sorted(photographs.iterdir())]
    alone = list(predict_samples(checkpoint, samples, CPU, batch_size=1))
    assert [isinstance(one, Unreadable) for one in alone] == [number == 4 for number in range(8)]
    for size in (2, 3, 8, 100):
        together = list(predict_samples(checkpoint, iter(samples), CPU, batch_size=size))
        assert [one.name for one in together] == [one.name for one in samples]
        for one, other in zip(alone, together, strict=True):
            if isinstance(one, Unreadable):
                assert one is other
                continue
            assert one.classes == other.classes
            np.testing.assert_allclose(other.distribution, one.distribution, atol=1e-5)
            np.testing.assert_allclose(other.region_weights, one.region_weights, atol=1e-5)
    answers = np.stack([one.distribution for one in alone if not isinstance(one, Unreadable)])
    assert np.ptp(answers, axis=0).max() > 2e-3  # or the test could not tell one image from another


@pytest.mark.parametrize("evidence", [False, True])
def test_a_batch_that_memory_does_not_suffice_for_goes_through_in_pieces(network, photographs, evidence):
    checkpoint, told = load_checkpoint(network / "best.safetensors"), []
    samples = [
        sample_of_file(str(path), (64, 64), partial(propose_regions, settings=PROPOSALS))
        for path in photographs.iterdir()
    ]
    expected = list(predict_samples(checkpoint, samples, CPU, evidence=evidence))

    def remember(module, given):
        if len(given[0]) > 3:
            raise torch.OutOfMemoryError("out of memory")

    checkpoint.model.register_forward_pre_hook(remember)
    found = list(predict_samples(checkpoint, samples, CPU, evidence=evidence, say=told.append))
    assert [one.name for one in found] == [one.name for one in expected] and len(told) == 1
    for one, other in zip(found, expected, strict=True):
        if not isinstance(one, Unreadable):
            np.testing.assert_allclose(one.distribution, other.distribution, atol=1e-5)


def test_evidence_is_of_its_own_image_in_every_batch(network, photographs):
    checkpoint = load_checkpoint(network / "best.safetensors")
    images = [(name, read_image(photographs / name)) for name in ("0.png", "4.png", "6.png")]
    propose = partial(propose_regions, settings=PROPOSALS)
    together = list(predict(checkpoint, images, propose, CPU, evidence=True))
    for image, expected in zip(images, together, strict=True):
        (alone,) = predict(checkpoint, [image], propose, CPU, evidence=True)
        np.testing.assert_allclose(alone.evidence, expected.evidence, rtol=1e-3, atol=1e-5)
        assert alone.classes[0] == CLASSES[int(expected.distribution.argmax())]
        assert np.array_equal(alone.regions.boxes_xyxy, propose(image[1]).boxes_xyxy)


def test_no_more_images_are_asked_for_than_a_batch(network, textured):
    asked = []

    def images():
        for number in range(20):
            asked.append(number)
            yield str(number), textured(number, 80, 60)

    checkpoint = load_checkpoint(network / "best.safetensors")
    answers = predict(checkpoint, images(), partial(propose_regions, settings=PROPOSALS), CPU, batch_size=4)
    next(answers)
    assert len(asked) == 4


# --- ahead of the network


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """A module that workers can import, too."""
    (tmp_path / "tasks_of_workers.py").write_text(
        "import os\n"
        "def square(number):\n"
        "    if number == 7:\n"
        "        os.kill(os.getpid(), 9)  # as a decoder that crashes\n"
        "    return number * number, os.getpid()\n"
        "def fails(number):\n"
        "    raise ValueError(f'{number} is wrong')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    import tasks_of_workers

    yield tasks_of_workers
    del sys.modules["tasks_of_workers"]


def test_an_item_that_kills_its_process_costs_itself(tasks):
    taken = []

    def items():
        for number in range(12):
            taken.append(number)
            yield number

    results = ahead_by_processes(items(), tasks.square, lambda number, reason: ("lost", 0), jobs=2, limit=4)
    first = next(results)
    assert len(taken) <= 4 and first[1] != os.getpid()
    squares = [first[0], *(square for square, _ in results)]
    assert squares == [number * number if number != 7 else "lost" for number in range(12)]


def test_an_error_in_a_process_is_raised_here(tasks):
    with pytest.raises(ValueError, match="0 is wrong"):
        list(ahead_by_processes([0, 1], tasks.fails, lambda number, reason: None, jobs=1, limit=2))


def test_threads_work_on_while_no_one_asks_but_not_without_end():
    """Order is by events: nothing is awaited but what must happen."""
    begun, go_on = [], threading.Event()

    def items():
        for number in range(50):
            begun.append(number)
            yield number

    done = threading.Event()

    def task(number):
        if number == 0:
            go_on.wait(30)  # the first is last, and is still given first
        if number == 4:
            done.set()
        return number

    results = ahead_by_threads(items(), task, jobs=2, limit=5)
    asking = threading.Thread(target=lambda: first.append(next(results)))
    first = []
    asking.start()
    assert done.wait(30) and not first  # 1 to 4 are done ahead, with the first not given
    assert begun == [0, 1, 2, 3, 4]
    go_on.set()
    asking.join(30)
    assert first == [0] and list(results) == list(range(1, 50))


def test_an_error_while_getting_items_comes_after_the_results_before_it():
    def items():
        yield from range(3)
        raise ValueError("cut off")

    got = []
    with pytest.raises(ValueError, match="cut off"):
        for result in ahead_by_threads(items(), str, jobs=2, limit=8):
            got.append(result)
    assert got == ["0", "1", "2"]


def test_threads_stop_when_no_one_wants_more():
    before = threading.active_count()
    results = ahead_by_threads(iter(range(1000)), str, jobs=2, limit=8)
    assert next(results) == "0"
    results.close()
    deadline = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def broken_propose(image):
    raise cv2.error("no keypoints for you\nmore")


def test_an_image_whose_regions_fail_is_told(photographs):
    told = sample_of_file(str(photographs / "0.png"), (64, 64), broken_propose)
    assert told == Unreadable(
        str(photographs / "0.png"), f"{photographs / '0.png'}: proposing its regions failed: no keypoints for you"
    )
    assert sample("a", np.zeros((9, 9, 3), np.uint8), (64, 64), None).boxes is None


# --- the command: images


def test_every_format_says_the_same_in_the_same_order(agnet, network, photographs):
    order = ["6.png", "0.png", "3b.png", "0.png", "5.png"]
    arguments = ["predict", "--run", network, *(photographs / name for name in order), "--top", 2]
    as_json = agnet(*arguments, "--json", code=1)
    rows = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert [Path(row["image"]).name for row in rows] == order
    assert ["error" in row for row in rows] == [False, False, True, False, False]
    assert rows[1] == rows[3]
    assert as_json.stderr.splitlines()[-1] == "1 error: see above"
    assert as_json.stdout == agnet(*arguments, "--format", "json", code=1).stdout

    table = list(csv.DictReader(io.StringIO(agnet(*arguments, "--format", "csv", code=1).stdout)))
    text = agnet(*arguments, code=1).stdout.splitlines()
    assert len(text) == 4
    lines = iter(text)
    for row, cells in zip(rows, table, strict=True):
        assert cells["image"] == row["image"] and cells["error"] == row.get("error", "")
        if "error" in row:
            assert cells["label"] == "" and "not in a supported image format" in row["error"]
            continue
        ranked = [(cells[f"class_{rank}"], float(cells[f"probability_{rank}"])) for rank in (1, 2)]
        assert ranked == list(row["probabilities"].items())
        assert cells["label"] == row["label"] == ranked[0][0]
        words = next(lines).split()
        assert words[0] == f"{row['image']}:" and words[1::2] == [name for name, _ in ranked]
        assert words[2] == f"{ranked[0][1]:.1%}"
    assert len({line.index("%") for line in text}) == 1  # aligned
    assert as_json.stderr.count("Error: ") == 1 and "4 images in " in as_json.stderr


@pytest.mark.parametrize("jobs", [0, 2])
def test_jobs_and_batches_change_no_answer(agnet, network, photographs, jobs):
    once = agnet("predict", "--run", network, photographs, "--json", "--batch-size", 1, "--jobs", 0, code=1)
    again = agnet("predict", "--run", network, photographs, "--json", "--batch-size", 3, "--jobs", jobs, code=1)
    for line, other in zip(once.stdout.splitlines(), again.stdout.splitlines(), strict=True):
        expected, got = json.loads(line), json.loads(other)
        assert (got["image"], got.get("error"), got.get("label")) == (
            expected["image"],
            expected.get("error"),
            expected.get("label"),
        )
        assert got.get("probabilities", {}) == pytest.approx(expected.get("probabilities", {}), abs=1e-5)


def test_a_list_on_stdin_and_what_finds_nothing(network, photographs, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from agnet.cli import main

    monkeypatch.chdir(photographs)
    arguments = ["predict", "--run", str(network), "-", "*.gif", "--json"]
    result = CliRunner().invoke(main, arguments, input="2.png\0\0[01].png\0")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["image"] for row in rows] == ["2.png", "0.png", "1.png", "*.gif"]
    assert rows[3]["error"] == "no images or videos match *.gif" and result.exit_code == 1


def test_the_unlikely_is_called_unsure(agnet, network, photographs):
    arguments = ["predict", "--run", network, photographs / "0.png", "--threshold", "1"]
    row = json.loads(agnet(*arguments, "--json").stdout)
    assert row["label"] == "unsure" and row["probability"] == max(row["probabilities"].values()) < 1
    assert "0.png: unsure: " in agnet(*arguments).stdout


def test_predict_says_what_it_passes_over(agnet, network, photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "holiday")
    (tmp_path / "holiday" / "3b.png").unlink()
    assert "skipped" not in agnet("predict", "--run", network, "holiday").stderr
    for name in ("IMG_1.CR2", "IMG_2.cr2", "list.pdf"):
        (tmp_path / "holiday" / name).touch()
    told = agnet("predict", "--run", network, "holiday")
    assert "skipped, not images or videos: 2 .cr2, 1 .pdf\n" in told.stderr
    assert len(told.stdout.splitlines()) == 7
    (tmp_path / "holiday" / "IMG_3.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert "IMG_3.HEIC" in agnet("predict", "--run", network, "holiday", code=1).stderr


def test_a_folder_of_several_seeds_is_told_by_name(agnet, network, photographs, tmp_path):
    """What a folder of seeds means is for the user to say: one network, or all of them."""
    (tmp_path / "runs" / "seed-3").mkdir(parents=True)
    (tmp_path / "runs" / "seed-3" / "config.json").write_text("{}")
    told = agnet("predict", "--run", "runs", photographs / "0.png", code=1).stderr
    assert (
        told
        == f"Error: runs holds a run for each of several seeds; name one of them, such as --run {Path('runs/seed-3')}\n"
    )
    assert "there is no " in agnet("predict", "--run", "runs/seed-3", photographs / "0.png", code=1).stderr


def test_a_file_is_written_whole(agnet, network, photographs, tmp_path):
    arguments = ["predict", "--run", network, photographs / "0.png", "--format", "csv"]
    printed = agnet(*arguments).stdout
    (tmp_path / "out.csv").write_text("old")
    assert agnet(*arguments, "--output", "out.csv").stdout == ""
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == printed
    assert agnet(*arguments, "--output", "no/out.csv", code=1).stderr == "Error: no/out.csv: there is no folder no\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
    assert "two different formats" in agnet(*arguments, "--json", code=2).stderr


def test_names_cannot_speak_to_the_terminal(agnet, network, photographs, tmp_path):
    evil = tmp_path / "a\x1b[31m\n.png"
    evil.write_bytes((photographs / "0.png").read_bytes())
    told = agnet("predict", "--run", network, evil).stdout
    assert "\x1b" not in told and told.count("\n") == 1
    assert json.loads(agnet("predict", "--run", network, evil, "--json").stdout)["image"] == str(evil)
    saved = agnet("predict", "--run", network, evil, "--save", "pictures").stderr
    assert saved.splitlines() == [f"written: {Path('pictures')}/{tmp_path.name}-a�[31m�.png"]
    (tmp_path / "=1+1.png").write_bytes(b"")
    table = agnet("predict", "--run", network, "=1+1.png", "--format", "csv", code=1).stdout
    assert table.splitlines()[1].startswith("'=1+1.png,")


def test_a_saved_picture_is_named_beside_its_answer(agnet, network, photographs, tmp_path):
    """Of two images of one name, nobody could tell which has which."""
    for folder in ("one/same", "two/same"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(photographs / "0.png", tmp_path / folder / "0.png")
    write_video(tmp_path / "v.mp4", [60] * 3)
    names = ["one/same/0.png", "two/same/0.png", photographs / "3b.png", "v.mp4"]
    told = agnet("predict", "--run", network, *names, "--save", "out", "--json", code=1).stdout
    rows = [json.loads(line) for line in told.splitlines()]
    pictures = {row.get("image") or row["video"]: row["picture"] for row in rows if "picture" in row}
    assert pictures == {"one/same/0.png": "same-0.png", "two/same/0.png": "same-0-2.png", "v.mp4": "v.mp4"}
    told = agnet("predict", "--run", network, *names, "--save", "out", "--format", "csv", code=1).stdout
    rows = list(csv.DictReader(told.splitlines()))
    assert [row["picture"] for row in rows] == ["same-0-3.png", "same-0-4.png", "", "", "", ""]
    assert [bool(row["error"]) for row in rows] == [False, False, True, False, False, False]
    assert "picture" not in agnet("predict", "--run", network, *names[:2], "--format", "csv").stdout


def test_a_saved_picture_knows_the_run_and_the_truth(network, photographs, tmp_path, monkeypatch):
    captions = []
    monkeypatch.setattr(annotated, "draw_prediction", lambda *given: captions.append(given[2]) or given[0])
    known = SimpleNamespace(truth=lambda name: Truth("bee", "in the test split") if name.endswith("1.png") else None)
    checkpoint = load_checkpoint(network / "best.safetensors")
    predictor = FilePredictor(checkpoint, partial(propose_regions, settings=PROPOSALS), CPU, jobs=0, pictures=True)
    folder = annotated.AnnotatedFolder(tmp_path / "out", CLASSES, "by the run cats, epoch 3", known)
    answers = list(
        predictor.answers(find_inputs([str(photographs / "0.png"), str(photographs / "1.png")], io.BytesIO()))
    )
    for answer in answers:
        folder.save(answer)
    assert [caption.truth and caption.truth.name for caption in captions] == [None, "bee"]
    assert {(caption.run, caption.classes) for caption in captions} == {("by the run cats, epoch 3", CLASSES)}
    assert [caption.label for caption in captions] == [answer.label for answer in answers[1:]]


def test_letters_that_no_font_has_are_told_once(agnet, network, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(fonts, "_folders", lambda: [tmp_path / "none"])
    for function in (fonts._files, fonts._face_with, fonts._typeset):
        function.cache_clear()
    for name in ("\U00013080.png", "\U00013081.png", "ж.png"):
        shutil.copy(photographs / "0.png", tmp_path / name)
    try:
        told = agnet("predict", "--run", network, "*.png", "--save", "out").stderr
        assert told.count("no font on this machine") == told.count("Egyptian") == 1 and "Cyrillic" not in told
        assert "no font" not in agnet("predict", "--run", network, "ж.png", "--save", "out").stderr
    finally:
        monkeypatch.undo()
        for function in (fonts._files, fonts._face_with, fonts._typeset):
            function.cache_clear()


# As ``python -m agnet``, with the backbone of these tests.
PROGRAM = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import torchvision
from small_mobilenet import mobilenet_v3_small
from agnet.cli import main
torchvision.models.mobilenet_v3_small = mobilenet_v3_small
main(prog_name="agnet")
"""


@pytest.fixture
def program(network, tmp_path):
    """A function that starts `agnet predict` as a program."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(*arguments, **others):
        command = [sys.executable, "-c", PROGRAM, "predict", "--run", network, *arguments]
        return subprocess.Popen(
            [str(word) for word in command],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **others,
        )

    return start


@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
def test_an_interrupt_leaves_whole_lines(program, photographs, tmp_path):
    images = [photographs / f"{number}.png" for number in range(7)] * 300
    (tmp_path / "list").write_text("\n".join(map(str, images)))
    with (tmp_path / "list").open() as listed:
        process = program("-", "--json", "--jobs", 1, "--output", "out.jsonl", stdin=listed)
    unfinished = tmp_path / "out.jsonl.tmp"
    deadline = time.monotonic() + 180
    while not (unfinished.exists() and unfinished.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=180)
    assert (process.returncode, stdout) == (130, ""), stderr
    assert "out.jsonl.partial" in stderr and stderr.splitlines()[-1] == "Interrupted." and "Traceback" not in stderr
    content = (tmp_path / "out.jsonl.partial").read_text()
    assert content.endswith("\n")
    assert [json.loads(line)["image"] for line in content.splitlines()] == list(map(str, images[: content.count("\n")]))
    assert not (tmp_path / "out.jsonl").exists() and not unfinished.exists()


def test_a_closed_pipe_ends_quietly(program, photographs):
    process = program(*[photographs / "0.png"] * 400, "--jobs", "0")
    assert process.stdout.readline().count("%") == 3
    process.stdout.close()
    process.wait(timeout=180)
    assert process.stderr.read() == ""
    process.stderr.close()


# --- the command: videos


def test_a_video_is_told_frame_by_frame_and_as_segments(agnet, network, tmp_path):
    write_video(tmp_path / "a.mp4", [30] * 10 + [220] * 10)
    arguments = ["predict", "--run", network, "a.mp4", "--smooth", "0.3"]
    rows = [json.loads(line) for line in agnet(*arguments, "--json", "--batch-size", 3).stdout.splitlines()]
    frames, summary = rows[:-1], rows[-1]
    assert [row["frame"] for row in frames] == list(range(20))
    assert [row["seconds"] for row in frames] == pytest.approx([number / 10 for number in range(20)], abs=0.002)

    # A frame is predicted as the same pixels in a picture are; PNG keeps them.
    with Video(tmp_path / "a.mp4") as video:
        Image.fromarray(list(video.frames())[12].pixels).save(tmp_path / "12.png")
    still = json.loads(agnet("predict", "--run", network, "12.png", "--json").stdout)
    assert frames[12]["probabilities"] == pytest.approx(still["probabilities"], abs=1e-5)

    assert summary["video"] == "a.mp4" and summary["frames"] == 20
    edges = {segment[edge] for segment in summary["segments"] for edge in ("start", "end")}
    assert edges <= {row["seconds"] for row in frames}  # to the digit: rows can be joined by them
    for segment in summary["segments"]:
        inside = [row for row in frames if segment["start"] <= row["seconds"] + 1e-3 < segment["end"] + 1e-3]
        assert {row["label"] for row in inside[:-1] or inside} == {segment["label"]}
    assert summary["segments"][0]["start"] == 0
    assert summary["segments"][-1]["end"] == pytest.approx(1.9, abs=0.002)

    text = agnet(*arguments).stdout.splitlines()
    assert len(text) == len(summary["segments"]) and text[0].startswith("a.mp4: 0:00.0 to 0:0")
    table = agnet(*arguments, "--format", "csv", "--every", 7)
    cells = list(csv.DictReader(io.StringIO(table.stdout)))
    assert [row["frame"] for row in cells] == ["0", "7", "14"]
    assert "a.mp4: 0:00.0 to" in table.stderr  # for which CSV has no rows


def test_broken_videos_are_reported_and_the_rest_goes_on(agnet, network, photographs, tmp_path):
    write_video(tmp_path / "cut.avi", range(100, 200, 5), code="MJPG")
    content = (tmp_path / "cut.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: (content.index(b"movi") + content.index(b"idx1")) // 2])
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    arguments = ["predict", "--run", network, "bad.mp4", "cut.avi", photographs / "1.png", "--json"]
    result = agnet(*arguments, "--batch-size", 4, code=1)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert "not in a supported video format" in rows[0]["error"]
    frames = [row for row in rows if "frame" in row]
    assert [row["frame"] for row in frames] == list(range(len(frames))) and 5 <= len(frames) <= 15
    assert rows[1 + len(frames)]["frames"] == len(frames)
    assert "it was cut off" in rows[2 + len(frames)]["error"]
    assert rows[-1]["image"].endswith("1.png") and "error" not in rows[-1]


def test_a_saved_video_keeps_length_rate_and_picture(agnet, network, tmp_path):
    write_video(tmp_path / "a.mp4", [60] * 10 + [200] * 10, size_wh=(97, 241))
    told = agnet("predict", "--run", network, "a.mp4", "--save", "out", "--smooth", 0)
    agnet("predict", "--run", network, "a.mp4", "--save", "out", "--every", 2)
    assert f"written: {Path('out', 'a.mp4')}" in told.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a-2.mp4", "a.mp4"]
    for name, rate, count in (("a.mp4", 10, 20), ("a-2.mp4", 5, 10)):
        with Video(tmp_path / "out" / name) as video:
            frames = list(video.frames())
            assert (video.rate, len(frames)) == (rate, count)
        middles = [frame.pixels[100:200, 60:100].mean() for frame in frames]
        assert middles == pytest.approx([60] * (count // 2) + [200] * (count // 2), abs=12)
        assert frames[0].pixels[-30:-22].mean() > 200  # the strip with the label


def test_a_saved_video_keeps_the_clock_of_one_with_uneven_frames(tmp_path, network, textured):
    checkpoint = load_checkpoint(network / "best.safetensors")
    propose = partial(propose_regions, settings=PROPOSALS)
    (one,) = predict(checkpoint, [("a", textured(1, 480, 320))], propose, CPU)
    times = [0, 0.1, 0.12, 0.5, 9.0]
    with VideoWriter(tmp_path / "out.mp4", 10.0) as writer:
        for number, seconds in enumerate(times):
            pixels = np.full((320, 480, 3), 50 * number, np.uint8)
            annotated.write_moment(writer, Moment(Frame(number, seconds, pixels), one, Label("ant", 0.5)))
    with Video(tmp_path / "out.mp4") as video:
        greys = [frame.pixels[300, 5].mean() for frame in video.frames()]
    # One too many for its tenth of a second is left out; a still of 8.5 s is cut to 5.
    assert greys == pytest.approx([0, 50, 150, 150, 150, 150, *[200] * 50], abs=12)


def test_what_cannot_be_saved_is_told_and_the_rest_goes_on(agnet, network, photographs, tmp_path, monkeypatch):
    """A video that cannot be written costs itself, and is told once; a photograph that is gone by then, too."""
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, [60] * 6)
    shutil.copy(photographs / "0.png", tmp_path / "0.png")
    write, read = VideoWriter.write, annotated.read_image
    monkeypatch.setattr(annotated, "read_image", lambda name, limit: Path(name).unlink() or read(name, limit))

    def write_or_fail(writer, picture):
        if writer.path.stem == "a" and writer.frames == 3:
            raise ImageError(f"{writer.path}: no room")
        write(writer, picture)

    monkeypatch.setattr(VideoWriter, "write", write_or_fail)
    told = agnet("predict", "--run", network, "a.mp4", "0.png", "b.mp4", "--save", "out", "--json", code=1)
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    assert [(row["image"], row["error"].split(": ")[-1]) for row in rows if "error" in row] == [
        *(("a.mp4", "no room"), ("0.png", "No such file or directory")),
    ]
    assert [row["frames"] for row in rows if "frames" in row] == [6, 6]  # answers do not suffer
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.mp4"] and told.stderr.count("Error: ") == 2


def test_workers_start_without_torch():
    """They need half a second then, and would need five."""
    program = "import sys, agnet.training.samples.reading, agnet.commands.predict; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_frame_has_its_label_its_bar_and_its_map(network, textured):
    checkpoint = load_checkpoint(network / "best.safetensors")
    image = textured(5, 640, 360)
    propose = partial(propose_regions, settings=PROPOSALS)
    (one,) = predict(checkpoint, [("a", image)], propose, CPU, evidence=True)
    frame = small_frame(image)
    assert frame is image  # neither too small nor too large
    quarter, half = (draw_frame(frame, one, Label("ant", share)) for share in (0.25, 0.5))
    assert quarter.shape[1] == 1284 and quarter.shape[0] % 2 == 0
    assert np.array_equal(quarter[:360, :640], image)  # no boxes
    blue = (half == ImageColor.getrgb(SERIES[0])).all(axis=2)
    assert blue[-2].nonzero()[0].max() == pytest.approx(642, abs=2)
    assert (quarter == ImageColor.getrgb(SERIES[0])).all(axis=2)[-2].sum() == pytest.approx(321, abs=2)
    still = replace(one, evidence=np.zeros_like(one.evidence))
    greys = draw_frame(frame, still, Label("ant", 0.5))[:360, 644:]
    assert (greys[..., 0] == greys[..., 2]).all() and greys.shape == quarter[:360, 644:].shape
    assert not np.array_equal(greys, quarter[:360, 644:])
    for size_wh, longer in (((3840, 2160), 640), ((64, 48), 480)):
        assert max(small_frame(np.zeros((size_wh[1], size_wh[0], 3), np.uint8)).shape) == longer


# --- as a library


def test_the_program_of_the_documentation_predicts_as_the_command_does(agnet, network, photographs, tmp_path, capsys):
    page = (Path(package.__file__).parent / "docs" / "predicting.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "run").symlink_to(network, target_is_directory=True)
    (tmp_path / "some").mkdir()
    for number in (2, 5):
        Image.open(photographs / f"{number}.png").save(tmp_path / "some" / f"{number}.jpg")
    lines = agnet("predict", "--run", "run", "some", "--json", "--device", "auto").stdout.splitlines()
    capsys.readouterr()
    exec(compile(program, "predicting.md", "exec"), {})
    told = [line.rsplit(" ", 2) for line in capsys.readouterr().out.splitlines()]
    assert [Path(name) for name, _, _ in told] == [Path("some/2.jpg"), Path("some/5.jpg")]
    for line, (_, label, probability) in zip(lines, told, strict=True):
        expected = json.loads(line)
        assert label == expected["label"] and float(probability) == pytest.approx(expected["probability"], abs=1e-5)
