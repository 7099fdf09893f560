"""ONNX files of half precision and of 8-bit integers, made from one of float32.

8-bit integers are those of ONNX Runtime's static quantisation (QDQ: pairs of QuantizeLinear and DequantizeLinear around
an operator): weights per channel, activations by the least and greatest values that photographs of the training split
give.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...data.errors import CheckpointError
from .writing import METADATA, Inputs, reason

_PRODUCTS = ("Conv", "MatMul", "Gemm")
# An activation is quantised with its convolution: the values before a ReLU6 reach far outside the 0 to 6 that are kept
# of them, and without this, efficientnet-lite0 lost seven points of top-1 instead of one.
_WITH_THEM = ("Clip", "Relu")


def write_half(source: Path, target: Path) -> dict[str, object]:
    """Write a float32 file with weights and arithmetic in half precision; inputs and outputs keep their types.

    Returns: what was done, for the metadata.
    Raises: `CheckpointError` if the network cannot be converted.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(source)
    with _explained("half precision"):
        made = convert_float_to_float16(model, keep_io_types=True)
    done: dict[str, object] = {"precision": "half"}
    _save(made, done, target)
    return done


def write_int8(source: Path, target: Path, photographs: Callable[[], Iterable[Inputs]]) -> dict[str, object]:
    """Write a float32 file with its convolutions, matrix products and linear layers in 8-bit integers.

    Args:
        source: File of float32.
        target: File to write.
        photographs: Function that yields batches of inputs, by which the ranges of activations are set.

    Returns: what was done, for the metadata.
    Raises: `CheckpointError` if the network cannot be quantised.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with _explained("8-bit integers"), _quiet():
        quantize_static(
            source,
            target,
            _calibration_reader(photographs),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=[*_PRODUCTS, *_WITH_THEM],
        )
    made = onnx.load(target)
    done: dict[str, object] = {"precision": "int8", "operators_in_int8": _in_int8(made)}
    _save(made, done, target)
    return done


def _in_int8(model: Any) -> dict[str, int]:
    """Number of the convolutions, matrix products and linear layers of which both factors are 8-bit integers."""
    restored = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    counts = Counter(node.op_type for node in model.graph.node if restored.issuperset(node.input[:2]))
    return {name: counts[name] for name in _PRODUCTS}


def _calibration_reader(photographs: Callable[[], Iterable[Inputs]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(photographs())

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: value.numpy() for name, value in batch.items()}

    return Reader()


def _save(model: Any, done: dict[str, object], target: Path) -> None:
    """Write a model with its metadata, what was done added."""
    model.producer_name, model.producer_version = "agnet", __version__
    for entry in model.metadata_props:
        if entry.key == METADATA:
            entry.value = json.dumps(json.loads(entry.value) | done)
    target.write_bytes(model.SerializeToString())


@contextmanager
def _explained(precision: str) -> Iterator[None]:
    """Turn what a converter raises into one line."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:  # converters raise whatever they meet
        raise CheckpointError(
            f"this network cannot be converted to {precision}, so no file was written: {reason(error)}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Context without the advice that the quantiser gives to its own developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
