"""Prediction in one line of Python: ``agnet.load("run").predict("photo.jpg")``.

The results are those of `agnet predict`, computed by the same code.
"""

from __future__ import annotations

import glob
import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from PIL import Image

from .data.errors import ConfigurationError, ImageError
from .data.images import pixel_limit, pixels_of
from .data.inputs import Input, find_inputs
from .proposals.settings import SHUFFLES, ProposalSettings, name_of_weights
from .training.samples.reading import (
    Propose,
    ProposeTubes,
    Sample,
    Unreadable,
    sample_of_input,
    sample_or_reason,
)

if TYPE_CHECKING:
    from .training.answers.embedding import Embedding
    from .training.answers.predict import Prediction
    from .training.machine.devices import Device
    from .training.runs.checkpoint_header import CheckpointHeader
    from .training.runs.checkpoints import Checkpoint

Picture = str | Path | np.ndarray | Image.Image  #: a path, a uint8 RGB array ``(H, W, 3)``, or a PIL image


@dataclass(frozen=True)
class Result:
    """The prediction for one image."""

    image: str  #: path; "image 0", "image 1", … for an array or a PIL image without a file name
    label: str = ""  #: most likely class
    probability: float = 0.0  #: probability of the label
    top: tuple[tuple[str, float], ...] = ()  #: most likely classes with their probabilities, best first
    error: str = ""  #: reason why the image could not be classified; empty if it was

    def __repr__(self) -> str:
        if self.error:
            return f"<{self.image}: error: {self.error}>"
        return f"<{self.image}: {', '.join(f'{name} {share:.1%}' for name, share in self.top)}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that `agnet predict --json` prints (there, probabilities are rounded to seven digits)."""
        if self.error:
            return {"image": self.image, "error": self.error}
        return {
            "image": self.image,
            "label": self.label,
            "probability": self.probability,
            "probabilities": dict(self.top),
        }


@dataclass(frozen=True)
class Found:
    """The nearest images of one image."""

    image: str  #: path; "image 0", "image 1", … for an array or a PIL image without a file name
    nearest: tuple[tuple[str, float], ...] = ()  #: images of the gallery with their cosine similarities, best first
    error: str = ""  #: reason why the image could not be compared; empty if it was


class Predictor:
    """A trained network that classifies and compares photographs; use `load` to create one.

    Args:
        checkpoint: Trained network; it is moved to the device.
        device: Device and precision of the computation.
        propose: Stage 1's function for one image; None for a network without regions.
    """

    def __init__(self, checkpoint: Checkpoint, device: Device, propose: Propose | None) -> None:
        self.checkpoint, self.device = checkpoint, device
        self._propose = propose

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the network's outputs."""
        return self.checkpoint.classes

    def __repr__(self) -> str:
        settings = self.checkpoint.settings
        return f"<{settings.model} on {settings.backbones}: {len(self.classes):,} classes, {self.device.device}>"

    @overload  # an array is iterable, too, but its items are not images
    def predict(  # type: ignore[overload-overlap]
        self, images: np.ndarray | Image.Image, *, top: int = 5, batch_size: int = 16
    ) -> Result: ...

    @overload  # a path may name a file or a folder: its type does not show which
    def predict(self, images: str | Path, *, top: int = 5, batch_size: int = 16) -> Any: ...

    @overload
    def predict(self, images: Iterable[Picture], *, top: int = 5, batch_size: int = 16) -> list[Result]: ...

    def predict(
        self, images: Picture | Iterable[Picture], *, top: int = 5, batch_size: int = 16
    ) -> Result | list[Result]:
        """Classify one image or several.

        Args:
            images: Path of a file, a uint8 array ``(H, W, 3)`` (RGB) or ``(H, W)`` (grey), or a PIL image, whose EXIF
                orientation is applied; a folder or a pattern, as for `agnet predict`; or any iterable of these, such
                as a list or a generator, of which at most one batch is held in memory.
            top: Number of classes to return for each image.
            batch_size: Number of images per batch; the results do not depend on it, except for rounding.

        Returns: the result of a single image, or a list of results in the order of the images, in which an image that
            cannot be read has an ``error``.
        Raises: `ImageError` if a single image cannot be read, `TypeError` or `ValueError` for anything that is not an
            image, and the errors of `agnet.predict`.
        """
        if top < 1 or batch_size < 1:
            raise ValueError(f"top and batch_size must be 1 or more, got {top} and {batch_size}")
        if _is_single(images):
            (result,) = self._results(_listed(images), top, 1)
            if result.error:
                raise ImageError(result.error)
            return result
        return list(self._results(_listed(images), top, batch_size))

    def embed(self, images: Picture | Iterable[Picture], *, batch_size: int = 16) -> np.ndarray:
        """Embed one image or several: the input of the classifier, divided by its norm.

        The product of two embeddings is the cosine similarity of their images.

        Args:
            images: Images, as for `predict`.
            batch_size: Number of images per batch; the embeddings do not depend on it, except for rounding.

        Returns: float32 array ``(n, E)`` in the order of the images; ``(1, E)`` for a single one.
        Raises: `ImageError` if an image cannot be read, `ConfigurationError` for a network without an embedding, and
            as `predict`.
        """
        vectors = []
        for one in self._embeddings(images, batch_size):
            if isinstance(one, Unreadable):
                raise ImageError(one.reason)
            vectors.append(one.vector)
        if not vectors:
            raise ValueError("there is no image to embed")
        return np.stack(vectors)

    def nearest(
        self,
        images: Picture | Iterable[Picture],
        gallery: Picture | Iterable[Picture],
        *,
        top: int = 5,
        batch_size: int = 16,
    ) -> list[Found]:
        """Find the images of a gallery that are most similar to each image, by the cosine of their embeddings.

        The image itself is left out. Nothing else is: `agnet predict --gallery`, which knows persons and cameras, also
        leaves out images of the same person by the same camera.

        Args:
            images: Images to search for, as for `predict`.
            gallery: Images to search in, as for `predict`; each is read once, and none is kept in memory. Those that
                cannot be read are reported as warnings.
            top: Number of nearest images for each image.
            batch_size: Number of images per batch.

        Returns: a result for each image, in their order, also if there is only one; an image that cannot be read has an
            ``error``.
        Raises: `ConfigurationError` if no image of the gallery can be read, and as `embed`.
        """
        from .training.answers.nearest import find_nearest

        if top < 1:
            raise ValueError(f"top must be 1 or more, got {top}")
        queries = list(self._embeddings(images, batch_size))
        readable = [one for one in queries if not isinstance(one, Unreadable)]
        found = iter(find_nearest(readable, self._embeddings(gallery, batch_size), top, lost=_warn))
        results = []
        for one in queries:
            if isinstance(one, Unreadable):
                results.append(Found(one.name, error=one.reason))
            else:
                pairs = tuple((near.name, near.similarity) for near in next(found).neighbours)
                results.append(Found(one.name, pairs))
        return results

    def _embeddings(self, images: Picture | Iterable[Picture], batch_size: int) -> Iterator[Embedding | Unreadable]:
        from .training.answers.embedding import embed_samples

        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
        return embed_samples(self.checkpoint, self._samples(_listed(images)), self.device, batch_size)

    def _results(self, images: Iterable[Picture], top: int, batch_size: int) -> Iterator[Result]:
        from .training.answers.predict import predict_samples

        for found in predict_samples(self.checkpoint, self._samples(images), self.device, top, batch_size=batch_size):
            yield Result(found.name, error=found.reason) if isinstance(found, Unreadable) else _result(found)

    def _samples(self, images: Iterable[Picture]) -> Iterator[Sample | Unreadable]:
        return (self._sample(number, image) for number, image in enumerate(_each(images)))

    def _sample(self, number: int, image: Input | np.ndarray | Image.Image) -> Sample | Unreadable:
        size_hw = self.checkpoint.size_hw
        if isinstance(image, Input):
            if image.is_video:
                return Unreadable(image.name, f"{image.name} is a video: classify it with agnet predict")
            return sample_of_input(image, size_hw, self._propose, pixel_limit(self.checkpoint.proposals))
        name = str(getattr(image, "filename", "")) or f"image {number}"
        if isinstance(image, Image.Image):
            try:
                pixels = pixels_of(image)
            except ImageError as error:
                return Unreadable(name, f"{name}: {error}")
        elif isinstance(image, np.ndarray):
            pixels = _rgb(image, name)
        else:
            raise TypeError(f"{name}: wanted a path, an array or a PIL image, got {type(image).__name__}")
        return sample_or_reason(name, pixels, size_hw, self._propose)


def load(
    run: str | Path, *, device: str = "auto", precision: str = "auto", proposal_weights: str | Path | None = None
) -> Predictor:
    """Load a trained network for prediction.

    Args:
        run: Folder of a run, its checkpoint, or ``hf://OWNER/NAME[@REVISION]``, a network on the Hugging Face hub.
        device: Device to compute on: cpu, cuda, cuda:N, mps, or auto (a GPU if available).
        precision: Autocast precision: fp32, bf16, fp16, or auto (bf16 where the GPU supports it, otherwise fp32).
        proposal_weights: File that was given to `agnet propose --weights`, if a network proposes the regions.

    Raises: `CheckpointError` if ``run`` has no valid checkpoint, `ConfigurationError` if the device is not available or
        the weights are not those that the run's regions were proposed with.
    """
    from .training.runs.checkpoint_header import read_header
    from .training.runs.folder import checkpoint_of
    from .training.runs.hub import local_run

    run = local_run(run)
    weights = None if proposal_weights is None else Path(proposal_weights)
    propose = proposer(read_header(checkpoint_of(run)), weights)
    # Imported here: PyTorch takes seconds to load.
    from .training.machine.devices import choose_device
    from .training.recipes import PRECISIONS
    from .training.runs.checkpoints import load_checkpoint

    if precision not in PRECISIONS:
        raise ConfigurationError(f"precision {precision!r}: wanted {', '.join(PRECISIONS)}")
    return Predictor(load_checkpoint(run), choose_device(device, precision), propose)


def proposer(header: CheckpointHeader, weights: Path | None) -> Propose | None:
    """Return stage 1's function for one image, with the settings of a checkpoint; None for a network without regions.

    The function can be pickled.

    Raises: `ConfigurationError` if the checkpoint's regions were proposed with other weights, or are shuffled.
    """
    if not header.regions:
        return None
    settings = ProposalSettings.from_dict(header.proposals)
    if settings.method in SHUFFLES:
        raise ConfigurationError(
            f"this run was trained as a control, with regions by --method {settings.method}, which a single photograph "
            "does not have; agnet evaluate measures the run on a data set"
        )
    if settings.weights != name_of_weights(weights):
        raise ConfigurationError(
            f"the regions of this run were proposed by {settings.method} with other weights; give that file with "
            "--proposal-weights"
        )
    return partial(_propose, settings=settings, weights=weights)


def tubes_proposer(header: CheckpointHeader) -> ProposeTubes | None:
    """Return stage 1's function for the frames of a clip, as `proposer` for one image; None for a network of images."""
    settings = ProposalSettings.from_dict(header.proposals)
    return partial(_propose_tubes, settings=settings) if header.regions and settings.frames else None


def _propose(image: np.ndarray, settings: ProposalSettings, weights: Path | None) -> Any:
    from .proposals.one_image import propose_regions

    if settings.frames:  # a network of clips sees a photograph as a clip of one frame
        return _propose_tubes([image], settings)[0][0]
    return propose_regions(image, settings, weights)


def _propose_tubes(frames: Sequence[np.ndarray], settings: ProposalSettings) -> Any:
    from .proposals.tubes import tubes_of_frames

    return tubes_of_frames(frames, settings)


def _many(name: str | Path) -> bool:
    """Whether a path stands for several files: a folder, or a pattern that is not the name of a file."""
    return Path(name).is_dir() or (glob.has_magic(str(name)) and not Path(name).exists())


def _is_single(images: object) -> bool:
    """Whether one image is given: an array, a PIL image, or the path of a file."""
    if isinstance(images, (str, Path)):
        return not _many(images)
    return isinstance(images, (np.ndarray, Image.Image))


def _listed(images: Picture | Iterable[Picture]) -> Iterable[Picture]:
    """Return the images as an iterable. Raises: `TypeError` for anything else."""
    if isinstance(images, (str, Path, np.ndarray, Image.Image)):
        return [images]
    if not isinstance(images, Iterable):
        raise TypeError(f"wanted paths, arrays or PIL images, got {type(images).__name__}")
    return images


def _warn(one: Unreadable) -> None:
    warnings.warn(f"left out of the gallery: {one.reason}", stacklevel=4)


def _each(images: Iterable[Picture]) -> Iterator[Input | np.ndarray | Image.Image]:
    """Yield the images, with folders and patterns expanded in place."""
    for image in images:
        if isinstance(image, (str, Path)):
            yield from find_inputs([str(image)], io.BytesIO()) if _many(image) else [Input(str(image))]
        else:
            yield image


def _rgb(image: np.ndarray, name: str) -> np.ndarray:
    """Convert a colour or grey image to uint8 RGB ``(H, W, 3)``."""
    grey = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
    if image.dtype != np.uint8 or not (grey or (image.ndim == 3 and image.shape[2] == 3)) or not image.size:
        raise ValueError(
            f"{name}: wanted a uint8 array (H, W, 3) in RGB, or (H, W) in grey; got {image.dtype} {image.shape}"
        )
    if grey:
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(image)


def _result(prediction: Prediction) -> Result:
    top = tuple(zip(prediction.classes, prediction.probabilities, strict=True))
    return Result(prediction.name, *top[0], top)
