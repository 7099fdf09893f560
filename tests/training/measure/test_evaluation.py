"""What a run may be measured on: nothing it has seen, unless it is forced, and then the file says so."""

import csv
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from scipy.stats import binomtest

from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import CheckpointError, ConfigurationError, MismatchError
from agnet.data.sets.catalogue import open_dataset
from agnet.proposals.run import propose_dataset
from agnet.proposals.settings import ProposalSettings
from agnet.training.aggregates import Aggregate
from agnet.training.loop.engine import TIMINGS
from agnet.training.loop.fit import fit
from agnet.training.loop.job import Job
from agnet.training.machine.devices import Device
from agnet.training.measure.claims import papers_claim
from agnet.training.measure.evaluation import evaluate_run
from agnet.training.measure.image_facts import WITHOUT_NAME, names_of_seen
from agnet.training.measure.metrics import MEASURES
from agnet.training.measure.predictions import load_predictions
from agnet.training.models.registry import ModelSettings
from agnet.training.recipes import RECIPES, RunSettings
from agnet.training.runs.checkpoints import load_checkpoint, save_checkpoint
from agnet.training.runs.folder import checkpoint_hash, read_config, split_hash
from agnet.training.runs.seen import read_seen
from agnet.training.samples.loader import Loader, dataset_of

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

CPU = Device(torch.device("cpu"))
PLAIN = ModelSettings(classes=3, regions=6, backbone="mobilenet-v3-small", model="plain")
RECIPE = RECIPES["modern"].override(epochs=1, batch_size=4, image_size=64)
RUN = RunSettings(weights="none", workers=0)


@pytest.fixture
def boxes(boxes_file):
    return read_boxes(boxes_file)


@pytest.fixture(scope="module")
def _original_run(_original_boxes, _original_folder, one_thread, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    fit(Job(run, read_boxes(_original_boxes), _original_folder, PLAIN, RECIPE, RUN))
    return run


@pytest.fixture
def run(_original_run, tmp_path):
    """A run on `boxes`; free to damage."""
    return shutil.copytree(_original_run, tmp_path / "run")


def measured(run, boxes, root, split="test", **options):
    return evaluate_run(run, boxes, root, split, 4, CPU, 0, watch=lambda what, images: lambda *_: None, **options)


def rows_of(table):
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def proposed(root, path, primary=3, **options):
    propose_dataset(open_dataset("folder", root, **options), ProposalSettings(primary=primary), path, jobs=1)
    return read_boxes(path)


@pytest.fixture
def others(folder, tmp_path, textured):
    """Photographs of the same classes that no run has seen."""
    root = tmp_path / "others"
    for split in ("train", "test"):
        for label, name in enumerate(sorted(place.name for place in (folder / "train").iterdir())):
            (root / split / name).mkdir(parents=True)
            for number in range(2):
                pixels = textured([9, label, number, len(split)], 100, 90)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


def test_the_train_part_is_refused_unless_forced(run, boxes, folder):
    with pytest.raises(MismatchError, match=r"was trained on the train split.*--force") as caught:
        measured(run, boxes, folder, "train")
    assert "\n" not in str(caught.value) and not (run / "metrics-train.json").exists()
    forced = measured(run, boxes, folder, "train", force=True)
    assert forced.metrics.images == 9 and "all 9 images were used for training" in forced.warning
    assert json.loads(forced.file.read_text())["images_seen_in_training"] == 9


def test_validation_is_measured_and_said_to_have_chosen(run, boxes, folder):
    assert "epoch was chosen" in measured(run, boxes, folder, "val").warning


def test_a_rule_for_videos_is_refused_for_images(run, boxes, folder):
    with pytest.raises(ConfigurationError, match=r"--aggregate is for the classes of clips, and .* has images"):
        measured(run, boxes, folder, aggregate=Aggregate())


def test_the_test_part_needs_no_word(run, boxes, folder):
    evaluation = measured(run, boxes, folder)
    assert evaluation.warning == "" and evaluation.file == run / "metrics-test.json"
    assert f"For **{evaluation.metrics.top1:.2%}** of " in (run / "README.md").read_text(encoding="utf-8")
    assert json.loads(evaluation.file.read_text())["images_seen_in_training"] == 0


def test_copies_of_training_images_in_the_test_part_are_told_with_their_number(folder, tmp_path):
    trained = sorted((folder / "train" / "ant").iterdir())
    shutil.copy(trained[0], folder / "val" / "ant" / "copy.png")
    shutil.copy(trained[1], folder / "val" / "bee" / "copy.png")
    boxes = proposed(folder, tmp_path / "twice.h5")
    fit(Job(tmp_path / "run", boxes, folder, PLAIN, RECIPE, RUN))
    evaluation = measured(tmp_path / "run", boxes, folder)
    assert evaluation.warning == "2 of the 8 test images also occur in train or val, byte for byte"
    assert json.loads(evaluation.file.read_text())["images_seen_in_training"] == 2
    copied = {"val/ant/copy.png": trained[0], "val/bee/copy.png": trained[1]}
    for row in rows_of(tmp_path / "run" / "predictions-test.csv"):
        original = copied.get(row["path"])
        assert row["copies_training_image"] == (original.relative_to(folder).as_posix() if original else "")


def test_new_photographs_of_the_same_kind_are_measured_beside_the_runs_own(run, boxes, folder, others, tmp_path):
    measured(run, boxes, folder)
    own = (run / "metrics-test.json").read_bytes()
    elsewhere = proposed(others, tmp_path / "others.h5")
    evaluation = measured(run, elsewhere, others)
    assert evaluation.warning == "" and evaluation.metrics.images == 6
    assert evaluation.file != run / "metrics-test.json" and (run / "metrics-test.json").read_bytes() == own
    assert json.loads(evaluation.file.read_text())["boxes_fingerprint"] == elsewhere.fingerprint
    # Nobody trained on its train part.
    assert measured(run, elsewhere, others, "train").metrics.images == 3


def test_another_file_whose_test_part_was_trained_on_is_refused_unless_forced(run, folder, others, tmp_path):
    """Under another name and in another class: the content counts."""
    shutil.copy(folder / "train" / "ant" / "0.png", others / "test" / "bee" / "renamed.png")
    seen = read_seen(run)
    elsewhere = proposed(others, tmp_path / "others.h5")
    assert (
        len(seen) == 12 and elsewhere.contents[elsewhere.names.tolist().index(b"test/bee/renamed.png")].decode() in seen
    )
    with pytest.raises(MismatchError, match=r"trained on or selected by 1 of the 7 test images.*--force") as caught:
        measured(run, elsewhere, others)
    assert "\n" not in str(caught.value)
    assert "1 of the 7" in measured(run, elsewhere, others, force=True).warning
    (written,) = run.glob("predictions-test-*.csv")
    assert {row["path"]: row["copies_training_image"] for row in rows_of(written)}["test/bee/renamed.png"] == (
        "train/ant/0.png"
    )
    (run / "config.json").unlink()  # without the place of the run's own boxes file there are no names
    assert set(names_of_seen(run, elsewhere, "test").values()) == {WITHOUT_NAME}


def test_another_draw_of_the_test_part_is_refused(folder, tmp_path):
    shutil.rmtree(folder / "val")
    one, other = (proposed(folder / "train", tmp_path / f"{seed}.h5", split_seed=seed) for seed in (0, 1))
    assert split_hash(one) != split_hash(other)
    fit(Job(tmp_path / "run", one, folder / "train", PLAIN, RECIPE, RUN))
    with pytest.raises(MismatchError, match="byte for byte"):
        measured(tmp_path / "run", other, folder / "train")


def test_other_classes_are_refused_even_if_forced(run, others, tmp_path):
    for split in ("train", "test"):
        (others / split / "ant").rename(others / split / "wasp")
    with pytest.raises(MismatchError, match=r"3 classes, .* has others, such as 'ant'"):
        measured(run, proposed(others, tmp_path / "wasps.h5"), others, force=True)


def test_a_strangers_checkpoint_of_the_same_fingerprint_is_held_to_the_files_classes(run, boxes, folder):
    checkpoint = load_checkpoint(run / "best.safetensors")
    save_checkpoint(run / "best.safetensors", replace(checkpoint, classes=("ant", "bee", "\x1b[2J")))
    with pytest.raises(MismatchError, match="has others, such as"):
        measured(run, boxes, folder)


def test_a_run_that_does_not_say_what_it_saw_is_refused_new_files_unless_forced(run, boxes, folder, others, tmp_path):
    (run / "seen.txt").unlink()
    assert measured(run, boxes, folder).warning == ""
    elsewhere = proposed(others, tmp_path / "others.h5")
    with pytest.raises(MismatchError, match=r"run has no record of the contents of its images.*--force"):
        measured(run, elsewhere, others)
    forced = measured(run, elsewhere, others, force=True)
    assert "it is unknown whether" in forced.warning
    assert json.loads(forced.file.read_text())["images_seen_in_training"] is None


def test_a_file_without_hashes_cannot_vouch_for_its_images(run, boxes, others, tmp_path):
    elsewhere = proposed(others, tmp_path / "others.h5")
    silent = replace(elsewhere, contents=np.full_like(elsewhere.contents, b"\xff\n"))
    with pytest.raises(MismatchError, match=r"others.h5 has no record of the contents of its images"):
        measured(run, silent, others)


def test_a_run_on_a_file_without_hashes_knows_that_it_does_not_know(boxes, folder, tmp_path):
    fit(Job(tmp_path / "run", replace(boxes, contents=np.full_like(boxes.contents, b"")), folder, PLAIN, RECIPE, RUN))
    assert read_seen(tmp_path / "run") is None


@pytest.mark.parametrize(
    "content", ["", "train 01", "test 0123456789abcdef\n", "train 0123456789abcdef\nval", "\x00\n"]
)
def test_a_damaged_list_of_seen_images_is_an_error(run, content):
    (run / "seen.txt").write_text(content)
    with pytest.raises(CheckpointError, match=r"seen\.txt is damaged"):
        read_seen(run)


def test_what_was_seen_is_train_and_val_and_not_test(run, boxes, folder):
    lines = (run / "seen.txt").read_text().splitlines()
    assert lines == sorted(lines)
    for split, count in (("train", 9), ("val", 3), ("test", 0)):
        assert sum(line.startswith(f"{split} ") for line in lines) == count
    named = {line.split()[1]: line.split()[0] for line in lines}
    for content, split in zip(boxes.contents.tolist(), boxes.splits.tolist(), strict=True):
        assert named.get(content.decode()) == (None if split == "test" else split)


def test_a_resumed_run_of_an_older_version_learns_what_it_saw(boxes, folder, tmp_path):
    run = tmp_path / "run"
    fit(Job(run, boxes, folder, PLAIN, RECIPE.override(epochs=2), RUN, stop_after=1))
    before = (run / "seen.txt").read_bytes()
    (run / "seen.txt").unlink()
    fit(Job(run, boxes, folder, PLAIN, RECIPE.override(epochs=2), RUN, resume=True))
    assert (run / "seen.txt").read_bytes() == before


def test_a_run_begun_anew_after_a_first_epoch_that_never_ended_forgets_what_it_saw(boxes, folder, others, tmp_path):
    run = tmp_path / "run"
    fit(Job(run, boxes, folder, PLAIN, RECIPE, RUN))
    (run / "best.safetensors").unlink()
    elsewhere = proposed(others, tmp_path / "others.h5")
    fit(Job(run, elsewhere, others, PLAIN, RECIPE, RUN))
    seen = {c.decode() for c in elsewhere.contents[elsewhere.splits != "test"].tolist()}
    assert read_seen(run) == seen


def test_the_split_is_recorded_in_the_run(folder, tmp_path):
    kept = {}
    for name, options in (
        ("a", {"split_seed": 5, "val_fraction": 0.3}),
        ("b", {"split_seed": 5, "val_fraction": 0.3}),
        ("c", {"split_seed": 7, "val_fraction": 0.3}),
    ):
        boxes = proposed(folder, tmp_path / f"{name}.h5", **options)
        fit(Job(tmp_path / name, boxes, folder, PLAIN, RECIPE, RUN))
        kept[name] = read_config(tmp_path / name)["boxes"]
        assert boxes.settings["dataset"].items() >= options.items()
    assert kept["a"]["opened_with"] == {"split_seed": 5, "val_fraction": 0.3, "limit": None}
    assert kept["a"]["images"] == {"train": 9, "val": 3, "test": 6}
    assert kept["a"]["split_blake2b"] == kept["b"]["split_blake2b"] != kept["c"]["split_blake2b"]
    assert re.fullmatch("[0-9a-f]{16}", kept["a"]["split_blake2b"])


def test_training_gives_the_same_bits_whatever_the_test_part_is(boxes, folder, tmp_path):
    """Other labels, and other pixels on disk, of the test images: not a bit of the network or of the log changes."""
    recipe = RECIPE.override(epochs=2)
    fit(Job(tmp_path / "one", boxes, folder, PLAIN, recipe, RUN, keep_states=True))
    test = boxes.splits == "test"
    for name in boxes.names[test].tolist():
        (folder / name.decode()).write_bytes(b"no image at all")
    changed = replace(boxes, labels=np.where(test, (boxes.labels + 1) % 3, boxes.labels))
    fit(Job(tmp_path / "other", changed, folder, PLAIN, recipe, RUN, keep_states=True))
    for name in ("best.safetensors", "seen.txt"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes(), name
    states = [load_file(tmp_path / name / "last.safetensors") for name in ("one", "other")]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("one", "other")]
    for line, other in zip(*(map(json.loads, log) for log in logs), strict=True):
        assert {key for key in line.keys() | other.keys() if line.get(key) != other.get(key)} <= set(TIMINGS)


def test_a_folder_that_may_not_be_written_is_said_before_the_work(run, boxes, folder, monkeypatch):
    monkeypatch.setattr("agnet.training.measure.evaluation.evaluate", lambda *_, **__: pytest.fail("the work began"))
    monkeypatch.setattr("os.access", lambda path, mode: path != run)  # permissions do not keep out root
    with pytest.raises(ConfigurationError, match=r"metrics-test\.json cannot be written.*--run$") as caught:
        measured(run, boxes, folder)
    assert "\n" not in str(caught.value) and ".tmp" not in str(caught.value)


def test_a_network_that_gives_no_numbers_is_not_measured(run, boxes, folder):
    checkpoint = load_checkpoint(run / "best.safetensors")
    torch.nn.init.constant_(checkpoint.model.classifier.bias, torch.nan)
    save_checkpoint(run / "best.safetensors", checkpoint)
    with pytest.raises(CheckpointError, match="not finite numbers"):
        measured(run, boxes, folder)
    assert not (run / "metrics-test.json").exists()


def test_evaluate_says_it_in_one_line(agnet, run, boxes_file, folder):
    common = ["evaluate", "--run", run, "--boxes", boxes_file, "--root", folder, "--workers", 0, "--device", "cpu"]
    refused = agnet(*common, "--split", "train", code=1)
    assert refused.stderr.count("\n") == 1 and refused.stderr.startswith("Error: ") and "--force" in refused.stderr
    forced = agnet(*common, "--split", "train", "--force")
    assert "Warning: all 9 images were used for training" in forced.stderr


def test_every_image_and_class_is_written_and_they_agree(run, boxes, folder):
    evaluation = measured(run, boxes, folder)
    parts = ("metrics-test.json", "metrics-test.csv", "predictions-test.csv", "predictions-test.safetensors")
    assert all((run / name).stat().st_size for name in (*parts, "confusion-test.png", "calibration-test.png"))
    assert not list(run.glob("*.tmp"))
    told = json.loads(evaluation.file.read_text())
    assert told["top1"] == evaluation.metrics.top1 and told["papers_claim"] is None
    assert set(told["intervals"]) == set(MEASURES) and told["intervals"]["top1"].keys() == {"low", "high"}
    found = load_predictions(run / "predictions-test.safetensors")
    rows = boxes.usable[boxes.rows("test")]
    assert found.names == tuple(name.decode() for name in boxes.names[rows].tolist())
    assert found.contents == tuple(content.decode() for content in boxes.contents[rows].tolist())
    assert found.labels.tolist() == boxes.labels[rows].tolist() and found.images_seen_in_training == 0
    assert (found.logits.argmax(axis=1) == found.labels).mean() == pytest.approx(evaluation.metrics.top1)
    table = rows_of(run / "predictions-test.csv")
    assert sum(row["true"] == row["predicted"] for row in table) == evaluation.metrics.top1 * len(rows)
    for row in table:  # a class is the folder that an image is in
        assert row["path"].split("/")[1] == row["true"]
    assert [int(row["row"]) for row in table] == rows.tolist()
    for row in table:
        image = int(row["row"])
        assert boxes.names[image].decode() == row["path"] and boxes.classes[int(row["label"])] == row["true"]
        with Image.open(folder / row["path"]) as photograph:
            assert photograph.size == (int(row["width"]), int(row["height"]))
        assert row["status"] == boxes.status[image] and int(row["keypoints"]) == boxes.total_keypoints[image]
        assert row["top5"].split("; ")[0] == row["predicted"] and len(row["top5"].split("; ")) == 3
        assert row["copies_training_image"] == ""


def test_every_embedding_is_written_beside_the_names_in_half_precision(run, boxes, folder):
    """Against the network itself, one image at a time."""
    measured(run, boxes, folder)
    with safe_open(run / "embeddings-test.safetensors", framework="np") as file:
        vectors, header = file.get_tensor("vectors"), json.loads(file.metadata()["agnet"])
    checkpoint = load_checkpoint(run / "best.safetensors")
    dataset = dataset_of(boxes, folder, checkpoint.size_hw, None, regions=True)
    rows = boxes.rows("test")
    for vector, batch in zip(vectors, Loader(dataset, rows, 1, 0).epoch(0), strict=True):
        batch = batch.on(CPU)
        with torch.no_grad():
            alone = batch.called(checkpoint.model, checkpoint.model.inputs).embedding[0].numpy()
        np.testing.assert_allclose(vector.astype(np.float32), alone / np.linalg.norm(alone), atol=1e-3)
    assert vectors.dtype == np.float16 and header["network"] == checkpoint_hash(run / "best.safetensors")
    assert header["names"] == [boxes.names[boxes.usable[row]].decode() for row in rows]
    assert [header["classes"][label] for label in header["labels"]] == [name.split("/")[1] for name in header["names"]]
    measured(run, boxes, folder, embeddings=False)
    assert not (run / "embeddings-test.safetensors").exists()


def test_several_seeds_are_measured_each_and_together(agnet, run, boxes_file, boxes, folder, tmp_path):
    seeds = tmp_path / "seeds"
    shutil.copytree(run, seeds / "seed-0")
    fit(Job(seeds / "seed-3", boxes, folder, PLAIN, RECIPE, replace(RUN, seed=3)))
    common = ["evaluate", "--boxes", boxes_file, "--root", folder, "--workers", 0, "--device", "cpu", "--run"]
    printed = agnet(*common, seeds).stdout
    single = [json.loads((seeds / name / "metrics-test.json").read_text()) for name in ("seed-0", "seed-3")]
    together = json.loads((seeds / "metrics-test.json").read_text())
    assert together["runs"] == ["seed-0", "seed-3"] and together["images"] == 6
    for name in MEASURES:
        values = [found[name] for found in single]
        assert together[name]["values"] == values and together[name]["n"] == 2
        assert together[name]["mean"] == pytest.approx(np.mean(values))
        assert together[name]["sd"] == pytest.approx(np.std(values, ddof=1))
        assert 0 <= together[name]["low"] <= together[name]["mean"] <= together[name]["high"]
        assert together[name]["high"] <= 1 or name == "negative_log_likelihood"
    assert "mean ± sd" in printed and "seed-3" in printed
    # Six images: no interval is narrower than Wilson's of six, whatever the seeds agree about.
    top1 = together["top1"]
    wilson = binomtest(round(6 * top1["mean"]), 6).proportion_ci(method="wilson")
    assert top1["high"] - top1["low"] > 0.6 * (wilson.high - wilson.low)
    for seed in (0, 1):
        shutil.copytree(run, tmp_path / "twins" / f"seed-{seed}")
    agnet(*common, tmp_path / "twins")
    twins = json.loads((tmp_path / "twins" / "metrics-test.json").read_text())["top1"]
    assert twins["sd"] == 0
    for end in ("low", "high"):
        assert twins[end] == pytest.approx(single[0]["intervals"]["top1"][end])
    compared = json.loads(agnet("compare", seeds, run.parent / "seeds", "--json").stdout)
    assert compared["challenges"][0]["p"] == 1 and len(compared["challenges"][0]["tests"]) == 2
    # One of them alone, to machines.
    told = agnet(*common, seeds / "seed-0", "--json")
    assert json.loads(told.stdout)["top1"] == single[0]["top1"]
    classes = agnet(*common, seeds / "seed-0", "--csv").stdout.splitlines()
    assert classes[0].startswith("class,images,accuracy") and len(classes) == 4
    assert "exclude each other" in agnet(*common, seeds, "--csv", "--json", code=2).stderr


def test_the_papers_claims_stand_beside_whole_test_parts_and_the_networks_they_are_about(boxes):
    def claim(dataset="ppmi24", images=2400, split="test", **settings):
        splits = np.array(["test"] * images + ["train"] * 10)
        return papers_claim(replace(boxes, dataset=dataset, splits=splits), split, ModelSettings(24, **settings))

    assert (claim().top1, claim().mean_average_precision) == (0.982, 0.9735)
    assert (claim(model="plain").top1, claim(model="plain").mean_average_precision) == (0.7533, None)
    assert claim("auc-v1", 4331).top1 == 0.997 and "vgg16" in claim(backbone="vgg16").of
    assert claim("caltech256", 14_420).mean_average_precision == 0.9457
    for other in (
        *(claim(dataset="folder"), claim(images=2399), claim(split="val"), claim(use_regions=False)),
        *(claim(fusion="max"), claim(regions=8), claim("caltech256", 14_420, model="plain")),
    ):
        assert other is None
