"""`agnet train --folds`: every training image is scored once, by the run that has not seen it, also after a kill."""

import csv
import json
import shutil
from dataclasses import replace

import pytest
from click.testing import CliRunner

import agnet.training.measure.evaluation_plots  # noqa: F401 - so that its plots are one pixel
from agnet.cli import main
from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import CheckpointError, MismatchError
from agnet.training.answers.truth import TRAINED_ON, known_images
from agnet.training.loop import fit as fitting
from agnet.training.loop.engine import TIMINGS
from agnet.training.measure.image_facts import names_of_seen
from agnet.training.measure.out_of_sample import out_of_sample
from agnet.training.runs.checkpoint_header import read_header
from agnet.training.runs.folder import check_free, checkpoint_of, read_config, runs_of
from agnet.training.runs.folds import as_trained_on, without_fold

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

FOLDS = 2
OPTIONS = (
    *("--model", "plain", "--backbone", "mobilenet-v3-small", "--weights", "none", "--image-size", 64),
    *("--epochs", 2, "--batch-size", 4, "--workers", 0, "--device", "cpu", "--folds", FOLDS),
    *("--backbone-lr", 0, "--no-augment", "--cache-features"),
)


@pytest.fixture(scope="module")
def trained(place, small_mobilenet, one_thread):
    """A folder with the runs of two folds of nine images, and the boxes file beside it."""
    words = ["train", "--boxes", place / "boxes.h5", "--root", place / "images", "--run", place / "folds", *OPTIONS]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert "out of fold: 9 training images, top-1" in result.output and "next: agnet labels --run" in result.output
    return place / "folds"


def rows_of(file):
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def seen_in(run, part):
    lines = (run / "seen.txt").read_text().split("\n")
    return {line.split()[1] for line in lines if line.startswith(part)}


def test_the_folds_partition_the_training_images_and_no_run_has_seen_its_own(trained, place):
    boxes = read_boxes(place / "boxes.h5")
    train = {boxes.names[row].decode() for row in boxes.usable[boxes.rows("train")]}
    each = [rows_of(trained / f"fold-{fold}" / "predictions-train-fold.csv") for fold in range(FOLDS)]
    assert sorted(row["path"] for rows in each for row in rows) == sorted(train) and len(train) == 9
    for fold, rows in enumerate(each):
        run = trained / f"fold-{fold}"
        left_out = {row["content"] for row in rows}
        assert len(left_out) in (4, 5) and not left_out & seen_in(run, "train")
        assert len(seen_in(run, "train")) == 9 - len(left_out)
        assert {row["true"] for row in rows} == {"ant", "bee", "côté"}
        config = read_config(run)
        assert config["fold"] == {"number": fold, "images_left_out": len(left_out)}
        assert config["run"]["folds"] == FOLDS
        assert config["boxes"]["images"] == {"train": 9 - len(left_out), "val": 3, "test": 6}
    together = rows_of(trained / "predictions-train-fold.csv")
    assert sorted(map(str, together)) == sorted(str(row) for rows in each for row in rows)
    assert len(list(place.glob("*.features-*"))) == 1  # one file for all folds


def test_a_fold_is_measured_again_on_what_it_left_out(trained, place, agnet):
    run = trained / "fold-1"
    before = (run / "predictions-train-fold.csv").read_bytes()
    words = ["evaluate", "--run", run, "--root", place / "images", "--workers", 0]
    told = json.loads(agnet(*words, "--split", "train-fold", "--json").stdout)
    assert told["images"] == len(rows_of(run / "predictions-train-fold.csv")) and told["images_seen_in_training"] == 0
    assert (run / "predictions-train-fold.csv").read_bytes() == before
    assert "was trained on the train split" in agnet(*words, "--split", "train", code=1).output


def test_a_run_knows_which_images_it_left_out(trained, place):
    run, whole = trained / "fold-1", read_boxes(place / "boxes.h5")
    own = as_trained_on(run, whole)
    assert (own.splits == without_fold(whole, 1, FOLDS, 0).splits).all()
    known = known_images(run, read_header(checkpoint_of(run)))
    rows = rows_of(run / "predictions-train-fold.csv")
    left_out = {row["path"] for row in rows}
    named = names_of_seen(run, whole, "test")
    assert not {row["content"] for row in rows} & set(named) and len(named) == 9 - len(rows) + 3
    for row in whole.usable[whole.rows("train")]:
        name = whole.names[row].decode()
        part = known.truth(str(place / "images" / name)).part
        assert (part == TRAINED_ON) == (name not in left_out)


def test_groups_are_left_out_as_a_whole(clip_boxes):
    for fold in range(2):
        splits = without_fold(clip_boxes, fold, 2, 0).splits
        persons = [group for group, split in zip(clip_boxes.groups, splits, strict=True) if split == "train-fold"]
        assert len(set(persons)) == 1 and len(persons) == 3  # all three clips of one of two persons


def test_copies_are_left_out_together(place):
    whole = read_boxes(place / "boxes.h5")
    rows = whole.usable[whole.rows("train")]
    contents = whole.contents.copy()
    contents[rows[::3]] = contents[rows[0]]  # an image of each class, and all the same file
    for seed in range(4):
        splits = without_fold(replace(whole, contents=contents), 0, 2, seed).splits[rows[::3]]
        assert len(set(splits.tolist())) == 1
    separate = [without_fold(whole, 0, 2, seed).splits[rows[::3]].tolist() for seed in range(4)]
    assert any(len(set(splits)) == 2 for splits in separate)


def test_a_folder_of_folds_is_no_run_and_no_place_for_one(trained):
    for refuse in (runs_of, checkpoint_of):
        with pytest.raises(CheckpointError, match=r"a run for each fold of train; name one of them, such as .*fold-0"):
            refuse(trained)
    with pytest.raises(CheckpointError, match="runs of several folds"):
        check_free(trained)


def test_a_run_of_folds_that_is_stopped_in_the_middle_goes_on(trained, place, agnet, monkeypatch):
    """After the first epoch of the second fold."""
    whole, run = fitting.fit, place / "stopped"
    words = ["train", "--boxes", place / "boxes.h5", "--root", place / "images", "--run", run, *OPTIONS]

    def stopping(job, *others):
        if job.fold == 0:
            return whole(job, *others)
        whole(replace(job, stop_after=1), *others)
        raise KeyboardInterrupt

    monkeypatch.setattr("agnet.training.loop.fit.fit", stopping)
    assert "--resume continues" in agnet(*words, code=130).output
    monkeypatch.setattr("agnet.training.loop.fit.fit", whole)
    assert not (run / "predictions-train-fold.csv").exists()
    agnet(*words, "--resume")
    name = "predictions-train-fold.safetensors"
    assert (run / name).read_bytes() == (trained / name).read_bytes()
    for fold in range(FOLDS):
        assert log_of(run / f"fold-{fold}") == log_of(trained / f"fold-{fold}")
    assert "with folds = 2, now it is 3" in agnet(*words, "--resume", "--folds", 3, code=1).output


def log_of(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]


def test_weights_that_have_seen_the_fold_are_refused(trained, place, agnet):
    words = ["train", "--boxes", place / "boxes.h5", "--root", place / "images", "--run", place / "second", *OPTIONS]
    words[words.index("none")] = trained / "fold-1"  # which has seen fold 0
    assert "of the fold that is left out; use other --weights" in agnet(*words, code=1).output
    assert not (place / "second").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--folds", 1], "--folds: wanted 0, or 2 or more, got 1"),
        (["--folds", 2, "--seeds", 0, 1], "--folds and --seeds exclude each other"),
    ],
)
def test_folds_that_make_no_sense_are_usage_errors(words, complaint, agnet):
    assert complaint in agnet("train", *words, code=2).output


def test_more_folds_than_images_of_a_class_are_refused_before_anything_is_written(trained, agnet):
    place = trained.parent
    words = ["train", "--boxes", place / "boxes.h5", "--root", place / "images", "--run", place / "many", *OPTIONS]
    words[words.index("--folds") + 1] = 99
    said = agnet(*words, code=1).stderr
    assert said == "Error: train has too few images (or groups) of each class for 99 folds: at most 3 are possible\n"
    assert not (place / "many").exists()


def test_only_the_left_out_scores_of_a_fold_count(trained, tmp_path):
    found = out_of_sample([trained])
    assert len(found.names) == 9 and found.left_out == 0 and (found.answers >= 0).all() and len(found.runs) == 1
    mixed = shutil.copytree(trained, tmp_path / "mixed")
    shutil.copy(trained / "fold-0" / "seen.txt", mixed / "fold-1" / "seen.txt")  # as if fold 1 had seen its images
    left = len(rows_of(trained / "fold-0" / "predictions-train-fold.csv"))
    judged = out_of_sample([mixed])
    assert len(judged.names) == left and judged.left_out == 9 - left
    (mixed / "fold-1" / "seen.txt").unlink()
    with pytest.raises(MismatchError, match="no record of the images"):
        out_of_sample([mixed])
