"""Errors that a user can meet. Each message says what failed, where, the likely cause and the remedy.

The command line prints them as one line. Any other exception is a programming error and keeps its traceback.
"""


class AgnetError(Exception):
    """Base class of all errors caused by the input rather than the program."""


class ConfigurationError(AgnetError):
    """An option or setting has an unusable value."""


class DatasetError(AgnetError):
    """A data set is not on disk, or not in the layout that its name implies."""


class AbsentError(DatasetError):
    """No part of a named data set is on disk."""


class ImageError(AgnetError):
    """An image cannot be decoded, or must not be (too many pixels).

    Args:
        reason: Full message for the user.
        fault: Fault in two or three words, one of those in `faults`; the boxes file counts images by it.
    """

    fault = "cannot be read"

    def __init__(self, reason: str, fault: str = "") -> None:
        super().__init__(reason)
        self.fault = fault or self.fault


class PassingError(ImageError):
    """An image cannot be read or decoded now, because of memory, disk or network rather than the image itself."""

    fault = "left for now"


class WorkerError(AgnetError):
    """Worker processes cannot be started, or die regardless of their task."""


class BoxesFileError(AgnetError):
    """A file is not a complete, well-formed boxes file."""


class MismatchError(AgnetError):
    """Two things that must come from the same settings or images do not."""


class CheckpointError(AgnetError):
    """A run folder or a weights file cannot be used as asked."""


class TrainingError(AgnetError):
    """Training cannot continue: values are no longer finite, or memory is exhausted."""


class DownloadError(AgnetError):
    """A file cannot be downloaded or uploaded, or is not the published one."""


class ArchiveError(AgnetError):
    """An archive is damaged, or contains entries that must not be written to disk."""
