"""`AgnetClassifier`: what the commands train and answer, behind scikit-learn's methods."""

import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_validate

from agnet import AgnetClassifier, load_checkpoint
from agnet.data.errors import DatasetError, ImageError

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

SMALL = {
    "backbone": "mobilenet-v3-small",
    "epochs": 1,
    "image_size": 64,
    "weights": "none",
    "training": {"batch_size": 4, "warmup_epochs": 0},
    "device": "cpu",
    "workers": 0,
    "jobs": 1,
}
OPTIONS = "--backbone mobilenet-v3-small --epochs 1 --image-size 64 --weights none --batch-size 4 --warmup-epochs 0"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory, textured):
    """Three classes, in class folders of a train and of a test split."""
    root = tmp_path_factory.mktemp("photographs")
    for number, name in enumerate(("bird", "cat", "dog")):
        for split, count in (("train", 6), ("test", 2)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for place in range(count):
                Image.fromarray(textured(100 * number + 10 * count + place, 70, 60)).save(folder / f"{place}.png")
    return root


@pytest.fixture(scope="module")
def fitted(photographs):
    return AgnetClassifier(**SMALL, proposals={"primary": 2}, network={"units": 4}).fit(photographs)


@pytest.fixture(scope="module")
def files(photographs):
    return [str(path) for path in sorted((photographs / "test").glob("*/*.png"))]


def test_the_network_of_the_commands_to_the_bit(fitted, photographs, files, agnet, tmp_path):
    boxes, run = tmp_path / "boxes.h5", tmp_path / "run"
    agnet("propose", "--dataset", "folder", "--root", photographs, "--primary", 2, "--boxes", boxes, "--jobs", 1)
    agnet(
        *("train", "--boxes", boxes, "--root", photographs, "--run", run, "--units", 4),
        *("--device", "cpu", "--workers", 0, *OPTIONS.split()),
    )
    theirs = load_checkpoint(run).model.state_dict()
    ours = load_checkpoint(fitted.run_).model.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(theirs[name].equal(value) for name, value in ours.items())
    again = AgnetClassifier.from_run(run, device="cpu")
    np.testing.assert_array_equal(again.predict_proba(files), fitted.predict_proba(files))


def test_answers_have_the_form_of_scikit_learn(fitted, photographs, files):
    shares = fitted.predict_proba(files)
    assert fitted.classes_.tolist() == ["bird", "cat", "dog"]
    assert shares.shape == (6, 3)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    answers = fitted.predict(np.array(files))
    assert answers.tolist() == [fitted.classes_[column] for column in shares.argmax(axis=1)]
    truth = ["bird", "bird", "cat", "cat", "dog", "dog"]
    right = np.mean([one == other for one, other in zip(answers, truth, strict=True)])
    assert fitted.score(photographs) == fitted.score(files, truth) == pytest.approx(right)


def test_pickled_with_its_weights_and_cloned_without(fitted, files):
    back = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(back.predict_proba(files), fitted.predict_proba(files))
    bare = clone(fitted)
    assert bare.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        bare.predict(files)


def test_cross_validated_with_numbers_as_classes(photographs):
    paths = sorted((photographs / "train").glob("*/*.png"))
    classes = np.repeat([10, 9, 2], 6)  # sorted as numbers, not as text
    found = cross_validate(
        AgnetClassifier(**SMALL, model="plain"), paths, classes, cv=2, error_score="raise", return_estimator=True
    )
    assert all(0 <= score <= 1 for score in found["test_score"])
    assert found["estimator"][0].classes_.tolist() == [2, 9, 10]
    assert {*found["estimator"][0].predict(paths[:2])} <= {2, 9, 10}


@pytest.mark.parametrize(
    ("X", "y", "error", "said"),
    [
        (["a.jpg"], None, ValueError, "photographs need their classes y"),
        (["a.jpg", "b.jpg"], ["a"], ValueError, "got 2 photographs and 1 classes"),
        (["a.jpg", "a.jpg"], ["a", "b"], ValueError, "given twice"),
        (["a.jpg", "b.jpg"], ["\u00e9", "e\u0301"], ValueError, "same name"),
        ("missing", None, DatasetError, "there is no folder missing"),
    ],
)
def test_refused(X, y, error, said):
    with pytest.raises(error, match=said):
        AgnetClassifier(**SMALL).fit(X, y)


def test_a_file_that_is_no_photograph_is_named(fitted, tmp_path, files):
    (tmp_path / "no.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"no\.png"):
        fitted.predict([files[0], tmp_path / "no.png"])
