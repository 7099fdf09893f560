"""Networks by name on the Hugging Face hub, with the methods that users of the hub expect on a class.

huggingface_hub's own ``PyTorchModelHubMixin`` is not used. It is a base class, so every network would load the package
and wrap its constructor; it builds a network from the JSON values of its constructor's arguments, which are blocks
here; it accepts missing weights without a word; and where there is no safetensors file it loads a pickle. These methods
hand on to `training.runs.hub`, which calls the package's own functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .contract import Settings

Self = TypeVar("Self", bound="Pretrained")


class Pretrained:
    """Base class of networks that can be read from the hub, and written to it."""

    #: What was read with the weights, a `CheckpointHeader`: settings, classes, settings of stage 1; None: nothing.
    header: Any = None

    @classmethod
    def from_pretrained(cls: type[Self], name: str | Path, *, revision: str | None = None) -> Self:
        """Load a trained network from the Hugging Face hub, or from a folder.

        The weights are downloaded once, into the hub's own cache; nothing but safetensors and JSON is read.

        Args:
            name: Name on the hub, ``OWNER/NAME``, or an existing folder: of a run, or of `save_pretrained`.
            revision: Branch, tag or commit on the hub; None: the main branch.

        Returns: the network, in evaluation mode, with its `header`.
        Raises: `CheckpointError` if there is no network of this class, `DownloadError` if the hub does not give it, and
            `ConfigurationError` if huggingface_hub is not installed.
        """
        from ..runs.pretrained import load_pretrained

        return load_pretrained(cls, name, revision)

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        settings: Settings | None = None,
        classes: Sequence[str] | None = None,
        proposals: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the network as a folder of the hub: ``model.safetensors``, ``config.json`` and a model card.

        Args:
            folder: Folder to write into; its files of these names are replaced.
            settings: Settings that the network was built from. None: those of `header`.
            classes: Class names in the order of the outputs. None: those of `header`.
            proposals: Settings of stage 1 that find its regions. None: those of `header`, or the defaults.

        Returns: the folder.
        Raises: `ConfigurationError` if settings or classes are not known, `CheckpointError` if it cannot be written.
        """
        from ..runs.pretrained import save_pretrained

        return save_pretrained(self, Path(folder), settings, classes, proposals)

    def push_to_hub(self, name: str, *, private: bool = False, licence: str = "", force: bool = False) -> str:
        """Write the network, which was loaded from a checkpoint, into a repository of the hub.

        ``agnet push`` writes a run, whose card also says data, training and results.

        Args:
            name: Name of the repository, ``OWNER/NAME[@BRANCH]``; it is made if it does not exist.
            private: Whether a new repository can be seen by its owner only.
            licence: Licence of the weights, as an identifier of the hub, such as ``mit``; by default that of the
                repository's card.
            force: Whether a repository is written to that holds something else: files of others, or a network with
                other classes or settings.

        Returns: the address of the repository.
        Raises: `DownloadError` if the hub refuses or cannot be reached, `CheckpointError` if the repository holds
            something else, and as `save_pretrained`.
        """
        from ..runs.pretrained import push_pretrained

        return push_pretrained(self, name, private, licence, force)
