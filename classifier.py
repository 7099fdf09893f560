"""A classifier with the interface of scikit-learn: ``agnet.AgnetClassifier().fit("photos").predict(["new.jpg"])``.

Regions and networks are those of `agnet propose` and `agnet train`, computed by the same code.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from numbers import Real
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from .data.contents import hash_of
from .data.errors import ConfigurationError, ImageError, MismatchError
from .data.index import DatasetIndex, build_index, cut_from_train
from .data.names import NONE
from .data.sets.catalogue import open_dataset
from .data.spelling import did_you_mean
from .data.text import composed
from .predictor import Picture, Predictor, load
from .proposals.run import propose_dataset
from .proposals.settings import ProposalSettings, name_of_weights
from .training.loop.job import SILENT, Console, Job
from .training.models.contract import Settings
from .training.models.registry import model_spec, needs_of
from .training.recipes import RECIPES, Recipe, RunSettings
from .training.runs.folder import BEST, check_free, checkpoint_of, folder_of
from .training.runs.seen import read_seen

BOXES = "boxes.h5"  #: name of the boxes file in the folder of a run
Folder = str | Path


class AgnetClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of photographs; `fit` proposes regions and trains a network.

    Args:
        model: Family of networks of images: agnet, plain, srbn or bcnn.
        backbone: Name of the backbone; None for the default of the family.
        epochs: Number of epochs; None for the recipe's.
        batch_size: Number of images per batch; None for the recipe's.
        image_size: Side of the network's input in pixels; None for the recipe's.
        weights: Initial weights, as for `agnet train --weights`.
        recipe: Name of the recipe.
        recipe_options: Other values of the recipe, such as ``{"backbone_lr": 0.0}``.
        model_options: Other settings of the network, such as ``{"units": 16}``.
        proposal_options: Settings of the regions, such as ``{"primary": 4}``.
        proposal_weights: File with the weights of the network that proposes regions, if one does.
        val_fraction: Share of each class's training images that selects the best epoch, if `fit` is given none for it.
        seed: Seed of the training, as for `agnet train --seed`.
        device: Device to compute on: cpu, cuda, cuda:N, mps; None or auto for a GPU if available.
        workers: Number of processes that read images during training.
        jobs: Number of joblib workers that propose regions; None as set by ``joblib.parallel_config``, else all cores.
        run: Folder to keep the run and its boxes file in; it must not hold a run yet. None for a temporary folder,
            which `fit` deletes: the trained weights are kept in the classifier.
        verbose: Whether to print messages and a line for each epoch.

    Attributes:
        classes_: Classes, sorted, ``(K,)``: names of folders, or the distinct labels given to `fit`.
    """

    classes_: np.ndarray

    def __init__(
        self,
        model: str = "agnet",
        *,
        backbone: str | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        image_size: int | tuple[int, int] | None = None,
        weights: str = RunSettings.weights,
        recipe: str = "modern",
        recipe_options: Mapping[str, Any] | None = None,
        model_options: Mapping[str, Any] | None = None,
        proposal_options: Mapping[str, Any] | None = None,
        proposal_weights: Folder | None = None,
        val_fraction: float = 0.1,
        seed: int = RunSettings.seed,
        device: str | None = None,
        workers: int = RunSettings.workers,
        jobs: int | None = None,
        run: Folder | None = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.backbone = backbone
        self.epochs = epochs
        self.batch_size = batch_size
        self.image_size = image_size
        self.weights = weights
        self.recipe = recipe
        self.recipe_options = recipe_options
        self.model_options = model_options
        self.proposal_options = proposal_options
        self.proposal_weights = proposal_weights
        self.val_fraction = val_fraction
        self.seed = seed
        self.device = device
        self.workers = workers
        self.jobs = jobs
        self.run = run
        self.verbose = verbose

    @classmethod
    def from_run(
        cls, run: Folder, *, device: str | None = None, proposal_weights: Folder | None = None
    ) -> AgnetClassifier:
        """Return a classifier with the trained network of a finished run.

        Its parameters name the model and the backbone of the run; the others are defaults.

        Args:
            run: Folder of the run, or its checkpoint.
            device: Device to compute on.
            proposal_weights: File that was given to `agnet propose --weights`, if a network proposes the regions.

        Raises: the errors of `agnet.load`.
        """
        network = load(run, device=device or "auto", proposal_weights=proposal_weights)
        settings = network.checkpoint.settings
        backbone = getattr(settings, "backbone", None)
        found = cls(settings.model, backbone=backbone, device=device, proposal_weights=proposal_weights)
        cls._keep(found, checkpoint_of(run), np.array(network.classes))
        return found

    def fit(self, X: Folder | Sequence[Folder], y: Iterable[Any] | None = None) -> AgnetClassifier:
        """Propose the regions of the training images and train the network on them.

        Args:
            X: Folder with a folder of images for each class, as for `agnet propose`; its test split, or a fifth of each
                class if it has none, is left out. Or paths of images, all of which are used, with their labels ``y``.
            y: Label of each path, text or numbers; None for a folder.

        Raises: `ValueError` for labels that do not fit the paths, and subclasses of `AgnetError`: `ConfigurationError`
            for parameters, `DatasetError` for images that are not there, `CheckpointError` for ``run`` or ``weights``.
        """
        index, classes = self._index(X, y)
        with self._folder() as place:
            folder = folder_of(place)
            check_free(folder, "give another folder as run, or read it with AgnetClassifier.from_run")
            folder.mkdir(parents=True, exist_ok=True)
            best = self._trained(index, folder)
            self._keep(best, classes)
        return self

    def predict(self, X: Picture | Iterable[Picture]) -> np.ndarray:
        """Return the likeliest class of each image, ``(n,)``; arguments and errors as for `predict_proba`."""
        likeliest = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[likeliest])

    def predict_proba(self, X: Picture | Iterable[Picture]) -> np.ndarray:
        """Return the probability of each class, float64 ``(n, K)``, in the order of ``classes_``.

        Args:
            X: Images: paths, uint8 arrays ``(H, W, 3)`` or PIL images; or a folder of images.

        Raises: `NotFittedError` before `fit`, `ImageError` for an image that cannot be read.
        """
        check_is_fitted(self, "classes_")
        found = self._network().predict(_listed(X), top=len(self.classes_))
        if failed := next((one.error for one in found if one.error), ""):
            raise ImageError(failed)
        names = [_name(label) for label in self.classes_]
        rows = [[dict(one.top)[name] for name in names] for one in found]
        return np.array(rows, dtype=np.float64).reshape(-1, len(names))

    def score(
        self, X: Folder | Sequence[Folder], y: Iterable[Any] | None = None, sample_weight: np.ndarray | None = None
    ) -> float:
        """Return the accuracy.

        Args:
            X: Folder with a folder of images for each class, of which those that `fit` trained on or chose the epoch
                with are left out; or paths of images with their labels ``y``, all of which are used.
            y: Label of each path; None for a folder.
            sample_weight: Weight of each image ``(n,)``; None for equal weights.

        Raises: `ValueError` for unknown labels or if no image remains, and as `predict`.
        """
        check_is_fitted(self, "classes_")
        paths, labels = self._unseen(X) if y is None else _pairs(X, y)
        if unknown := sorted(set(labels.tolist()) - set(self.classes_.tolist())):
            raise ValueError(f"y has unknown labels, first {unknown[0]!r}; known: {', '.join(map(str, self.classes_))}")
        return float(accuracy_score(labels, self.predict(paths), sample_weight=sample_weight))

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: parameters and trained weights, without the network that was built from them."""
        return {name: value for name, value in super().__getstate__().items() if name != "_loaded"}

    def _index(self, X: Folder | Sequence[Folder], y: Iterable[Any] | None) -> tuple[DatasetIndex, np.ndarray]:
        """Return the data set, and its classes as the caller calls them."""
        if y is None:
            index = open_dataset("folder", _only_folder(X), val_fraction=self.val_fraction)
            return index, np.array(index.classes)
        if isinstance(X, (str, Path)):
            raise ValueError("y was given for a folder, whose folders are the classes: give paths, or leave out y")
        paths, labels = _pairs(X, y)
        classes = np.unique(labels)
        if len(classes) < 2:
            raise ValueError(f"y has {len(classes)} class; a classifier needs two or more")
        root, names = _below_one_folder(paths)
        rows = [(name, _name(label), "train") for name, label in zip(names, labels, strict=True)]
        index = build_index("csv", root, rows)
        return cut_from_train(index, self.val_fraction, "val", seed=0), classes

    def _folder(self) -> AbstractContextManager[Folder]:
        return TemporaryDirectory(prefix="agnet-") if self.run is None else nullcontext(self.run)

    def _trained(self, index: DatasetIndex, folder: Path) -> Path:
        """Write the boxes file and the run into a folder. Returns the path of the best checkpoint."""
        from .data.boxes.reader import read_boxes
        from .training.loop.fit import fit  # imported here: PyTorch takes seconds to load

        weights = None if self.proposal_weights is None else Path(self.proposal_weights)
        proposals = self._proposals(weights)
        job: dict[str, Any] = {
            "model": self._model(len(index.classes), proposals.layout.count),
            "recipe": self._recipe(),
            "settings": RunSettings(self.weights, self.seed, self.device or "auto", workers=self.workers),
        }
        self._check_beforehand(job["model"])
        try:
            propose_dataset(index, proposals, folder / BOXES, weights=weights, jobs=self.jobs, previews=False)
        except MismatchError as error:
            told = f"{folder} holds the regions of a call that was interrupted, of other images or settings"
            raise MismatchError(f"{told}; give another folder as run") from error
        job |= {"run": folder, "boxes": read_boxes(folder / BOXES), "root": index.root}
        return fit(Job(**job), self._console())

    def _check_beforehand(self, model: Settings) -> None:
        """Check before regions are proposed, which may take long. Raises: subclasses of `AgnetError`."""
        from .training.loop.preflight import check_backbone, check_weights
        from .training.machine.device_names import check_device

        check_device(self.device or "auto", "auto")
        for stream in model.streams:
            check_backbone(stream.backbone)
        check_weights(self.weights, model)

    def _model(self, classes: int, regions: int) -> Settings:
        kind = model_spec(self.model).settings
        known = {"classes": classes, "regions": regions, "backbone": self.backbone}
        own = {one.name for one in fields(kind)}
        given: dict[str, Any] = {name: value for name, value in known.items() if name in own and value is not None}
        options = dict(self.model_options or {})
        _check_names("model_options", options, own - known.keys())
        return kind(**given, **options)

    def _recipe(self) -> Recipe:
        if self.recipe not in RECIPES:
            hint = did_you_mean(self.recipe, RECIPES)
            raise ConfigurationError(f"unknown recipe {self.recipe!r}; known: {', '.join(RECIPES)}{hint}")
        given = {"epochs": self.epochs, "batch_size": self.batch_size, "image_size": self.image_size}
        return RECIPES[self.recipe].override(**given, **(self.recipe_options or {}))

    def _proposals(self, weights: Path | None) -> ProposalSettings:
        options: dict[str, Any] = dict(self.proposal_options or {})
        if not options and not needs_of(self._model(1, ProposalSettings().layout.count)).regions:
            options = {"method": NONE, "primary": 0, "kinds": NONE}
        _check_names("proposal_options", options, {one.name for one in fields(ProposalSettings)} - {"weights"})
        return ProposalSettings(weights=name_of_weights(weights), **options)

    def _console(self) -> Console:
        return Console(report=_print_epoch, say=print) if self.verbose else SILENT

    def _keep(self, checkpoint: Path, classes: np.ndarray) -> None:
        """Keep the weights of a run's checkpoint, and the content hashes of the images seen in its training."""
        self.classes_ = classes
        self._weights = checkpoint.read_bytes()
        self._seen = read_seen(checkpoint.parent) or frozenset()
        self._loaded: Predictor | None = None

    def _network(self) -> Predictor:
        """Return the trained network, built when it is first needed."""
        loaded: Predictor | None = vars(self).get("_loaded")
        if loaded is None:
            with TemporaryDirectory(prefix="agnet-") as folder:
                (Path(folder) / BEST).write_bytes(self._weights)
                loaded = load(folder, device=self.device or "auto", proposal_weights=self.proposal_weights)
            self._loaded = loaded
        return loaded

    def _unseen(self, folder: Folder | Sequence[Folder]) -> tuple[list[str], np.ndarray]:
        """Return paths and classes of the images in a folder of class folders that were not seen in training."""
        index = open_dataset("folder", _only_folder(folder))
        paths = [str(index.root / name) for name in index.names]
        new = [row for row, path in enumerate(paths) if hash_of(Path(path)) not in self._seen]
        if not new:
            raise ValueError(f"{folder} holds only images that the network was trained or chosen with")
        return [paths[row] for row in new], np.array(index.classes)[index.labels[new]]


def _listed(X: Picture | Iterable[Picture]) -> list[Picture]:
    """Return images as a list; an array of numbers is one image, an array of paths several."""
    if isinstance(X, (str, Path, Image.Image)) or (isinstance(X, np.ndarray) and X.dtype.kind not in "OUS"):
        return [X]
    return [*X]


def _only_folder(X: object) -> Folder:
    if not isinstance(X, (str, Path)):
        raise ValueError("paths need labels y; without y, give a folder with a folder of images for each class")
    return X


def _pairs(X: Folder | Sequence[Folder], y: Iterable[Any]) -> tuple[list[str], np.ndarray]:
    """Return paths and labels, names of classes `composed`. Raises: `ValueError` for a missing label or path."""
    if isinstance(X, (str, Path)):
        raise ValueError("y was given for a folder, whose folders are the classes: give paths, or leave out y")
    paths = [os.fspath(path) for path in X]
    given = [composed(label) if isinstance(label, str) else label for label in y]
    for place, label in enumerate(given):
        if label is None or (isinstance(label, Real) and label != label):
            raise ValueError(f"y has no label for image {place}, it is {label}: leave out images without labels")
    labels = np.array(given)
    check_consistent_length(paths, labels)
    return paths, labels


def _check_names(parameter: str, options: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise `ConfigurationError` for the first of the options that is not known."""
    names = sorted(known)
    if unknown := next((name for name in options if name not in names), None):
        raise ConfigurationError(f"{parameter}: there is no {unknown}{did_you_mean(unknown, names)}")


def _name(label: object) -> str:
    """Name of a class in the network."""
    return composed(str(label))


def _below_one_folder(paths: Sequence[str]) -> tuple[Path, list[str]]:
    """Return the folder that holds all images, at any depth, and their POSIX paths relative to it."""
    absolute = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 - links are not followed
    root = Path(os.path.commonpath([path.parent for path in absolute]))
    return root, [path.relative_to(root).as_posix() for path in absolute]


def _print_epoch(line: dict[str, object]) -> None:
    print(f"epoch {line['epoch']}: validation loss {line['val_loss']:.3f}")
