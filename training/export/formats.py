"""File formats and precisions of exported networks. Nothing heavy is imported here: the command line lists them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A file format; ``write`` and ``load`` name functions of this package as ``module:function``."""

    suffix: str
    packages: tuple[str, ...]  #: required packages; the extra ``onnx`` installs them
    write: str
    load: str


FORMATS = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), "writing:write_onnx", "writing:load_onnx"),
    "torch": Format(".pt2", (), "writing:write_torch", "writing:load_torch"),
}
FLOAT, HALF, INT8 = "float", "half", "int8"
PRECISIONS = (FLOAT, HALF, INT8)
