"""Checks of device names that are possible before PyTorch is loaded, which takes seconds."""

from __future__ import annotations

import ctypes
import re
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

from ...data.errors import ConfigurationError

NO_MPS = "device 'mps' cannot be used: PyTorch finds no Apple GPU here; use --device auto"


def check_device(name: str, precision: str = "auto") -> None:
    """Check a device name.

    Raises: `ConfigurationError` for an invalid device, one that this machine cannot have, or one that cannot train in
    that precision.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ConfigurationError(f"device {name!r}: wanted cpu, cuda, cuda:N, mps or auto")
    if name == "mps" and sys.platform != "darwin":
        raise ConfigurationError(NO_MPS)
    if name.startswith("cuda") and (reason := why_no_cuda()):
        raise ConfigurationError(f"device {name!r} cannot be used: {reason}; use --device auto")
    if precision == "fp16" and name in ("cpu", "mps"):
        raise ConfigurationError(
            f"fp16 on {name}: its gradients need scaling, which works on CUDA GPUs only; use --precision bf16 or fp32"
        )


def why_no_cuda() -> str:
    """The reason why PyTorch will find no CUDA GPU; empty if only PyTorch can tell."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return ""
    try:
        version = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    except (OSError, SyntaxError):
        return ""
    if version.get("hip"):
        return ""
    if version.get("cuda", "") is None:
        return "this PyTorch was built without CUDA"
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return "there is no NVIDIA driver on this machine"
    return ""
