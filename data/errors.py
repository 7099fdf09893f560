"""The errors a user can meet. Each message says what failed, where, the likely cause and the remedy.

The command line prints these as one line; anything else is a programming error and keeps its traceback.
"""


class AgnetError(Exception):
    """Base of all errors that are the input's fault rather than the program's."""


class ConfigurationError(AgnetError):
    """An option or setting has a value nothing can be done with."""


class DatasetError(AgnetError):
    """A data set is not on disk, or not in the layout that its name promises."""


class AbsentError(DatasetError):
    """Nothing of a named data set is on disk."""


class ImageError(AgnetError):
    """One image cannot be decoded, or must not be (too many pixels).

    Args:
        reason: a sentence for people.
        fault: what is wrong in two or three words, one of `faults`; the boxes file counts images by it.
    """

    fault = "cannot be read"

    def __init__(self, reason: str, fault: str = "") -> None:
        super().__init__(reason)
        self.fault = fault or self.fault


class PassingError(ImageError):
    """One image cannot be read or decoded now, for want of memory or by a fault of a disk or network, not its own."""

    fault = "left for now"


class WorkerError(AgnetError):
    """Worker processes cannot be started, or do not live whatever they are given to do."""


class BoxesFileError(AgnetError):
    """A file is not a complete, well-formed boxes file."""


class MismatchError(AgnetError):
    """Two things that must come from the same settings or images do not."""


class CheckpointError(AgnetError):
    """A run folder or a weights file cannot be used as asked."""


class TrainingError(AgnetError):
    """Training cannot go on: its numbers are no longer finite, or the memory does not suffice."""


class DownloadError(AgnetError):
    """A file cannot be fetched, or is not the one that was published."""


class ArchiveError(AgnetError):
    """An archive is damaged, or holds what must not be written to disk."""
