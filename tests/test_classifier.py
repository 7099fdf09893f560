"""`agnet.AgnetClassifier`: the commands' answers behind scikit-learn's interface."""

import json
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import StratifiedKFold, cross_val_score

from agnet import AgnetClassifier, read_image
from agnet.data.errors import CheckpointError, ConfigurationError, DatasetError, ImageError, MismatchError

pytestmark = [
    pytest.mark.usefixtures("one_thread", "small_mobilenet"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]

TINY = {
    "backbone": "mobilenet-v3-small",
    "weights": "none",
    "epochs": 1,
    "batch_size": 4,
    "image_size": 64,
    "device": "cpu",
    "workers": 0,
    "model_options": {"units": 4},
    "proposal_options": {"primary": 3},
}
PLAIN = {**TINY, "model": "plain", "model_options": None, "proposal_options": None}


@pytest.fixture(scope="module")
def fitted(_original_folder, tmp_path_factory):
    return AgnetClassifier(**TINY, run=tmp_path_factory.mktemp("run") / "run").fit(_original_folder)


@pytest.fixture
def pairs(folder):
    """Paths and labels of the training images, as integers of which the names sort otherwise."""
    paths = sorted(folder.glob("train/*/*.png"))
    numbers = {"ant": 9, "bee": 10, "côté": 11}
    return [str(path) for path in paths], np.array([numbers[path.parent.name] for path in paths])


def test_it_trains_the_weights_of_the_commands_and_gives_their_probabilities(agnet, folder, fitted):
    agnet("propose", folder, "--boxes", "boxes.h5", "--primary", 3)
    options = ["--backbone", TINY["backbone"], "--weights", "none", "--epochs", 1, "--batch-size", 4, "--units", 4]
    small = ["--image-size", 64, "--device", "cpu", "--workers", 0]
    agnet("train", "--boxes", "boxes.h5", "--run", "run", *options, *small)
    files = sorted(str(path) for path in folder.glob("val/*/*.png"))
    lines = agnet("predict", "--run", "run", *files, "--json", "--device", "cpu").stdout.splitlines()
    told = [json.loads(line)["probabilities"] for line in lines]
    found = fitted.predict_proba(files)
    np.testing.assert_array_equal(fitted.predict_proba(read_image(files[0])), found[:1])  # pixels of one photograph
    assert found.shape == (6, 3) and fitted.classes_.tolist() == ["ant", "bee", "côté"]
    np.testing.assert_allclose(found, [[one[name] for name in fitted.classes_] for one in told], rtol=1e-6)
    assert fitted.predict(files).tolist() == [max(one, key=one.get) for one in told]
    evaluated = json.loads(agnet("evaluate", "--run", "run", "--device", "cpu", "--json").stdout)
    assert fitted.score(folder) == pytest.approx(evaluated["top1"])  # of `val`, the only split that was held out


def test_a_copy_from_its_run_or_a_pickle_answers_alike(fitted, folder):
    files = [str(path) for path in folder.glob("val/bee/*.png")]
    wanted = fitted.predict_proba(files)
    for other in (AgnetClassifier.from_run(fitted.run, device="cpu"), pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(other.predict_proba(files), wanted)
        assert other.score(folder) == fitted.score(folder)


def test_paths_and_labels_of_any_kind_are_cross_validated(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kept = sorted(tmp_path.iterdir())
    scores = cross_val_score(AgnetClassifier(**PLAIN), *pairs, cv=StratifiedKFold(2), error_score="raise")
    assert scores.shape == (2,) and set(np.round(scores * 6, 6)) <= set(range(7))
    assert sorted(tmp_path.iterdir()) == kept  # temporary folders are gone


def test_columns_follow_the_classes_and_all_paths_are_used(pairs, tmp_path):
    paths, labels = pairs
    classifier = AgnetClassifier(**PLAIN, run=tmp_path / "run").fit(paths, labels)
    assert classifier.classes_.tolist() == [9, 10, 11]
    shares = classifier.predict_proba(paths)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    named = [dict(one.top) for one in classifier._network().predict(paths, top=3)]
    np.testing.assert_array_equal(shares[:, 0], [one["9"] for one in named])
    assert classifier.predict(paths).dtype == labels.dtype
    assert len((tmp_path / "run" / "seen.txt").read_text().splitlines()) == len(paths)
    with pytest.raises(ValueError, match="unknown labels, first 12; known: 9, 10, 11"):
        classifier.score(paths, labels + 1)
    wanted = "already holds a run; give another folder as run, or read it with AgnetClassifier.from_run"
    with pytest.raises(CheckpointError, match=wanted):
        classifier.fit(paths, labels)
    (tmp_path / "run" / "best.safetensors").unlink()  # as of a call that was interrupted while it trained
    with pytest.raises(
        MismatchError, match=r"run holds the regions of .* other images or settings; give another folder as run$"
    ):
        classifier.fit(paths[:-1], labels[:-1])


def test_parameters_are_those_of_scikit_learn():
    classifier = AgnetClassifier(epochs=3, model_options={"units": 8})
    assert repr(classifier) == "AgnetClassifier(epochs=3, model_options={'units': 8})"
    copy = clone(classifier).set_params(seed=1)
    assert copy.get_params() == {**classifier.get_params(), "seed": 1}
    with pytest.raises(ValueError, match="Invalid parameter 'epoch'"):
        classifier.set_params(epoch=1)
    with pytest.raises(NotFittedError):
        classifier.predict(["photo.jpg"])


def test_what_cannot_be_used_is_refused_before_any_work(folder, pairs, tmp_path):
    paths, labels = pairs
    for given, message in (
        ((paths, labels[:-1]), "inconsistent numbers of samples"),
        ((paths,), "paths need labels y"),
        ((folder, labels), "y was given for a folder"),
        ((paths[:2], [1, 1]), "y has 1 class"),
        ((paths, ["a", None, *labels[2:]]), "y has no label for image 1, it is None"),
        ((paths, [*labels[:-1], np.nan]), f"y has no label for image {len(paths) - 1}, it is nan"),
    ):
        with pytest.raises(ValueError, match=message):
            AgnetClassifier(**PLAIN).fit(*given)
    with pytest.raises(DatasetError, match="there is no folder"):
        AgnetClassifier().fit(tmp_path / "nowhere")
    for wrong, message in (
        ({"recipe": "moden"}, "did you mean modern"),
        ({"epochs": 0}, "epochs"),
        ({"model": "agnet", "model_options": {"unit": 4}}, "model_options: there is no unit; did you mean units"),
        ({"proposal_options": {"primry": 4}}, "proposal_options: there is no primry; did you mean primary"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            AgnetClassifier(**{**PLAIN, **wrong}).fit(folder)


def test_an_unreadable_image_is_named(fitted, tmp_path):
    (tmp_path / "no.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"no\.png"):
        fitted.predict([tmp_path / "no.png"])
