"""Videos measured by their frames, against loops over all frames; each video once, whatever its windows."""

import csv
import json
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from agnet.data.clips import open_clip
from agnet.data.errors import CheckpointError, ConfigurationError, ImageError, MismatchError
from agnet.data.sampling import Sampling
from agnet.training.aggregates import Aggregate
from agnet.training.loop.engine import evaluate
from agnet.training.measure.compare import compare_runs
from agnet.training.measure.compare_report import comparison_csv, comparison_markdown, comparison_text
from agnet.training.measure.embeddings import KeptEmbeddings
from agnet.training.measure.evaluation import evaluate_run
from agnet.training.measure.evaluation_report import metrics_csv, metrics_text, seeds_csv, seeds_text
from agnet.training.measure.predictions import load_predictions, save_predictions
from agnet.training.measure.seeds import summarise_evaluations
from agnet.training.measure.videos import VideoScores, measure_clips
from agnet.training.models.build import build_model
from agnet.training.models.contract import Output
from agnet.training.models.model import Model
from agnet.training.models.registry import ModelSettings
from agnet.training.runs.checkpoints import Checkpoint, save_checkpoint
from agnet.training.samples.loader import Batch
from agnet.training.samples.views import View
from factories import CPU

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

RULES = [Aggregate(), Aggregate("mode"), Aggregate("last", 3)]


def by_hand(logits, rule):
    """Scores of a video from the logits of all its frames, a frame at a time."""
    shares = [np.exp(row) / sum(np.exp(row)) for row in np.asarray(logits, dtype=np.float64)]
    mean = sum(shares) / len(shares)
    if rule.rule == "last":
        shown = shares[-rule.last :]
        return sum(shown) / len(shown)
    if rule.rule == "mean-prob":
        return mean
    votes = Counter(max(range(len(row)), key=lambda k: (row[k], -k)) for row in logits.tolist())
    winner = min(votes, key=lambda k: (-votes[k], k))
    return np.array([(votes[k] + 0.5 * mean[k] + 0.5 * (k == winner)) / (len(shares) + 1) for k in range(len(mean))])


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_video_has_the_scores_of_a_loop_over_its_frames(rule):
    generator = np.random.default_rng(1)
    for frames in (1, 2, 3, 7, 30):
        logits = generator.normal(size=(frames, 5)).astype(np.float32) * 2
        found = np.exp(rule.scores(logits).astype(np.float64))
        np.testing.assert_allclose(found, by_hand(logits, rule), rtol=1e-5)
        assert found.sum() == pytest.approx(1)


def test_the_most_frequent_winner_is_first_and_ties_go_to_the_earlier_class():
    sure, unsure = 9.0, 0.5
    logits = np.zeros((5, 4), np.float32)
    logits[[0, 1], 1] = unsure  # two votes for class 1
    logits[[2, 3], 2] = sure  # two votes for class 2, which is far more probable
    logits[4, 3] = sure
    found = Aggregate("mode").scores(logits)
    assert np.argsort(-found).tolist() == [1, 2, 3, 0]
    assert np.argsort(-Aggregate().scores(logits))[0] == 2
    extreme = np.array([[1e4, 0, -1e4]], np.float32)
    assert all(np.isfinite(rule.scores(extreme)).all() for rule in RULES)


@pytest.mark.parametrize("text", ["mean", "last", "last:0", "last:-1", "last:1.5", "MODE", "last:1e3", ""])
def test_other_rules_are_refused(text):
    with pytest.raises(ConfigurationError, match=r"wanted mean-prob, mode, or last:N"):
        Aggregate.parse(text)


def test_rules_are_read_as_they_are_written():
    assert [Aggregate.parse(str(rule)) for rule in RULES] == RULES
    assert [rule.part for rule in RULES] == ["", "-mode", "-last-3"]


class Colours(Model):
    """The mean colour of a frame as its logits, or the mean of the valid frames as those of the clip."""

    inputs = ("frames", "valid")

    def __init__(self, by_frame=True):
        super().__init__()
        self.by_frame = by_frame

    def forward(self, frames, valid):
        logits = frames.float().mean(dim=(3, 4)) / 40
        if self.by_frame:
            return Output(logits)
        return Output(torch.where(valid[..., None], logits, 0).sum(dim=1) / valid.sum(dim=1)[:, None])


WINDOWS = {7: [4, 4, 1], 2: [3], 9: [4, 2], 5: [4]}  # real frames of the windows of each row
LABELS = {7: 1, 2: 0, 9: 2, 5: 1}


def windows(batch_size, noise=0):
    """Batches of these windows, one after the other, with noise in padding; and every real frame of each row."""
    generator = torch.Generator().manual_seed(0)
    flat = [(row, count) for row, counts in WINDOWS.items() for count in counts]
    frames = torch.randint(0, 256, (len(flat), 4, 3, 6, 6), dtype=torch.uint8, generator=generator)
    frames = (frames.float() * torch.rand(len(flat), 4, 3, 1, 1, generator=generator)).byte()
    rows, counts = (torch.tensor(column) for column in zip(*flat, strict=True))
    valid = torch.arange(4) < counts[:, None]
    other = torch.randint(0, 256, frames.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(noise))
    frames = torch.where(valid[..., None, None, None], frames, other)
    whole = Batch(frames, valid, None, torch.tensor([LABELS[row] for row in rows.tolist()]), rows)
    real = {row: [frames[k][valid[k]] for k in range(len(flat)) if rows[k] == row] for row in WINDOWS}
    return [whole.cut(slice(at, at + batch_size)) for at in range(0, len(flat), batch_size)], real


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("by_frame", [True, False])
def test_each_video_counts_once_whatever_its_windows_batches_and_padding(rule, by_frame):
    results = []
    for batch_size, noise in ((1, 1), (3, 2), (99, 3)):
        videos = VideoScores(rule)
        batches, real = windows(batch_size, noise)
        evaluate(Colours(by_frame), batches, device=CPU, on_frames=videos.add)
        results.append(videos.videos())
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)
    found = results[0]
    assert found.rows.tolist() == list(WINDOWS) and found.labels.tolist() == list(LABELS.values())
    for scores, counts, row in zip(found.logits, found.counts, WINDOWS, strict=True):
        clips, clips_right, frames, frames_right = counts
        each = [(clip.float().mean(dim=(2, 3)) / 40).numpy() for clip in real[row]]
        if not by_frame:
            each = [np.repeat(clip.mean(axis=0, keepdims=True), len(clip), axis=0) for clip in each]
        np.testing.assert_allclose(np.exp(scores), by_hand(np.concatenate(each), rule), rtol=1e-4)
        assert (clips, frames) == (len(WINDOWS[row]), sum(WINDOWS[row]))
        assert clips_right == sum(by_hand(clip, rule).argmax() == LABELS[row] for clip in each)
        right = sum(logits.argmax() == LABELS[row] for clip in each for logits in clip)
        assert frames_right == (right if by_frame else -1)


def test_frame_and_clip_accuracy_by_hand_and_their_intervals_are_over_videos():
    counts = np.array([[2, 1, 8, 6], [1, 0, 2, 0], [3, 3, 10, 9], [1, 1, 4, 3]] * 10)
    found = measure_clips(counts, 0.75, Aggregate("mode"), Sampling(4, "window", 10))
    assert (found.videos, found.clips, found.frames) == (40, 70, 240)
    assert found.clip_accuracy == pytest.approx(5 / 7) and found.frame_accuracy == pytest.approx(18 / 24)
    # Wilson's, of 40 videos; the 240 frames would make it 0.69 to 0.80.
    wilson = binomtest(30, 40).proportion_ci(method="wilson")
    interval = found.intervals["frame_accuracy"]
    assert (interval.low, interval.high) == pytest.approx((wilson.low, wilson.high), abs=1e-6)
    assert "each of 40 videos once, by mode" in found.notes[0] and "each of 240 frames" in found.notes[2]
    # Where long videos are alike and others not, the variance of a ratio, by linearisation over videos, is larger.
    counts = np.array([[9, 9, 90, 90], [9, 0, 90, 0], [1, 0, 2, 1], [1, 1, 2, 1]] * 10)
    right, of = counts[:, 3], counts[:, 2]
    half = 1.96 * np.sqrt(np.mean((right - of / 2) ** 2) / 40) / of.mean()
    interval = measure_clips(counts, 0.5, Aggregate(), Sampling(4, "window", 10)).intervals["frame_accuracy"]
    assert (interval.low, interval.high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.02) and half > 0.2
    counts = np.array([[1, 1, 4, 4]] * 40)
    all_right = measure_clips(counts, 1.0, Aggregate(), Sampling(4))
    assert all_right.intervals["frame_accuracy"].low == pytest.approx(40 / (40 + 1.96**2), abs=1e-3)  # Wilson's
    single = measure_clips(np.array([[1, 1, 4, -1]] * 3), 1.0, Aggregate(), Sampling(4))
    assert single.values == {} and single.frame_accuracy is None
    assert "clip accuracy is video accuracy" in single.notes[1] and "answers once for a clip" in single.notes[2]


def test_the_embedding_of_a_video_is_the_direction_of_the_mean_of_its_clips():
    """Clips 2 and 3 are of one video: (0.6, 0.8) + (0.8, 0.6) = 1.4 · (1, 1)."""
    kept = KeptEmbeddings(most=2)
    kept.add(np.array([[1, 0], [0.6, 0.8]], dtype=np.float32), np.array([4, 2]))
    kept.add(np.array([[0.8, 0.6], [0, -1]], dtype=np.float32), np.array([2, 7]))
    np.testing.assert_allclose(kept.vectors(), [[1, 0], [0.5**0.5, 0.5**0.5], [0, -1]], atol=1e-3)
    longer = KeptEmbeddings(most=1)
    longer.add(np.ones((1, 2), dtype=np.float32), np.array([0]))
    assert longer.vectors() is None and longer.left_out == 2


TITLE = "HMDB-51, protocol tutorial: test clips leak"
SETTINGS = ModelSettings(classes=3, regions=0, backbone="mobilenet-v3-small", model="plain")
WINDOW = Sampling(4, "window", 10)


@pytest.fixture(scope="module")
def boxes(clip_boxes):
    return replace(clip_boxes, attributes={**clip_boxes.attributes, "title": TITLE})


def write_run(run, boxes, seed=0, sampling=WINDOW):
    """Write a run with random weights; returns its network."""
    torch.manual_seed(seed)
    model = build_model(SETTINGS).eval()
    model.size_hw = (32, 40)
    torch.nn.init.normal_(model.classifier.weight)
    run.mkdir(parents=True)
    config = {"model": {"model": "plain"}, "recipe": {}, "run": {"seed": seed}, "boxes": {}, "versions": {}}
    (run / "config.json").write_text(json.dumps(config))
    checkpoint = Checkpoint(
        model=model,
        settings=SETTINGS,
        classes=boxes.classes,
        proposals={},
        fingerprint=boxes.fingerprint,
        epoch=1,
        val_top1=0.5,
        sampling=sampling,
    )
    save_checkpoint(run / "best.safetensors", checkpoint)
    return model


def measured(run, boxes, root, **options):
    """Without the check of the files, which the fixture's boxes file knows nothing of."""
    options = {"images_checked": True, "watch": lambda what, images: lambda *_: None, **options}
    return evaluate_run(run, boxes, root, "test", 5, CPU, 0, **options)


@pytest.fixture(scope="module")
def runs(boxes, clip_folder, tmp_path_factory, one_thread):
    """Evaluations by (run, rule) of two runs by windows and one by segments, the folder of the runs, the first run's
    network, and the titles of all plots, which are not drawn.
    """
    root, found, titles = tmp_path_factory.mktemp("runs"), {}, []
    model = write_run(root / "seed-0", boxes)
    write_run(root / "seed-1", boxes, 1)
    write_run(root / "segments", boxes, 2, Sampling(3))
    rules = [("seed-0", RULES), ("seed-1", [RULES[0]]), ("segments", RULES[:2])]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_confusion", "draw_calibration"):
            patch.setattr(f"agnet.training.measure.evaluation_plots.{name}", lambda *given: titles.append(given[2]))
        for name, its_rules in rules:
            for rule in its_rules:
                aggregate = rule if rule != Aggregate() else None
                found[name, str(rule)] = measured(root / name, boxes, clip_folder, aggregate=aggregate)
    assert titles == [TITLE] * 12
    return found, root, model


def test_a_run_on_clips_is_measured_by_all_frames_of_each_video(runs, boxes, clip_folder):
    found, root, model = runs
    found = [found["seed-0", str(rule)] for rule in RULES]
    names = ["metrics-test.json", "metrics-test-mode.json", "metrics-test-last-3.json"]
    assert [evaluation.file.name for evaluation in found] == names
    frames_right = 0
    for number, row in enumerate(boxes.rows("test")):
        with open_clip(clip_folder / boxes.names[row].decode()) as clip:
            pixels = [View.of((64, 48), (32, 40)).pixels(frame.pixels) for frame in clip.chosen(lambda *_: True)]
        with torch.no_grad():
            logits = model(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)).logits.numpy()
        assert len(logits) == 14
        frames_right += (logits.argmax(axis=1) == boxes.labels[row]).sum()
        for rule, evaluation in zip(RULES, found, strict=True):
            scores = np.exp(evaluation.predictions.logits[number])
            np.testing.assert_allclose(scores, by_hand(logits, rule), rtol=1e-3, atol=1e-5)
    content = json.loads(found[0].file.read_text())
    assert (content["images"], content["title"], content["clips"]["aggregate"]) == (3, TITLE, "mean-prob")
    assert (content["clips"]["clips"], content["clips"]["frames"]) == (12, 42)
    assert content["clips"]["frame_accuracy"] == pytest.approx(frames_right / 42)
    assert content["clips"]["video_accuracy"] == content["top1"]
    with (root / "seed-0" / "predictions-test.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header[7:12] == ["clips", "clips_right", "frames", "frames_right", "data_set"]
    assert [line[7] for line in lines] == ["4"] * 3 and sum(int(line[10]) for line in lines) == frames_right
    assert {line[11] for line in lines} == {TITLE}
    assert header[12:15] == ["row", "label", "top5"] and [line[12] for line in lines] == [
        str(boxes.usable[row]) for row in boxes.rows("test")
    ]
    text = metrics_text(found[1].metrics, None)
    assert "video accuracy (top-1)" in text and "over videos" in text and "images" not in text
    assert "each of 12 clips (a window of 4 frames at 10 a second)" in text and "by mode" in text
    assert metrics_csv(found[0].metrics).startswith("class,videos,video_accuracy,")
    assert found[0].file.with_suffix(".csv").read_text().count(TITLE) == 3  # of each class


def test_with_one_clip_a_video_its_accuracy_is_said_once(runs):
    metrics = runs[0]["segments", "mean-prob"].metrics
    assert "clip_accuracy" not in metrics.clips.values and metrics.clips.clip_accuracy == metrics.top1
    text = metrics_text(metrics, None)
    assert "\nclip accuracy" not in text and "\nframe accuracy" in text and "each video is one clip" in text


def test_seeds_have_mean_and_sd_of_all_three_accuracies(runs, tmp_path):
    found = {name: runs[0][name, "mean-prob"] for name in ("seed-0", "seed-1")}
    seeds = summarise_evaluations(tmp_path, found)
    content = json.loads(seeds.file.read_text())
    assert (content["title"], content["aggregate"]) == (TITLE, "mean-prob")
    for name in ("frame_accuracy", "clip_accuracy"):
        values = [getattr(evaluation.metrics.clips, name) for evaluation in found.values()]
        assert content[name]["values"] == values and content[name]["low"] is None
        assert (content[name]["mean"], content[name]["sd"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    text = seeds_text({name: evaluation.metrics for name, evaluation in found.items()}, seeds.spreads, None)
    assert "frame accuracy" in text and "video accuracy (top-1)" in text and "over videos and seeds" in text
    table = seeds_csv([evaluation.metrics for evaluation in found.values()])
    assert table.startswith("class,videos,video_accuracy_mean")
    assert seeds.file.with_suffix(".csv").read_text().count(TITLE) == 3


def test_runs_are_compared_by_video_and_every_output_has_the_title(runs, tmp_path):
    folders = [shutil.copytree(runs[1] / name, tmp_path / name) for name in ("seed-0", "segments")]
    comparison = compare_runs(folders, "test")
    assert (comparison.images, comparison.dataset, comparison.aggregate) == (3, TITLE, "mean-prob")
    test = comparison.challenges[0].tests[0]
    right = [load_predictions(run / "predictions-test.safetensors").scores().right for run in folders]
    assert test.both_right == int((right[0] * right[1]).sum()) and test.only_first == int((right[0] > right[1]).sum())
    for text in (comparison_text(comparison), comparison_markdown(comparison)):
        assert TITLE in text and "3 videos by mean-prob" in text and "video accuracy (top-1)" in text
        assert "video by video" in text and "images" not in text
    assert comparison_csv(comparison).startswith("class,videos,") and comparison_csv(comparison).count(TITLE) == 3
    by_mode = compare_runs(folders, "test", Aggregate("mode"))
    assert by_mode.aggregate == "mode" and not any("rule" in line for line in by_mode.cautions)
    with pytest.raises(CheckpointError, match=r"no predictions for test by last:2; .* --aggregate last:2"):
        compare_runs(folders, "test", Aggregate("last", 2))
    mixed = replace(load_predictions(folders[0] / "predictions-test.safetensors"), aggregate="last:2")
    save_predictions(folders[0] / "predictions-test.safetensors", mixed)
    (said,) = [line for line in compare_runs(folders, "test").cautions if "rule" in line]
    assert f"last:2 in {folders[0]}" in said and f"mean-prob in {folders[1]}" in said


def test_predictions_of_videos_come_back_and_damaged_counts_are_refused(runs, tmp_path):
    found = runs[0]["seed-0", "mean-prob"].predictions
    path = save_predictions(tmp_path / "p.safetensors", found)
    again, counts = load_predictions(path), found.counts
    assert (again.title, again.aggregate) == (TITLE, "mean-prob")
    np.testing.assert_array_equal(again.counts, counts)
    np.testing.assert_array_equal(again.ordered(np.array([2, 0, 1])).counts, counts[[2, 0, 1]])
    for bad in (counts[:, :3], counts.astype(np.float32), counts * [0, 1, 1, 1], np.add(counts, [0, 99, 0, 0])):
        save_predictions(path, replace(found, counts=bad))
        with pytest.raises(CheckpointError, match="damaged"):
            load_predictions(path)


def test_what_cannot_be_measured_is_refused_by_name(boxes, clip_folder, tmp_path):
    write_run(tmp_path / "images", boxes, sampling=None)
    with pytest.raises(MismatchError, match=r"was trained on images, and .* has clips"):
        measured(tmp_path / "images", boxes, clip_folder)
    write_run(tmp_path / "run", boxes)
    root = shutil.copytree(clip_folder, tmp_path / "clips")
    broken = boxes.names[boxes.rows("test")[1]].decode()
    (root / broken).write_bytes(b"no video")
    with pytest.raises(ImageError, match=broken):
        measured(tmp_path / "run", boxes, root)
