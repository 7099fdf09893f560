"""Runs on the same images: what is said of them, from predictions whose truth is known."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from agnet.data.errors import CheckpointError, MismatchError
from agnet.training.measure.compare import compare_runs
from agnet.training.measure.compare_report import comparison_csv, comparison_markdown, comparison_text
from agnet.training.measure.metrics import MEASURES, measure
from agnet.training.measure.predictions import SplitPredictions, save_predictions

CLASSES = ("ant", "bee", "côté|_*", "空")


def predictions(right, labels=None, seed=0, **changes):
    """Of images that are right or not: scores of 3 for the class a network takes an image for, and noise."""
    right, generator = np.asarray(right, dtype=bool), np.random.default_rng(seed)
    labels = np.arange(len(right)) % 4 if labels is None else np.asarray(labels)
    logits = generator.normal(0, 0.5, (len(right), 4)).astype(np.float32)
    logits[np.arange(len(right)), np.where(right, labels, (labels + 1) % 4)] += 6
    found = SplitPredictions(
        logits=logits,
        labels=labels.astype(np.int64),
        names=tuple(f"test/{k}.jpg" for k in range(len(right))),
        contents=tuple(f"{k:016x}" for k in range(len(right))),
        classes=CLASSES,
        split="test",
        dataset="folder",
        network="0",
        image_size=224,
        images_seen_in_training=0,
    )
    return replace(found, **changes)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a run that predicted so, relative to the folder a test works in; returns its path's name."""
    monkeypatch.chdir(tmp_path)

    def run(name, found, seed=0, split="test", **sections):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        config = {"model": {"model": name}, "recipe": {"epochs": 1}, "run": {"seed": seed}, "boxes": {}, "versions": {}}
        (folder / "config.json").write_text(json.dumps({**config, **sections}))
        (folder / "log.jsonl").write_text("{}\n")
        save_predictions(folder / f"predictions-{split}.safetensors", found)
        return folder.relative_to(tmp_path)

    return run


def answers(only_first, only_second, both, neither):
    """Two networks' rights and wrongs with these four numbers."""
    first = [True] * only_first + [False] * only_second + [True] * both + [False] * neither
    second = [False] * only_first + [True] * only_second + [True] * both + [False] * neither
    return first, second


def test_two_runs_by_hand(write):
    """2 images only the first knows and 9 only the second: McNemar's table in any textbook gives p = 0.0654."""
    first, second = answers(2, 9, 60, 29)
    found = compare_runs([write("plain", predictions(first)), write("agnet", predictions(second))], "test")
    (challenge,) = found.challenges
    (test,) = challenge.tests
    assert (test.both_right, test.only_first, test.only_second, test.both_wrong) == (60, 2, 9, 29)
    assert challenge.p == challenge.p_holm == pytest.approx(stats.binomtest(2, 11).pvalue)
    assert challenge.p == pytest.approx(0.0654, abs=1e-4)
    difference = challenge.differences["top1"]
    assert difference.value == pytest.approx(0.07) and found.images == 100
    # The standard error of a paired difference: sqrt((9 + 2)/100 - 0.07²)/10.
    half = 1.96 * np.sqrt(0.11 - 0.0049) / 10
    assert difference.interval.low == pytest.approx(0.07 - half, abs=0.011)
    assert difference.interval.high == pytest.approx(0.07 + half, abs=0.011)
    assert challenge.verdict.startswith("no significant difference between agnet and plain: +7.0 points in top-1 (95% ")
    assert found.model_differences == ["model is plain in plain, agnet in agnet"] and found.cautions == []
    for contestant, scores in zip(found.contestants, (first, second), strict=True):
        assert contestant.measures["top1"].value == pytest.approx(np.mean(scores))


def test_every_class_has_its_intervals_by_hand(write):
    """Of class 2's 25 images, count who is right; Wilson's interval, and Bonett and Price's of the difference."""
    first, second = answers(30, 5, 45, 20)
    runs = [write("plain", predictions(first)), write("agnet", predictions(second))]
    change = compare_runs(runs, "test").challenges[0].classes[2]
    one, other = np.array(first)[2::4], np.array(second)[2::4]
    for interval, right in ((change.first_interval, one), (change.second_interval, other)):
        expected = stats.binomtest(int(right.sum()), 25).proportion_ci(method="wilson")
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    lost, won = (one & ~other).sum(), (other & ~one).sum()
    middle = (won - lost) / 27
    half = 1.959964 * np.sqrt(((won + lost + 2) / 27 - middle**2) / 27)
    found = change.difference_interval
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half), abs=1e-6) and lost > 5


def test_of_one_class_its_interval_over_seeds_is_that_of_top1(write):
    every = {"labels": np.zeros(60, dtype=int)}
    for name, share in (("plain", 0.6), ("agnet", 0.8)):
        for seed in (0, 1):
            right = np.random.default_rng([seed, len(name)]).random(60) < share
            write(f"{name}/seed-{seed}", predictions(right, seed=seed, **every), seed=seed)
    (challenge,) = compare_runs([Path("plain"), Path("agnet")], "test").challenges
    whole, alone = challenge.differences["top1"].interval, challenge.classes[0].difference_interval
    assert (alone.low, alone.high) == pytest.approx((whole.low, whole.high))


def test_a_clear_difference_is_said_in_a_sentence_and_the_other_way_round_mirrored(write):
    first, second = answers(3, 20, 60, 17)
    runs = [write("plain", predictions(first)), write("agnet", predictions(second, seed=1))]
    (there,), (back,) = (compare_runs(order, "test").challenges for order in (runs, runs[::-1]))
    assert there.verdict.startswith("agnet is better than plain by 17.0 points in top-1 (95% ")
    assert back.verdict == there.verdict.replace("agnet is better than plain", "plain is worse than agnet")
    assert there.p == back.p < 0.001
    for name in MEASURES:
        one, other = there.differences[name], back.differences[name]
        assert one.value == pytest.approx(-other.value)
        assert one.interval.low == pytest.approx(-other.interval.high)
        assert one.interval.high == pytest.approx(-other.interval.low)


def test_networks_that_agree_about_few_images_may_disagree_about_others(write):
    """Twelve images and the same nine right: Bonett and Price add an image each way, of fourteen then."""
    right = np.arange(12) < 9
    write("one", predictions(right))
    other = predictions(right)
    write("other", replace(other, logits=other.logits * np.float32(1.5)))
    (challenge,) = compare_runs([Path("one"), Path("other")], "test").challenges
    half = 1.959964 * (2 / 14 / 14) ** 0.5
    interval = challenge.differences["top1"].interval
    assert (interval.low, interval.high) == (pytest.approx(-half, abs=1e-6), pytest.approx(half, abs=1e-6))
    for difference in challenge.differences.values():
        assert difference.interval.low < difference.value < difference.interval.high or difference.value == 0
    assert challenge.differences["mean_average_precision"].interval.high > 0.1
    assert challenge.tests[0].p == 1 and "no significant difference" in challenge.verdict


def test_seeds_that_agree_about_few_images_do_not_make_sure(write):
    right = np.arange(12) < 9
    for seed in (0, 1):
        write(f"one/seed-{seed}", predictions(right, seed=seed), seed)
        write(f"other/seed-{seed}", predictions(right, seed=seed + 5), seed)
    comparison = compare_runs([Path("one"), Path("other")], "test")
    wilson = stats.binomtest(9, 12).proportion_ci(method="wilson")
    found = comparison.contestants[0].measures["top1"]
    assert found.sd == 0 and (found.interval.low, found.interval.high) == (
        pytest.approx(wilson.low),
        pytest.approx(wilson.high),
    )
    difference = comparison.challenges[0].differences["top1"].interval
    assert difference.low == pytest.approx(-difference.high) and difference.high > 0.1


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_run_against_itself_differs_by_exactly_nothing(write, seeds):
    generator = np.random.default_rng(0)
    for seed in range(seeds):
        write(f"one/seed-{seed}", predictions(generator.random(40) < 0.7, seed=seed), seed)
    (challenge,) = compare_runs([Path("one"), Path("one")], "test").challenges
    assert challenge.p == 1 and "no significant difference" in challenge.verdict
    for difference in challenge.differences.values():
        assert difference.value == 0 and difference.interval.low == pytest.approx(-difference.interval.high)
    assert (challenge.differences["top1"].interval.high == 0) == (seeds == 1)  # other seeds would differ
    assert all(test.only_first == test.only_second == 0 and test.p == 1 for test in challenge.tests)


def test_other_measures_are_those_of_each_network_alone(write):
    first, second = answers(5, 8, 30, 9)
    found = [predictions(first), predictions(second, seed=1)]
    comparison = compare_runs([write("a", found[0]), write("b", found[1])], "test")
    alone = [measure(one.logits, one.labels, CLASSES) for one in found]
    for name in MEASURES:
        values = [getattr(metrics, name) for metrics in alone]
        assert [its.measures[name].value for its in comparison.contestants] == pytest.approx(values)
        assert comparison.contestants[1].measures[name].interval == alone[1].intervals[name]
        assert comparison.challenges[0].differences[name].value == pytest.approx(values[1] - values[0])
    for k, change in enumerate(comparison.challenges[0].classes):
        assert (change.name, change.images) == (CLASSES[k], 13)
        accuracies = [metrics.class_accuracy[CLASSES[k]] for metrics in alone]
        assert [change.first, change.second] == pytest.approx(accuracies)


def test_several_seeds_agree_with_welchs_test_where_images_agree(write):
    """Three seeds of 50 % each against 60, 70 and 65 %, on the same kind of images."""
    base = np.arange(1000) % 10 < 5
    for seed, gain in ((2, 150), (0, 100), (1, 200)):
        better = base.copy()
        better[np.flatnonzero(~base)[:gain]] = True
        write(f"plain/seed-{seed}", predictions(base, seed=seed), seed)
        write(f"agnet/seed-{seed}", predictions(better, seed=seed), seed)
    found = compare_runs([Path("plain"), Path("agnet")], "test")
    (challenge,) = found.challenges
    assert [its.seeds for its in found.contestants] == [[0, 1, 2], [0, 1, 2]]
    assert [(test.first_seed, test.second_seed, test.only_second) for test in challenge.tests] == [
        *((0, 0, 100), (1, 1, 200), (2, 2, 150)),
    ]
    assert found.contestants[1].measures["top1"].by_seed == pytest.approx([0.6, 0.7, 0.65])
    assert found.contestants[1].measures["top1"].sd == pytest.approx(0.05)
    theirs = stats.ttest_1samp([0.1, 0.2, 0.15], 0)  # what Welch's is where one sample does not vary
    interval = challenge.differences["top1"].interval
    # Images add a little variance, and with it degrees of freedom.
    assert 0.01 < challenge.p < theirs.pvalue < 0.05
    assert theirs.confidence_interval().low < interval.low < 0.15 - 1.96 * 0.05 / np.sqrt(3)
    assert challenge.test == "t-test" and challenge.verdict.startswith("agnet is better than plain by 15.0 points")


def test_seeds_of_other_numbers_are_compared_and_those_of_one_number_image_by_image(write):
    right = np.random.default_rng(0).random((5, 200)) < 0.7
    for seed in range(3):
        write(f"a/seed-{seed}", predictions(right[seed]), seed)
    for seed in (2, 7):
        write(f"b/seed-{seed}", predictions(right[seed // 2 + 1]), seed)
    found = compare_runs([Path("a"), Path("b")], "test")
    assert [(test.first_seed, test.second_seed) for test in found.challenges[0].tests] == [(2, 2)]
    one = compare_runs([Path("a/seed-0"), Path("b")], "test")
    assert one.challenges[0].test == "t-test"
    told = f"{Path('a/seed-0')} is a single run"
    assert any(caution.startswith(told) for caution in one.cautions)
    assert not any("single run" in caution for caution in found.cautions)


def test_of_several_networks_p_values_are_holms(write):
    base = answers(0, 0, 50, 50)[0]
    runs = [write("base", predictions(base))]
    for name, gains in (("a", 9), ("b", 6), ("c", 1)):
        better = np.array(base)
        better[np.flatnonzero(~better)[:gains]] = True
        runs.append(write(name, predictions(better)))
    p = [2 / 2**9, 2 / 2**6, 1.0]
    found = compare_runs(runs, "test")
    assert [challenge.p for challenge in found.challenges] == pytest.approx(p)
    assert [challenge.p_holm for challenge in found.challenges] == pytest.approx([3 * p[0], 2 * p[1], 1.0])
    # Alone, b would pass.
    shown = [not challenge.verdict.startswith("no significant difference") for challenge in found.challenges]
    assert shown == [True, False, False]
    assert "Holm-corrected 0.062" in found.challenges[1].verdict


def test_images_are_found_by_content_whatever_their_order_and_name(write):
    first, second = answers(4, 10, 20, 6)
    runs = [write("a", predictions(first)), write("b", predictions(second))]
    straight = compare_runs(runs, "test")
    order = np.random.default_rng(0).permutation(40)
    shuffled = predictions(second)
    shuffled = replace(
        shuffled,
        logits=shuffled.logits[order],
        labels=shuffled.labels[order],
        names=tuple(f"elsewhere/{k}" for k in order),
        contents=tuple(shuffled.contents[k] for k in order),
    )
    found = compare_runs([runs[0], write("moved", shuffled)], "test")
    assert found.challenges[0].tests == straight.challenges[0].tests
    assert found.challenges[0].differences == straight.challenges[0].differences


def test_copies_of_one_photograph_are_told_apart(write):
    contents = ("00" * 8, *(f"{k:016x}" for k in range(1, 3)), "00" * 8)
    labels = [1, 0, 2, 3]
    one = predictions([True, True, True, False], labels, contents=contents)
    turned = predictions([False, True, True, True], labels[::-1], contents=contents[::-1])
    found = compare_runs([write("a", one), write("b", replace(turned, names=one.names[::-1]))], "test")
    assert found.challenges[0].tests[0].both_wrong == 1 and found.challenges[0].p == 1


def test_without_contents_paths_tell(write):
    first, second = answers(4, 10, 20, 6)
    silent = replace(predictions(first), contents=("unknown",) * 40)
    runs = [write("a", silent), write("b", predictions(second))]
    assert compare_runs(runs, "test").challenges[0].tests[0].only_second == 10
    other = replace(predictions(second), names=tuple(f"x/{k}" for k in range(40)))
    with pytest.raises(MismatchError, match=r"80 are not in both, such as test/0\.jpg"):
        compare_runs([runs[0], write("c", other)], "test")


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"contents": (*(f"{k:016x}" for k in range(39)), "f" * 16)},
            r"images: 2 are not in both, such as test/39\.jpg",
        ),
        (
            {"labels": np.array([1, *(np.arange(1, 40) % 4)])},
            r"labels for 1 of .*, such as test/0\.jpg: 'bee' and 'ant'",
        ),
        ({"classes": ("ant", "bee", "cat", "空")}, r"different classes \(2 are not in both, such as 'cat'\)"),
        ({"classes": CLASSES[::-1]}, r"different classes \(the same in another order\)"),
    ],
)
def test_what_is_not_the_same_is_said_with_number_and_name(write, change, message):
    right = [True] * 40
    runs = [write("a", predictions(right)), write("b", replace(predictions(right), **change))]
    with pytest.raises(MismatchError, match=message) as caught:
        compare_runs(runs, "test")
    assert "\n" not in str(caught.value)


def test_what_is_unfair_is_said(write):
    right = [True, False] * 10
    boxes = {"split_blake2b": "1", "fingerprint": "x"}
    one = write("a", predictions(right), recipe={"epochs": 2, "lr": 0.1}, boxes=boxes, run={"seed": 0, "weights": "x"})
    two = write(
        "b",
        predictions(right, image_size=(256, 128), images_seen_in_training=3),
        recipe={"epochs": 1, "lr": 0.1, "ema": True},
        run={"seed": 5, "weights": "none", "workers": 9},
        boxes={"split_blake2b": "2", "fingerprint": "y"},
    )
    found = compare_runs([one, two], "test")
    assert found.cautions == [
        "recipe: epochs is 2 in a, 1 in b",
        "recipe: ema is unknown in a, True in b",
        "run: weights is x in a, none in b",
        "boxes: split blake2b is 1 in a, 2 in b",
        "image size: 224 in a, 256x128 in b",
        "a was trained for 1 of its 2 epochs",
        "b was trained on, or selected by, 3 of these images",
    ]
    assert found.model_differences[1] == "a and b were trained on different boxes files: regions or images differ"
    assert all(line in comparison_text(found) for line in found.cautions)


def test_what_a_strangers_run_says_cannot_speak_to_the_terminal(write):
    one = write("a", predictions([True] * 4))
    two = write("b", predictions([True] * 4), recipe={"epochs": 1, "\x1b[2Jlr": "0.1\n\x1b]0;x\x07"})
    found = compare_runs([one, two], "test")
    assert len(found.cautions) == 1 and "\x1b" not in comparison_text(found) + comparison_markdown(found)
    assert comparison_text(found).splitlines()[-1].endswith("in b")


def test_a_single_image_proves_nothing(write):
    found = compare_runs([write("a", predictions([False])), write("b", predictions([True]))], "test")
    assert found.challenges[0].p == 1 and "no significant difference" in found.challenges[0].verdict
    assert found.challenges[0].differences["top1"].value == 1
    assert [change.first for change in found.challenges[0].classes] == [0, None, None, None]
    assert "ant" in comparison_text(found)


def test_missing_old_and_damaged_predictions_are_told(write, tmp_path):
    run = write("a", predictions([True] * 4))
    with pytest.raises(CheckpointError, match="nowhere is not a run folder"):
        compare_runs([run, tmp_path / "nowhere"], "test")
    with pytest.raises(CheckpointError, match=r"no predictions for val; .* agnet evaluate --run a --split val$"):
        compare_runs([run, run], "val")
    (tmp_path / "a" / "best.safetensors").write_bytes(b"another network")
    with pytest.raises(CheckpointError, match=r"predictions-test.safetensors is older than a/best.safetensors"):
        compare_runs([run, run], "test")
    (tmp_path / "a" / "predictions-test.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="is not a file of predictions, or damaged"):
        compare_runs([run, run], "test")


def test_the_command_prints_says_all_to_machines_and_saves(write, agnet, tmp_path):
    first, second = answers(3, 20, 60, 17)
    write("plain", predictions(first)), write("agnet", predictions(second))
    printed = agnet("compare", "plain", "agnet", "--save", "c.png")
    assert "agnet is better than plain by 17.0 points" in printed.stdout and "written: c.png" in printed.stderr
    with Image.open(tmp_path / "c.png") as picture:
        assert min(picture.size) > 300
    told = json.loads(agnet("compare", "plain", "agnet", "--json").stdout)
    assert told["challenges"][0]["tests"][0]["only_second"] == 20 and told["images"] == 100
    assert set(told["challenges"][0]["differences"]) == set(MEASURES)
    agnet("compare", "plain", "agnet", "--save", "folder")
    saved = json.loads((tmp_path / "folder" / "comparison.json").read_text(encoding="utf-8"))
    assert saved == told and saved["format"] == "agnet comparison" and saved["basis"] in printed.stdout
    assert {path.name for path in (tmp_path / "folder").iterdir()} == {
        f"comparison{suffix}" for suffix in (".json", ".md", ".csv", ".png")
    }
    for name, part in (("c.md", "| seeds 0 and 0 | 60 | 3 | 20 | 17 |"), ("c.csv", "ant,25,")):
        agnet("compare", "plain", "agnet", "--save", name)
        assert part in (tmp_path / name).read_text(encoding="utf-8"), name


def test_the_command_refuses_in_one_line(write, agnet):
    write("a", predictions([True] * 4))
    for arguments, said, code in (
        (["a"], "at least two runs", 2),
        (["a", "a", "--save", "c.txt"], "must end in .png, .md, .csv, .json, or be that of a folder", 2),
        (["a", "a", "--save", "a/log.jsonl/c"], "there is no folder a/log.jsonl", 2),
        (["a", "a", "--save", "no/c.png"], "there is no folder no", 2),
        (["a", "b"], "b is not a run folder", 1),
        (["a", "a", "--split", "val"], "agnet evaluate --run a --split val", 1),
    ):
        assert said in agnet("compare", *arguments, code=code).stderr.splitlines()[-1]


def test_names_cannot_break_the_tables(write):
    first, second = answers(3, 20, 60, 17)
    found = compare_runs([write("a_b", predictions(first)), write("c|d", predictions(second))], "test")
    lines = comparison_markdown(found).splitlines()
    for line, after in itertools.pairwise(lines):
        if line.startswith("|") and after.startswith("|"):
            assert line.replace("\\|", "").count("|") == after.replace("\\|", "").count("|")
    assert comparison_csv(found).splitlines()[0] == "class,images,accuracy of a_b,accuracy of c|d"
