"""Labels that look wrong: planted ones are found, by equations that slow loops repeat, from scores that may count."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from agnet.data.errors import CheckpointError, ConfigurationError, MismatchError
from agnet.data.sets.label_conflicts import Conflict, label_conflicts
from agnet.training.measure.labels import (
    agreements,
    class_thresholds,
    confident_classes,
    estimated_wrong,
    review_labels,
)
from agnet.training.measure.out_of_sample import out_of_sample
from agnet.training.measure.predictions import QueryResults, SplitPredictions, save_predictions

CLASSES = ("ant", "bee", "côté", "dragonfly")
IMAGES, PLANTED = 120, 9


def predictions(logits, labels, split="test", **changes):
    count = len(labels)
    values = {
        "logits": np.asarray(logits, np.float32),
        "labels": np.asarray(labels),
        "names": tuple(f"{number:03}.png" for number in range(count)),
        "contents": tuple(f"{number:016x}" for number in range(count)),
        "classes": CLASSES,
        "split": split,
        "dataset": "folder",
        "network": "fedcba9876543210",
        "image_size": 64,
        "images_seen_in_training": 0,
    }
    return SplitPredictions(**(values | changes))


def run_with(folder, found, seen=("f" * 16,)):
    """A run folder with predictions and a record of images, and without a checkpoint."""
    folder.mkdir(parents=True)
    sections = {name: {} for name in ("model", "recipe", "run", "boxes", "versions")}
    (folder / "config.json").write_text(json.dumps(sections))
    (folder / "seen.txt").write_text("".join(f"train {content}\n" for content in seen))
    save_predictions(folder / f"predictions-{found.split}.safetensors", found)
    return folder


def draw(seed, true):
    """Logits of a network that knows the true classes, with noise."""
    return np.random.default_rng(seed).normal(0, 1, (len(true), 4)) + 5 * np.eye(4)[true]


@pytest.fixture
def planted():
    """True classes, and labels of which a few are of another class."""
    generator = np.random.default_rng(0)
    true = np.arange(IMAGES) % 4
    wrong = generator.choice(IMAGES, PLANTED, replace=False)
    labels = true.copy()
    labels[wrong] = (true[wrong] + generator.integers(1, 4, PLANTED)) % 4
    return true, labels, set(wrong.tolist())


def test_planted_labels_are_listed_first_with_their_true_classes(planted, tmp_path):
    true, labels, wrong = planted
    runs = [run_with(tmp_path / f"seed-{seed}", predictions(draw(seed, true), labels)) for seed in range(3)]
    review = review_labels(out_of_sample([tmp_path]))
    assert review.runs == tuple(map(str, runs)) and review.images == review.judged_by_all == IMAGES
    found = {int(one.image[:3]): one for one in review.suspects[:PLANTED]}
    assert set(found) == wrong and len(review.suspects) <= PLANTED + 2
    assert review.confident >= PLANTED - 1
    for row, one in found.items():
        assert (one.given, one.suggested) == (CLASSES[labels[row]], CLASSES[true[row]])
        assert one.runs == 3 and one.score < 0.3 < one.probability_suggested
    scores = [one.score for one in review.suspects]
    assert scores == sorted(scores)
    assert review.agreed >= PLANTED - 2 > 10 * review.agreed_by_chance


def test_the_equations_are_the_papers():
    """Eq. 2 and Eq. 1 of Northcutt et al. (2021), image by image."""
    generator = np.random.default_rng(1)
    probabilities, labels = generator.dirichlet(np.ones(5), 60), generator.integers(0, 4, 60)  # none is of class 4
    thresholds = class_thresholds(probabilities, labels)
    for j in range(4):
        own = [float(probabilities[k, j]) for k in range(60) if labels[k] == j]
        assert thresholds[j] == pytest.approx(sum(own) / len(own))
    assert thresholds[4] == np.inf
    for k, found in enumerate(confident_classes(probabilities, labels).tolist()):
        above = [j for j in range(5) if probabilities[k, j] >= thresholds[j]]
        assert found == (max(above, key=lambda j: probabilities[k, j]) if above else -1)
    confident = confident_classes(probabilities, labels).tolist()
    joint = {(i, j): sum(confident[k] == j and labels[k] == i for k in range(60)) for i in range(4) for j in range(5)}
    wrong = whole = 0.0
    for (i, j), count in joint.items():
        share = count / sum(joint[i, other] for other in range(5)) * sum(label == i for label in labels)  # Eq. 3
        whole += share
        wrong += share if i != j else 0
    assert estimated_wrong(np.array(confident), labels, 5) == pytest.approx(60 * wrong / whole)


def test_chance_is_what_shuffled_answers_agree_on():
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 3, 40)
    answers = np.where(generator.random((2, 40)) < 0.5, labels, generator.integers(0, 3, (2, 40)))
    judged, agreed, by_chance = agreements(np.hstack([answers, [[-1], [0]]]), np.append(labels, 1), 3)
    assert judged == 40  # the last image is judged by one run only
    assert agreed == sum(answers[0, k] == answers[1, k] != labels[k] for k in range(40))
    counts = []
    for _ in range(2000):
        shuffled = answers.copy()
        for row in shuffled:
            for label in range(3):
                row[labels == label] = generator.permutation(row[labels == label])
        counts.append(np.sum((shuffled[0] == shuffled[1]) & (shuffled[0] != labels)))
    assert by_chance == pytest.approx(np.mean(counts), abs=4 * np.std(counts) / 2000**0.5)


def test_probabilities_are_geometric_means_over_the_runs_that_count(tmp_path):
    one, other = np.array([[0.7, 0.1, 0.1, 0.1]]), np.array([[0.2, 0.6, 0.1, 0.1]])
    first = run_with(tmp_path / "one", predictions(np.log(np.repeat(one, 2, axis=0)), [0, 1]))
    second = run_with(tmp_path / "two", predictions(np.log(np.repeat(other, 2, axis=0)), [0, 1]), seen=[f"{1:016x}"])
    found = out_of_sample([first, second])
    mean = (one * other) ** 0.5
    np.testing.assert_allclose(found.probabilities, [(mean / mean.sum())[0], one[0]], rtol=1e-6)
    # The second run was trained on the second image.
    assert found.answers.tolist() == [[0, 0], [1, -1]] and found.left_out == 1


def test_of_two_look_alikes_the_less_likely_label_comes_first(planted, tmp_path):
    true, labels, wrong = planted
    row = min(wrong)
    right = next(other for other in range(IMAGES) if labels[other] == true[other] == true[row])
    found = out_of_sample([run_with(tmp_path / "run", predictions(draw(0, true), labels))])
    review = review_labels(found, [Conflict(row, right, 0), Conflict(right, row, 0)])
    first, *others = review.suspects
    assert (first.image, first.same_as, first.suggested) == (f"{row:03}.png", f"{right:03}.png", CLASSES[labels[right]])
    assert not any(one.same_as for one in others) and f"{right:03}.png" not in [one.image for one in others]


def test_a_photograph_saved_again_under_another_label_is_found(textured, tmp_path):
    for number in range(5):
        Image.fromarray(textured(number)).save(tmp_path / f"{number}.png")
    Image.fromarray(textured(3)).resize((120, 90)).save(tmp_path / "again.jpg", quality=80)
    Image.fromarray(textured(1)).save(tmp_path / "same.jpg", quality=80)  # of the same label
    names = [*(f"{number}.png" for number in range(5)), "again.jpg", "same.jpg", "gone.png"]
    found = label_conflicts(tmp_path, names, np.array([0, 0, 1, 1, 2, 0, 0, 2]), jobs=1)
    assert {(one.row, one.other) for one in found} == {(3, 5), (5, 3)}


def test_scores_that_cannot_count_are_refused(planted, tmp_path):
    true, labels, _ = planted
    good = predictions(draw(0, true), labels)
    run = run_with(tmp_path / "good", good)
    relabelled = run_with(tmp_path / "relabelled", predictions(draw(0, true), true))
    with pytest.raises(MismatchError, match=r"another label for 0\d\d.png than the runs before it"):
        out_of_sample([run, relabelled])
    classes = run_with(tmp_path / "classes", predictions(draw(0, true), labels, classes=CLASSES[::-1]))
    with pytest.raises(MismatchError, match="different classes"):
        out_of_sample([run, classes])
    empty = run_with(tmp_path / "empty", predictions(draw(0, true), labels, "train"))
    with pytest.raises(CheckpointError, match="no predictions of images that it was not trained on; make them with"):
        out_of_sample([empty])
    (run / "best.safetensors").write_bytes(b"trained again")
    with pytest.raises(CheckpointError, match="is older than"):
        out_of_sample([run])
    with pytest.raises(CheckpointError, match="not a run folder"):
        out_of_sample([tmp_path / "nothing"])
    texts = ("a",) * IMAGES
    search = QueryResults(
        **{name: getattr(good, name) for name in ("labels", "names", "contents", "classes", "split", "dataset")},
        **{name: getattr(good, name) for name in ("network", "image_size", "images_seen_in_training")},
        average_precisions=np.ones(IMAGES),
        first_match=np.zeros(IMAGES, np.int64),
        nearest=texts,
        nearest_persons=texts,
        cameras=texts,
        gallery="0",
    )
    persons = run_with(tmp_path / "persons", good)
    (persons / "predictions-test.safetensors").rename(persons / "predictions-other.safetensors")
    save_predictions(persons / "predictions-query.safetensors", search)
    with pytest.raises(ConfigurationError, match="has the results of a search"):
        out_of_sample([persons])


def test_the_command_lists_saves_and_draws(planted, textured, agnet, tmp_path):
    true, labels, wrong = planted
    for seed in range(3):
        run_with(tmp_path / "runs" / f"seed-{seed}", predictions(draw(seed, true), labels))
    first = agnet("labels", "--run", "runs", "--json", "--save", "list.csv")  # the images are not there
    assert "so that images that look alike are not searched for" in first.stderr
    told = json.loads(first.stdout)
    assert {int(one["image"][:3]) for one in told["suspects"][:PLANTED]} == wrong
    rows = list(csv.DictReader(io.StringIO((tmp_path / "list.csv").read_text(encoding="utf-8"))))
    assert [row["path"] for row in rows] == [one["image"] for one in told["suspects"]]
    assert rows[0]["given"] == told["suspects"][0]["given"] and float(rows[0]["score"]) < 0.3
    root = tmp_path / "photos"
    root.mkdir()
    for row in range(IMAGES):
        Image.fromarray(textured(row, 40, 30)).save(root / f"{row:03}.png")
    shown = agnet("labels", "--run", "runs", "--root", root, "--sheet", "sheet.png", "--count", 3, "--no-look-alikes")
    lines = shown.stdout.splitlines()
    assert lines[0] == "120 images of 4 classes, judged by 3 runs that were not trained on them: 120 test"
    right = np.mean(np.mean([draw(seed, true) for seed in range(3)], axis=0).argmax(axis=1) == labels)
    assert lines[1].startswith(f"{right:.1%} have their label") and "labels look wrong to the model" in lines[2]
    assert "would be expected by chance" in lines[3] and lines[-1].startswith("and ")
    assert len([line for line in lines if ".png" in line]) == 3
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 3 * 300
    assert "there is no folder" in agnet("labels", "--run", "runs", "--save", "no/list.csv", code=2).output
