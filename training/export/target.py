"""Checks of an export that are possible before PyTorch is loaded, which takes seconds."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ...data.errors import ConfigurationError
from ...data.files import check_writable
from ...extras import how_to_install
from ..runs.checkpoint_header import read_header
from ..runs.folder import checkpoint_of
from .formats import FLOAT, FORMATS


def check_export(run: str | Path, format: str, output: Path | None, precision: str = FLOAT) -> tuple[Path, Path]:
    """Determine the checkpoint to export and the file to write.

    Args:
        run: Folder of the run, or its checkpoint.
        format: One of `FORMATS`.
        output: File to write. None: ``model`` with the format's suffix, beside the checkpoint; ``model-int8`` or
            ``model-half`` in these precisions.
        precision: One of `PRECISIONS`.

    Raises: as `export.export_run`, for everything that can be checked before the network is loaded.
    """
    missing = [package for package in FORMATS[format].packages if find_spec(package) is None]
    if missing:
        raise ConfigurationError(f"--format {format} needs {', '.join(missing)}: {how_to_install(*missing)}")
    if precision != FLOAT and format != "onnx":
        raise ConfigurationError(f"--precision {precision} is written as ONNX: leave out --format {format}")
    checkpoint = checkpoint_of(run)
    read_header(checkpoint)
    part = "" if precision == FLOAT else f"-{precision}"
    output = output or checkpoint.with_name(f"model{part}{FORMATS[format].suffix}")
    _check_output(format, output)
    if precision != FLOAT:
        report = report_of(output)
        if report.is_dir():
            raise ConfigurationError(f"{report} is a folder, in place of the report; name another file with --output")
        check_writable(report, "name another file with --output")
    return checkpoint, output


def report_of(file: Path) -> Path:
    """JSON file beside an export of lower precision that says what it loses."""
    return file.with_name(f"{file.name}.json")


def _check_output(format: str, output: Path) -> None:
    suffix = FORMATS[format].suffix
    if output.is_dir():
        raise ConfigurationError(f"{output} is a folder; name a file in it, such as {output / f'model{suffix}'}")
    if not output.parent.is_dir():
        raise ConfigurationError(f"{output}: there is no folder {output.parent}")
    if output.suffix != suffix:
        raise ConfigurationError(f"{output}: a file of --format {format} must end in {suffix}; name another")
    check_writable(output, "name another file with --output")
