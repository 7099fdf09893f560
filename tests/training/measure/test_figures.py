"""Figures of papers: their numbers against hand-made runs and other programs', and what is drawn."""

import csv
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from scipy import stats
from sklearn.metrics import average_precision_score

from agnet.data import palette
from agnet.data.contents import hash_of
from agnet.data.errors import ConfigurationError, DatasetError, MismatchError
from agnet.data.picture_rows import PictureRows, Row, Tile
from agnet.training.measure.figure_plots import draw_classes, draw_regions_plot
from agnet.training.measure.figures import ACCURACY, PRECISION, class_figure, load_evaluated, names_of, regions_figure
from agnet.training.measure.predictions import SplitPredictions, save_predictions
from agnet.training.measure.worst_classes import pictures_of, worst_classes
from agnet.training.models.registry import ModelSettings, record_of
from agnet.training.runs.folder import retitle
from agnet.training.runs.picture_plots import draw_pictures

LABELS = np.repeat([0, 1, 2], [8, 4, 4])
NAMES = ("ant", "bee", "côté")


def predictions(labels, answers, classes=NAMES, seed=0, **changes):
    """Of images with these answers: a score of 6 for the answer, and noise."""
    logits = np.random.default_rng(seed).normal(0, 0.5, (len(labels), len(classes))).astype(np.float32)
    logits[np.arange(len(labels)), answers] += 6
    about = {
        "names": tuple(f"{k}.png" for k in range(len(labels))),
        "contents": tuple(f"{k:016x}" for k in range(len(labels))),
    }
    same = {"split": "test", "dataset": "folder", "network": "0", "image_size": 224, "images_seen_in_training": 0}
    return SplitPredictions(
        labels=np.asarray(labels, np.int64), logits=logits, classes=classes, **same, **about | changes
    )


@pytest.fixture
def write(tmp_path):
    """Write a run with predictions for test; returns its folder."""

    def run(name, found, seed=0, primary=None, kinds="both", regions=0):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        config = {"model": {"model": "plain"}, "recipe": {}, "run": {"seed": seed}, "boxes": {}, "versions": {}}
        (folder / "config.json").write_text(json.dumps(config))
        if primary is not None:
            header = {
                **{"format": "agnet checkpoint", "format_version": 1, "classes": NAMES, "epoch": 1, "val_top1": None},
                **{"model": record_of(ModelSettings(3, regions, "agnet" if regions else "plain"))},
                **{"proposals": {"primary": primary, "kinds": kinds}, "boxes_fingerprint": ""},
            }
            best = folder / "best.safetensors"
            save_file({}, best, metadata={"agnet": json.dumps(header)})
            found = SplitPredictions(**vars(found) | {"network": hash_of(best)})
        save_predictions(folder / "predictions-test.safetensors", found)
        return folder

    return run


def with_errors(*wrong):
    """Answers for `LABELS`: the images with these numbers are taken for the next class."""
    answers = LABELS.copy()
    answers[list(wrong)] = (answers[list(wrong)] + 1) % 3
    return answers


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_accuracy_by_class_is_wilsons_for_one_run_and_has_an_sd_for_seeds(write):
    one = write("plain", predictions(LABELS, with_errors(0, 1, 2, 8)))
    for seed, wrong in enumerate([(0,), (0, 1, 2), (0, 1)]):
        write(f"agnet/seed-{seed}", predictions(LABELS, with_errors(*wrong), seed=seed), seed)
    found = class_figure(load_evaluated([one, one.parent / "agnet"], ["A", "B"], "test"), ACCURACY)
    rows = {(row["class"], row["run"]): row for row in rows_of(found.csv())}
    # The best class of the last run first, ties in the order of the classes.
    assert [row["class"] for row in rows_of(found.csv())][::2] == ["bee", "côté", "ant"]
    wilson = stats.binomtest(5, 8).proportion_ci(method="wilson")
    plain, agnet = rows["ant", "A"], rows["ant", "B"]
    assert [float(plain[name]) for name in ("accuracy", "low", "high")] == pytest.approx([5 / 8, *wilson], abs=1e-5)
    assert (plain["images"], plain["seeds"], plain["accuracy_sd"], agnet["seeds"]) == ("8", "1", "", "3")
    assert float(agnet["accuracy"]) == pytest.approx(6 / 8) and float(agnet["accuracy_sd"]) == pytest.approx(1 / 8)
    assert float(agnet["low"]) < 0.6 and float(agnet["high"]) > 0.85
    # 62.5, 75 and 100 % of A, 75, 100 and 100 % of B.
    assert "16 images of 3 classes (4 to 8 a class); A (1 seed) mean class accuracy 79.2% (95% " in found.caption
    assert "B (3 seeds) mean class accuracy 91.7 ± 4.2%" in found.caption and "\n" not in found.caption
    assert "B minus A +12.5 points in mean class accuracy (95% " in found.caption


def test_average_precision_is_that_of_scikit_learn_and_its_interval_is_never_a_point(write):
    generator = np.random.default_rng(1)
    found = predictions(LABELS, generator.integers(0, 3, 16), seed=4)
    perfect = predictions(LABELS, LABELS)
    evaluated = load_evaluated([write("a", found), write("b", perfect)], [], "test")
    figure = class_figure(evaluated, PRECISION)
    probabilities = found.scores().probabilities
    for row in rows_of(figure.csv()):
        k, value, low, high = NAMES.index(row["class"]), *(float(row[n]) for n in ("average_precision", "low", "high"))
        if row["run"] == "a":
            assert value == pytest.approx(average_precision_score(k == LABELS, probabilities[:, k]), abs=1e-5)
        else:
            wilson = stats.binomtest(int(row["images"]), int(row["images"])).proportion_ci(method="wilson")
            assert (value, low, high) == pytest.approx((1, wilson.low, 1), abs=1e-5)
        assert 0 <= low < value <= high <= 1


@pytest.mark.parametrize("classes", [3, 32])
def test_every_class_and_network_is_named_in_the_plot(write, tmp_path, monkeypatch, classes):
    """Columns of classes, long and mathematical names."""
    monkeypatch.setitem(palette.STYLE, "svg.fonttype", "none")
    names = ["a $b_1$ & <c>", "é" * 90, *(f"class {k}" for k in range(classes - 2))]
    labels = np.repeat(np.arange(classes), 2)
    runs = [write(name, predictions(labels, labels // seed, tuple(names))) for seed, name in ((1, "$one$"), (2, "two"))]
    found = class_figure(load_evaluated(runs, [], "test"), ACCURACY)
    text = draw_classes(found, tmp_path / "plot.svg").read_text()
    written = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    for name in ["a $b_1$ &amp; &lt;c&gt;", *names[2:]]:
        assert written.count(name) == 1, name
    assert any(re.fullmatch("é+…é+", one) for one in written)
    assert sum(one.startswith(("$one$: mean 100.0% (95% ", "two: mean ")) for one in written) == 2


def test_worst_classes_are_counted_and_shown_by_their_surest_mistakes(write, tmp_path):
    answers = with_errors(8, 9, 10, 0)  # three bees are taken for côté, an ant for a bee
    found = predictions(LABELS, answers)
    logits = found.logits.copy()
    logits[9] *= 2  # the surest
    contents = []
    for k, name in enumerate(found.names):
        Image.new("RGB", (30 + k, 20), (k * 9, 0, 0)).save(tmp_path / name)
        contents.append(hash_of(tmp_path / name))
    found = SplitPredictions(**vars(found) | {"logits": logits, "contents": tuple(contents)})
    evaluated = load_evaluated([write("run", found)], [], "test")
    worst = worst_classes(evaluated, 5)
    assert [one.value.name for one in worst.classes] == ["bee", "ant"]  # all of côté are right
    assert [one.taken_for for one in worst.classes] == [[("côté", 0.75)], [("bee", 0.125)]]
    assert worst.classes[0].mistakes[0].number == 9 and {8, 10} == {one.number for one in worst.classes[0].mistakes[1:]}
    assert LABELS[worst.classes[0].other.number] == 2
    pictures = pictures_of(worst, evaluated.runs[0].predictions[0], tmp_path)
    first, last = pictures.rows[0].tiles[0], pictures.rows[1].tiles[-1]
    assert first.picture.shape == (20, 39, 3) and (first.lines[0], first.right) == ("côté", False)
    assert (last.lines[0], last.right) == ("bee", True) and pictures.rows[1].tiles[1] is None
    assert pictures.rows[0].lines[:2] == ("bee", "25% of 4 right")
    assert rows_of(worst.csv())[0]["share_of_images"] == "0.75"
    with pytest.raises(DatasetError, match="say with --root where the images are"):
        pictures_of(worst, evaluated.runs[0].predictions[0], tmp_path / "elsewhere")
    Image.new("RGB", (9, 9)).save(tmp_path / "9.png")
    with pytest.raises(MismatchError, match="has changed since it was evaluated"):
        pictures_of(worst, evaluated.runs[0].predictions[0], tmp_path)


def test_without_mistakes_there_are_no_worst_classes(write):
    evaluated = load_evaluated([write("run", predictions(LABELS, LABELS))], [], "test")
    with pytest.raises(ConfigurationError, match="nothing to show"):
        worst_classes(evaluated, 5)


def test_regions_are_read_from_the_checkpoints(write, tmp_path):
    right = predictions(LABELS, with_errors(0))
    runs = [
        write("c", right, primary=10, regions=36),  # no room for all 45 pairs (Table VIII)
        write("a", right, primary=4, regions=10),
        write("p", predictions(LABELS, with_errors(0, 1)), primary=8),
        write("b", right, primary=8, kinds="primary", regions=8),
    ]
    found = regions_figure(load_evaluated(runs, [], "test"))
    assert [(one.name, one.formula, one.regions) for one in found.points] == [
        *(("p", "0 + 0", 0), ("b", "8 + 0", 8), ("a", "4 + 6", 10), ("c", "10 + 26", 36)),
    ]
    assert [float(row["top-1"]) for row in rows_of(found.csv())] == pytest.approx([14 / 16, *[15 / 16] * 3])
    assert "none (p): 87.5% (95% " in found.caption and "10 + 26: 93.8% (95% " in found.caption
    svg = draw_regions_plot(found, tmp_path / "regions.svg")
    assert svg.read_text().rstrip().endswith("</svg>")
    same = write("d", right, primary=4, regions=10)
    with pytest.raises(ConfigurationError, match=r"a and d both have 4 \+ 6 regions"):
        regions_figure(load_evaluated([runs[1], same], [], "test"))
    for few in ([runs[0]], [runs[0], runs[2]]):
        with pytest.raises(ConfigurationError, match="needs two or more runs with different regions"):
            regions_figure(load_evaluated(few, [], "test"))


def test_a_name_for_each_run_or_for_none(write):
    run = write("run", predictions(LABELS, LABELS))
    with pytest.raises(ConfigurationError, match="2 names for 1 runs"):
        load_evaluated([run], ["a", "b"], "test")


def test_runs_are_named_by_titles_then_folders_then_paths(write):
    one, two = write("x/a", predictions(LABELS, LABELS)), write("x/b", predictions(LABELS, LABELS))
    assert names_of([one, two]) == ["a", "b"] and names_of([one, one]) == [str(one)] * 2
    retitle(one, "The first")
    assert names_of([one, two]) == ["a", "b"]
    retitle(two, "The second")
    assert names_of([one, two]) == ["The first", "The second"]


def test_rows_of_pictures_keep_their_proportions_and_have_the_same_bytes_twice(tmp_path):
    wide, tall = np.full((10, 40, 3), (255, 0, 0), np.uint8), np.full((40, 10, 3), (0, 0, 255), np.uint8)
    rows = PictureRows([Row([Tile(wide, ("a $x_1$",), True), None, Tile(tall)], ("名前", "second"))], {0: "title"})
    pixels = np.asarray(Image.open(draw_pictures(rows, tmp_path / "rows.png")).convert("RGB")).astype(int)
    for colour, ratio in (((255, 0, 0), 4), ((0, 0, 255), 1 / 4)):
        ys, xs = np.nonzero((np.abs(pixels - colour) < 9).all(axis=2))
        assert np.ptp(xs) / np.ptp(ys) == pytest.approx(ratio, rel=0.05)
    one, two = (draw_pictures(rows, tmp_path / f"{name}.svg").read_bytes() for name in ("one", "two"))
    assert one == two
