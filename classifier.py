"""A classifier in scikit-learn's manner: ``AgnetClassifier().fit("photos").predict(["photo.jpg"])``.

It proposes and trains by the functions of `agnet propose` and `agnet train`, and predicts as `agnet.load` does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from .data.errors import ConfigurationError, DatasetError, ImageError
from .data.index import DatasetIndex, build_index, cut_from_train
from .data.sets.entry import Options
from .data.sets.folder import folder_rows
from .data.text import composed
from .proposals.run import propose_dataset
from .proposals.settings import NONE, ProposalSettings

if TYPE_CHECKING:
    from .predictor import Picture, Predictor

Labels = Sequence[Any] | np.ndarray
_BOXES, _RUN, _PREFIX = "boxes.h5", "run", "agnet-classifier-"


class AgnetClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of photographs with the methods of scikit-learn's classifiers.

    Args:
        model: Network for images, as ``agnet train --model``: agnet, plain, srbn or bcnn.
        backbone: Name of the backbone.
        epochs: Number of epochs; None for the recipe's.
        image_size: Side of the network's input in pixels; 0 for the size that its weights were trained at.
        weights: Initial weights, as ``agnet train --weights``.
        recipe: Name of the training recipe.
        training: Other settings of the recipe, such as ``{"batch_size": 8}``.
        network: Other settings of the network, such as ``{"shortcut": True}``.
        proposals: Settings of the regions, such as ``{"primary": 4}``; not used by networks without regions.
        val_fraction: Share of each class's training images that chooses the epoch; 0 takes the last epoch.
        seed: Seed of the weights, the order of the images, the augmentation and the images that choose the epoch.
        device: Device to compute on: cpu, cuda, cuda:N, mps, or auto.
        workers: Number of processes that read images in training.
        jobs: Number of processes that propose regions; None for all cores.
        run: Folder for the boxes file and the run, which must not hold a run yet; None for one that is deleted with
            the classifier.

    Attributes:
        classes_: Classes as given in fitting, sorted, ``(K,)``.
        run_: Folder of the run, for ``agnet evaluate --run`` and others; gone after unpickling.
        n_features_in_: 1: a photograph is one feature.
    """

    def __init__(
        self,
        model: str = "agnet",
        backbone: str = "resnet50",
        *,
        epochs: int | None = None,
        image_size: int = 0,
        weights: str = "imagenet",
        recipe: str = "modern",
        training: Mapping[str, Any] | None = None,
        network: Mapping[str, Any] | None = None,
        proposals: Mapping[str, Any] | None = None,
        val_fraction: float = 0.1,
        seed: int = 0,
        device: str = "auto",
        workers: int = 2,
        jobs: int | None = None,
        run: str | Path | None = None,
    ) -> None:
        self.model = model
        self.backbone = backbone
        self.epochs = epochs
        self.image_size = image_size
        self.weights = weights
        self.recipe = recipe
        self.training = training
        self.network = network
        self.proposals = proposals
        self.val_fraction = val_fraction
        self.seed = seed
        self.device = device
        self.workers = workers
        self.jobs = jobs
        self.run = run

    def fit(self, X: str | Path | Sequence[str | Path] | np.ndarray, y: Labels | None = None) -> AgnetClassifier:
        """Propose regions and train.

        Args:
            X: Folder with a folder of photographs for each class (of its splits, only ``train`` is used), or paths of
                photographs ``(n,)``.
            y: Classes of the photographs ``(n,)``, strings or numbers; None for a folder.

        Returns: itself.
        Raises: `ValueError` for photographs and classes that do not fit together, and the errors of the commands.
        """
        index, self.classes_, self._names = self._index(X, y)
        self._predictor: Predictor | None = None
        folder = self._temporary() if self.run is None else Path(self.run)
        folder.mkdir(parents=True, exist_ok=True)
        self.run_ = folder / _RUN
        best = self._train(index, folder / _BOXES)
        self._weights = best.read_bytes()
        self.n_features_in_ = 1
        return self

    @classmethod
    def from_run(cls, run: str | Path, device: str = "auto") -> AgnetClassifier:
        """Return the classifier of a finished run of ``agnet train``; its parameters other than ``device`` are unused.

        Raises: `CheckpointError` if ``run`` has no valid checkpoint.
        """
        from .training.runs.checkpoint_header import read_header
        from .training.runs.folder import checkpoint_of

        checkpoint = checkpoint_of(run)
        found = cls(device=device)
        found.run_, found.n_features_in_ = Path(run), 1
        found.classes_ = np.array(read_header(checkpoint).classes)
        found._names = tuple(map(str, found.classes_))
        found._weights, found._predictor = checkpoint.read_bytes(), None
        return found

    def predict(self, X: Picture | Iterable[Picture]) -> np.ndarray:
        """Return the most likely class of each photograph, ``(n,)``. ``X``: photographs, as for `predict_proba`."""
        shares = self.predict_proba(X)
        return np.asarray(self.classes_[shares.argmax(axis=1)])

    def predict_proba(self, X: Picture | Iterable[Picture]) -> np.ndarray:
        """Return the probability of each class, ``(n, K)`` in the order of ``classes_``.

        Args:
            X: Photographs: paths, a folder, uint8 RGB arrays ``(H, W, 3)`` or PIL images, as for `agnet.load`.

        Raises: `ImageError` for a photograph that cannot be read, `sklearn.exceptions.NotFittedError` before fitting.
        """
        check_is_fitted(self)
        if isinstance(X, np.ndarray) and X.dtype.kind in "UO":  # an array of paths is not an image
            X = X.tolist()
        found = self._network().predict(X, top=len(self.classes_))
        results = found if isinstance(found, list) else [found]
        columns = {name: column for column, name in enumerate(self._names)}
        probabilities = np.zeros((len(results), len(columns)))
        for row, result in enumerate(results):
            if result.error:
                raise ImageError(result.error)
            for name, share in result.top:
                probabilities[row, columns[name]] = share
        return probabilities

    def score(
        self, X: str | Path | Sequence[str | Path], y: Labels | None = None, sample_weight: np.ndarray | None = None
    ) -> float:
        """Return the accuracy.

        Args:
            X: Photographs, or a folder of class folders: its test or validation split, or all photographs if it is not
                split.
            y: Classes of the photographs ``(n,)``; None for a folder.
            sample_weight: Weights of the photographs ``(n,)``.
        """
        if y is None:
            X, y = _labelled(_folder(X), ("test", "val", "train"))
            known = dict(zip(self._names, self.classes_, strict=True))
            y = np.array([known.get(label, label) for label in y])
        return float(super().score(X, y, sample_weight))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with the trained weights, and without the folder, which belongs to this machine."""
        state = dict(super().__getstate__())
        state.pop("run_", None)
        if "_predictor" in state:
            state["_predictor"] = None
        return state

    def _index(
        self, X: str | Path | Sequence[str | Path] | np.ndarray, y: Labels | None
    ) -> tuple[DatasetIndex, np.ndarray, tuple[str, ...]]:
        """Index of the photographs, the classes ``(K,)``, and the names that the network knows them by."""
        if y is None:
            root = _folder(X)
            paths, names = _labelled(root, ("train",))
            classes, title = np.unique(names), root.resolve().name
        else:
            paths, title = [*map(Path, _listed(X))], "photographs"
            classes, numbers = np.unique(np.asarray(y), return_inverse=True)
            if len(numbers) != len(paths):
                raise ValueError(f"got {len(paths):,} photographs and {len(numbers):,} classes")
            if len(set(paths)) < len(paths):
                raise ValueError("a photograph is given twice")
            names = [str(classes[number]) for number in numbers]
            root = Path(os.path.commonpath([path.absolute().parent for path in paths])) if paths else Path()
        below = [path.absolute().relative_to(root.absolute()).as_posix() for path in paths]
        rows = [(place, name, "train") for place, name in zip(below, names, strict=True)]
        known = tuple(composed(str(one)) for one in classes)
        if len({*known}) < len(known):
            raise ValueError(f"two classes have the same name: {', '.join(known)}")
        index = build_index("folder", root, rows)
        opened: dict[str, object] = {"val_fraction": self.val_fraction, "split_seed": self.seed}
        index = cut_from_train(index, self.val_fraction, "val", self.seed)
        return replace(index, opened_with=opened, title=title), classes, known

    def _train(self, index: DatasetIndex, boxes: Path) -> Path:
        """Propose regions into ``boxes`` and train; return the checkpoint."""
        # Imported here: PyTorch takes seconds to load.
        from .data.boxes.reader import read_boxes
        from .training.loop.fit import fit
        from .training.loop.job import Job
        from .training.models.registry import ModelSettings, needs_of
        from .training.recipes import RECIPES, RunSettings

        network: dict[str, Any] = {"model": self.model, "backbone": self.backbone, **(self.network or {})}
        if needs_of(ModelSettings(len(index.classes), **network)).regions:
            settings = ProposalSettings(**{"seed": self.seed, **(self.proposals or {})})
        else:
            settings = ProposalSettings(method=NONE, primary=0, kinds=NONE)
        propose_dataset(index, settings, boxes, jobs=self.jobs, previews=False)
        found = read_boxes(boxes)
        if self.recipe not in RECIPES:
            raise ConfigurationError(f"unknown recipe {self.recipe!r}; known: {', '.join(RECIPES)}")
        training = {"epochs": self.epochs, "image_size": self.image_size, **(self.training or {})}
        return fit(
            Job(
                run=self.run_,
                boxes=found,
                root=index.root,
                model=ModelSettings(len(found.classes), regions=found.layout.count or None, **network),
                recipe=RECIPES[self.recipe].override(**training),
                settings=RunSettings(weights=self.weights, seed=self.seed, device=self.device, workers=self.workers),
            )
        )

    def _temporary(self) -> Path:
        """A folder that is deleted with the classifier."""
        folder = tempfile.mkdtemp(prefix=_PREFIX)
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    def _network(self) -> Predictor:
        """The trained network, loaded on first use."""
        from .predictor import load
        from .training.runs.folder import BEST

        if self._predictor is None:
            with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
                path = Path(folder) / BEST
                path.write_bytes(self._weights)
                self._predictor = load(path, device=self.device)
        return self._predictor


def _folder(X: object) -> Path:
    if not isinstance(X, (str, Path)):
        raise ValueError("photographs need their classes y; only a folder of class folders has its own")
    return Path(X)


def _listed(X: object) -> list[Any]:
    if isinstance(X, (str, Path)) or not isinstance(X, Iterable):
        raise ValueError("classes y go with a list of photographs' paths")
    return [*X]


def _labelled(root: Path, splits: tuple[str, ...]) -> tuple[list[Path], list[str]]:
    """The photographs of the first of some splits that a folder has, with their classes."""
    rows = folder_rows(root, Counter(), Options())
    for wanted in splits:
        if some := [(root / name, label) for name, label, split in rows if split == wanted]:
            paths, labels = zip(*some, strict=True)
            return [*paths], [*labels]
    raise DatasetError(f"no photographs in class folders under {root}")
