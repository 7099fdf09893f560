"""Writing and running of exported files, for each format."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ... import __version__
from ...data.errors import CheckpointError, ConfigurationError
from ...data.text import first_line

METADATA = "agnet"  #: metadata key in an ONNX file; with .json, name of the extra file in a .pt2

Inputs = dict[str, Tensor]  #: ``images`` uint8 ``(B, 3, S, S)``; ``boxes`` float32 ``(B, R, 4)`` where R > 0
Outputs = dict[str, Tensor]  #: as `Network.forward` returns them
About = dict[str, Any]  #: metadata of the file, as JSON values
Runner = Callable[[Inputs], Outputs]

_PROTOBUF_LIMIT = 2**31 - 2**20  # bytes of weights in one ONNX file, which leaves 1 MiB for the rest


def write_onnx(program: torch.export.ExportedProgram, about: About, file: Path) -> None:
    """Write a program as an ONNX file.

    Raises: `ConfigurationError` if the weights exceed the size of one file, `CheckpointError` if ONNX lacks an
        operator.
    """
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size > _PROTOBUF_LIMIT:
        raise ConfigurationError(f"{size / 2**30:.1f} GiB of weights: one ONNX file holds 2 GiB; use --format torch")
    inputs, outputs = about["inputs"], about["outputs"]
    try:
        with quiet("onnxscript.optimizer._constant_folding"):
            made = torch.onnx.export(
                program,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=dict.fromkeys(inputs) | {"images": {0: "batch"}},  # named once for all inputs
                dynamo=True,
                verbose=False,
            )
    except RuntimeError as error:  # for example, an operator that ONNX lacks
        raise CheckpointError(f"ONNX cannot express this network: {reason(error)}; use --format torch") from error
    assert made is not None
    _keep_only_names(made.model)
    made.model.producer_name, made.model.producer_version = "agnet", __version__
    made.model.metadata_props[METADATA] = json.dumps(about)
    for value in (*made.model.graph.inputs, *made.model.graph.outputs):
        value.doc_string = (inputs | outputs)[value.name]
    file.write_bytes(made.model_proto.SerializeToString())


def _keep_only_names(model: Any) -> None:
    """Remove the exporter's notes, which may contain paths of source code, except the module of each operator."""
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        namespace = node.metadata_props.get("namespace")
        node.metadata_props.clear()
        node.doc_string = None
        if namespace:
            node.metadata_props["namespace"] = namespace
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def load_onnx(file: Path) -> Runner:
    """Load an ONNX file into ONNX Runtime on a CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Inputs) -> Outputs:
        found = session.run(names, {name: value.numpy() for name, value in inputs.items()})
        return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}

    return run


def write_torch(program: torch.export.ExportedProgram, about: About, file: Path) -> None:
    """Write a program as `torch.export` saves it."""
    content = io.BytesIO()  # on a full disk, torch's own writer crashes the process
    torch.export.save(program, content, extra_files={f"{METADATA}.json": json.dumps(about)})
    file.write_bytes(content.getbuffer())


def load_torch(file: Path) -> Runner:
    """Load an exported program of PyTorch."""
    with file.open("rb") as opened:
        loaded = torch.export.load(opened).module()
    return lambda inputs: loaded(**inputs)


@contextmanager
def quiet(logger: str) -> Iterator[None]:
    """Context without a library's notes for its own developers."""
    log = logging.getLogger(logger)
    before = log.level
    try:
        log.setLevel(logging.CRITICAL)
        yield
    finally:
        log.setLevel(before)


def reason(error: BaseException) -> str:
    """First line of the original error: exporters wrap it in errors that only report a failure."""
    while error.__cause__:
        error = error.__cause__
    return first_line(error)
