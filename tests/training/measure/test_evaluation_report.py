"""An evaluation as text, CSV and pictures: legible for two classes and for 256, whatever they are called."""

import csv
import io

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from agnet.data import fonts
from agnet.data.text import table
from agnet.training.measure.claims import Claim
from agnet.training.measure.evaluation_plots import draw_calibration, draw_confusion
from agnet.training.measure.evaluation_report import confusions, metrics_csv, metrics_text, seeds_csv, seeds_text
from agnet.training.measure.metrics import MEASURES, measure
from agnet.training.measure.statistics import spread
from agnet.training.runs.plot_texts import cannot_label, class_labels, inches_of, line

pytestmark = pytest.mark.pictures


def measured(classes, images=6, seed=0):
    """Of classes in whose last there are no images."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(classes) - 1), images)
    logits = generator.normal(size=(len(labels), len(classes))) * 2
    logits[np.arange(len(labels)), labels] += 4
    return measure(logits, labels, classes)


@pytest.fixture
def three():
    """Class a: 2 of 3 right, one taken for b; b: 0 of 1, taken for c; none of c."""
    logits = np.array([[2.0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2]])
    return measure(logits, np.array([0, 0, 0, 1]), ["a", "b", "c"])


def test_the_classes_as_csv_by_hand(three):
    header, *rows = csv.reader(io.StringIO(metrics_csv(three)))
    assert header[:4] == ["class", "images", "accuracy", "average_precision"]
    assert [row[:3] for row in rows] == [["a", "3", "0.666667"], ["b", "1", "0"], ["c", "0", ""]]
    assert [row[4:6] for row in rows] == [["b", "1"], ["c", "1"], ["", ""]]


def test_the_confusions_by_hand(three):
    assert sorted(confusions(three)) == [("a", "b", "1 of 3"), ("b", "c", "1 of 1")]


def test_the_text_says_every_measure_and_leaves_out_empty_classes(three):
    text = metrics_text(three, None)
    assert all(title in text for title in MEASURES.values()) and "50.00%" in text and "claim" not in text
    assert "a  " in text and "\nc " not in text


def test_the_claim_stands_in_a_column_of_its_own(three):
    lines = metrics_text(three, Claim("AG-Net with its best backbone", 0.9783, 0.9621)).splitlines()
    assert lines[0].endswith("the paper's claim")
    assert [line.endswith("97.83%") for line in lines[1:3]] == [True, False]
    assert next(line for line in lines if line.startswith("mAP")).endswith("96.21%")
    assert any("AG-Net with its best backbone" in line for line in lines)


def test_of_many_classes_the_worst_are_shown():
    metrics = measured([f"class {k:03}" for k in range(101)])
    text = metrics_text(metrics, None)
    accuracies = [value for value in metrics.class_accuracy.values() if value is not None]
    shown = [line.split()[3] for line in text.split("the 10 worst of 100")[1].splitlines()[1:]]
    assert shown == [f"{value:.1%}" for value in sorted(accuracies)[:10]] and len(text.splitlines()) < 40


def test_several_seeds_as_text_and_csv():
    runs = [measured(["a", "b", "c"], seed=seed) for seed in range(3)]
    spreads = {name: spread([getattr(run, name) for run in runs]) for name in MEASURES}
    text = seeds_text({f"seed-{k}": run for k, run in enumerate(runs)}, spreads, None)
    top1 = [run.top1 for run in runs]
    line = next(line for line in text.splitlines() if line.startswith("top-1"))
    assert f"{100 * np.mean(top1):.2f} ± {100 * np.std(top1, ddof=1):.2f}%" in line
    assert all(f"{100 * value:.2f}%" in line for value in top1)
    rows = list(csv.reader(io.StringIO(seeds_csv(runs))))
    assert float(rows[1][2]) == pytest.approx(np.mean([run.class_accuracy["a"] for run in runs]), abs=1e-5)
    assert rows[3] == ["c", "0", "", "", "", ""]
    assert list(csv.reader(io.StringIO(seeds_csv(runs[:1]))))[1][3] == ""


def test_columns_stand_below_each_other_in_any_script():
    lines = table([["空空", "1"], ["ab", "10"], ["e\u0301", "2"]])
    assert lines == ["空空   1", "ab    10", "e\u0301      2"]


@pytest.mark.parametrize("classes", [2, 40, 121])
def test_pictures_of_any_number_of_classes(classes, tmp_path):
    metrics = measured([f"class {k}" for k in range(classes)], images=2)
    for draw in (draw_confusion, draw_calibration):
        with Image.open(draw(metrics, tmp_path / "picture.png")) as picture:
            assert picture.format == "PNG" and min(picture.size) > 300 and max(picture.size) < 8000
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


@pytest.fixture
def no_other_fonts(monkeypatch, tmp_path):
    """This machine has matplotlib's own fonts alone."""
    found = (fonts._files, fonts._face_with, fonts._typeset)
    monkeypatch.setattr(fonts, "_folders", lambda: [tmp_path / "none"])
    for function in found:
        function.cache_clear()
    yield
    for function in found:
        function.cache_clear()


@pytest.mark.usefixtures("no_other_fonts")
def test_names_that_fonts_lack_or_that_look_like_formulas_are_drawn(tmp_path):
    """A letter without a glyph would be a warning, which tests take for an error, and an empty frame to people."""
    names = ["$x_1$", "ёж", "côté", "\U00013080\U00013081", "a" * 300, "b$"]
    drawn, family = class_labels(names, 9)
    assert drawn[:4] == ["$x_1$", "ёж", "côté", "class 3"]
    assert inches_of(drawn[4], family, 9) <= 2.6 < inches_of(drawn[4] + "aa", family, 9)
    assert "Egyptian" in cannot_label(names) and "number" in cannot_label(names) and cannot_label(names[:3]) == ""
    draw_confusion(measured(names), tmp_path / "picture.png", "犬 $a_1$ " + "long " * 90)
    draw_calibration(measured(names), tmp_path / "picture.png", "犬 $a_1$ ")
    assert line("犬 a", 11, 9)[0] == "? a"
    with Image.open(draw_confusion(measured(names), tmp_path / "picture.png", "long " * 90)) as picture:
        assert max(picture.size) < 1200


def test_a_width_is_measured_as_it_is_drawn():
    """Against the ink of a figure, whose first and last letters have next to no margins."""
    for text in ("iiiiiiii", "WWWW", "кошка", "H a name of several words H"):
        figure = Figure(figsize=(5, 1), dpi=120)
        canvas = FigureCanvasAgg(figure)
        figure.text(0.1, 0.5, text, fontsize=9, parse_math=False)
        canvas.draw()
        columns = np.flatnonzero((np.asarray(canvas.buffer_rgba())[..., 0] < 128).any(axis=0))
        assert inches_of(text, ["DejaVu Sans"], 9) == pytest.approx((np.ptp(columns) + 1) / 120, abs=0.04)


def test_long_names_that_differ_in_their_middles_stay_apart():
    names = ["x" * 50 + letter + "x" * 50 for letter in "ab"] + ["c"]
    drawn, family = class_labels(names, 9)
    assert drawn[2] == "c" and len(set(drawn)) == 3 and drawn[1].startswith("1: x") and drawn[0].endswith("x")
    assert max(inches_of(name, family, 9) for name in drawn) <= 2.6


def test_the_data_sets_own_name_is_the_title(tmp_path, monkeypatch):
    titles, set_title = [], Axes.set_title
    monkeypatch.setattr(Axes, "set_title", lambda axes, title, **how: titles.append(title) or set_title(axes, title))
    for draw in (draw_confusion, draw_calibration):
        draw(measured(["a", "b", "c"]), tmp_path / "picture.png", "my beetles")
    assert all(title.startswith("my beetles\n") for title in titles) and len(titles) == 2


def test_the_confusion_matrix_is_drawn_true_by_row(tmp_path):
    """All of class a taken for b: the only dark cell is in the first row, second column."""
    metrics = measure(np.array([[0.0, 9]] * 4), np.array([0] * 4), ["a", "b"])
    pixels = np.asarray(Image.open(draw_confusion(metrics, tmp_path / "picture.png")).convert("RGB")).astype(int)
    dark = np.argwhere((pixels[..., 2] > 90) & (pixels[..., 0] < 40))  # Blues' end
    cells = np.argwhere((pixels[..., 0] > 240) & (pixels[..., 0] < 250) & (pixels[..., 2] == 255))  # its beginning
    matrix = cells[cells[:, 1] < dark[:, 1].max() + 5]
    assert dark[:, 0].max() < np.median(matrix[:, 0]) + 60 and dark[:, 1].min() > matrix[:, 1].min() + 50
