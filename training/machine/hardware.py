"""The hardware that a run is trained on, without the names of the machine or of its user."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import joblib
import torch

from ...data.text import printable


def hardware(device: torch.device) -> dict[str, object]:
    """Names of the processor and of the GPU, and the numbers of cores and threads; no GPU unless the device is CUDA's.

    ``cores`` are those that this process may use, ``threads`` those that PyTorch computes with on the CPU.
    """
    return {
        "cpu": printable(_processor()),
        "cores": joblib.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": printable(torch.cuda.get_device_name(device)) if device.type == "cuda" else None,
    }


def _processor() -> str:
    """Name of the processor, or of its architecture if the system does not tell more."""
    with suppress(OSError, subprocess.SubprocessError):
        if sys.platform == "darwin":
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
        named = re.search(r"^model name\s*:\s*(\S.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        if named:
            return " ".join(named[1].split())
    return platform.processor() or platform.machine()
