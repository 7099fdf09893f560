"""Base class of the models: what training and prediction use besides ``forward``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

from torch import Tensor, nn

from .backbones.backbone import Backbone
from .blocks.each_frame import each_frame, valid_mean
from .contract import Output
from .pretrained import Pretrained

BACKBONE, HEAD, CLASSIFIER = "backbone", "head", "classifier"  #: kinds of parts of a network


class Model(nn.Module, Pretrained):
    """Base class of image recognition models: ``forward`` takes the fields named in `inputs` and returns an `Output`.

    A subclass assigns its backbones, ``dropout`` and ``classifier`` as attributes; the rest is derived from them. Its
    ``forward`` ends with `classified` or `classified_frames`.
    """

    inputs: ClassVar[tuple[str, ...]] = ("images",)  #: batch fields that ``forward`` takes, in order
    titles: ClassVar[dict[str, str]] = {}  #: display names of parts, if not the attribute with hyphens
    dropout: nn.Dropout  #: before the classifier; training sets its probability
    classifier: nn.Module
    neck: nn.Module | None  #: batch norm of the embedding, for retrieval
    _size_hw: tuple[int, int] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.neck = None

    def classified(self, embedding: Tensor, **others: object) -> Output:
        """Return the output of an embedding ``(B, C)``: neck, dropout and classifier.

        Args:
            embedding: Features of the images.
            others: Further fields of the output.
        """
        normed = embedding if self.neck is None else self.neck(embedding)
        compared = None if self.neck is None else embedding
        logits = self.classifier(self.dropout(normed))
        return Output(logits, embedding=normed, compared=compared, **others)  # type: ignore[arg-type]

    def classified_frames(self, features: Tensor, valid: Tensor, **others: object) -> Output:
        """Return the output of features of frames ``(B, T, C)``, as `classified`, with logits ``(B, T, classes)``.

        The embedding is the mean over the valid frames; the logits of padded frames mean nothing.

        Args:
            features: Features of the frames.
            valid: bool ``(B, T)``.
            others: Further fields of the output.
        """
        normed = features if self.neck is None else each_frame(self.neck, features, valid)
        compared = None if self.neck is None else valid_mean(features, valid)
        logits = self.classifier(self.dropout(normed))
        return Output(logits, embedding=valid_mean(normed, valid), compared=compared, **others)  # type: ignore[arg-type]

    @property
    def backbones(self) -> tuple[Backbone, ...]:
        """All backbones, each once, in the order of the attributes."""
        return tuple(module for module in self.modules() if isinstance(module, Backbone))

    @property
    def map_layer(self) -> nn.Module:
        """Module whose output ``(B, C, h, w)``, the map that the head receives, is differentiated for explanations.

        The default is the first backbone. The head must then call the backbone itself, not its ``maps``, so that
        forward hooks run.
        """
        return self.backbones[0]

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Context of explanations: ``forward`` returns the same values, but a model may change its gradients.

        A model whose logits do not change with the scale of the map needs this: there, gradient times activation sums
        to 0 over the positions. By default, gradients are unchanged.
        """
        yield

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the input images; unless set, the square size of the first backbone's preprocessing."""
        side = self.backbones[0].preprocessing.size
        return self._size_hw or (side, side)

    @size_hw.setter
    def size_hw(self, size_hw: tuple[int, int]) -> None:
        self._size_hw = size_hw

    def parts(self) -> dict[str, str]:
        """Parts of the model: path of a module or of a single parameter -> `BACKBONE`, `HEAD` or `CLASSIFIER`.

        Every attribute is a part of the head, except the backbones and ``classifier``. Every name in the state dict
        belongs to the part that `path_of` returns.
        """
        backbones = {
            path: BACKBONE
            for path, module in self.named_modules(remove_duplicate=False)
            if isinstance(module, Backbone)
        }
        others = [name.partition(".")[0] for name in self.state_dict() if path_of(backbones, name) is None]
        modules = dict(self.named_children())
        others.sort(key=lambda name: name not in modules)  # single parameters last
        return backbones | {name: CLASSIFIER if name == "classifier" else HEAD for name in others}

    def title(self, path: str) -> str:
        """Display name of a part."""
        return self.titles.get(path, path.replace("_", "-"))


def path_of(parts: Mapping[str, str], name: str) -> str | None:
    """Path of the part to which a parameter or buffer belongs: the longest path with which its name starts, or None."""
    return max((path for path in parts if f"{name}.".startswith(f"{path}.")), key=len, default=None)


def kind_of(parts: Mapping[str, str], name: str) -> str:
    """Kind of the part to which a parameter or buffer belongs: `BACKBONE`, `HEAD` or `CLASSIFIER`."""
    path = path_of(parts, name)
    return HEAD if path is None else parts[path]
