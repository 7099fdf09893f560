"""The kinds of file that a network is exported to. Nothing heavy is imported here: the command line offers them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A kind of file; ``write`` and ``load`` are functions of this package, ``module:function``."""

    suffix: str
    packages: tuple[str, ...]  #: that it takes, of the extra ``onnx``
    write: str
    load: str


FORMATS = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), "writing:write_onnx", "writing:load_onnx"),
    "torch": Format(".pt2", (), "writing:write_torch", "writing:load_torch"),
}
