"""Checks of the machine and of this installation, for bug reports: each works alone, needs no network and no data set.

What they find names no user, no machine, and no folder but those of caches, with the home folder as ~.
"""

from __future__ import annotations

import getpass
import importlib
import os
import platform
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from . import __version__
from .data.text import first_line, printable, rough_size

OK, WARNING, FAILED = "ok", "warning", "FAILED"
LITTLE_DISK, LITTLE_SHARED, FEW_FILES = 2 * 10**9, 256 * 10**6, 1024
_MODULES = {"torch": "torch", "torchvision": "torchvision", "OpenCV": "cv2", "NumPy": "numpy", "h5py": "h5py"}
_OPENCVS = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LOKY_MAX_CPU_COUNT")
_MEMORY = Path("/proc/meminfo")  #: of Linux
_FOR_DEVELOPERS = ("dev", "docs")  #: extras that no command needs


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    state: str  #: `OK`, `WARNING` or `FAILED`
    found: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def examine() -> list[Finding]:
    """Run every check, in some seconds; an exception is the finding of its check."""
    return [_anonymous(finding) for name, check in CHECKS.items() for finding in _findings(name, check)]


def has_failed(findings: Sequence[Finding]) -> bool:
    """Whether any check failed; a warning is no failure."""
    return any(one.state == FAILED for one in findings)


def _findings(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # of whatever kind: it is what the report is about
        yield Finding(name, FAILED, f"{type(error).__name__}: {first_line(error)}")


def _anonymous(finding: Finding) -> Finding:
    return replace(finding, found=anonymous(finding.found), remedy=anonymous(finding.remedy))


def anonymous(text: str) -> str:
    """Return ``text`` in one line without the current folder (.), the home folder (~), and the names of the user and
    of the machine.
    """
    places = []
    for short, place in ((".", Path.cwd), ("~", Path.home)):
        with suppress(OSError, RuntimeError):  # a folder that was deleted, a user without a home
            places.append((str(place()), short))
    for long, short in sorted(places, key=lambda pair: -len(pair[0])):
        if len(long) > 1:
            text = re.sub(rf"{re.escape(long)}(?![\w-])", short, text)
    with suppress(OSError, KeyError, ImportError):  # a user without a name, as in containers
        text = re.sub(rf"(?<=[/\\]){re.escape(getpass.getuser())}(?![\w-])", "USER", text)
    for name in {socket.gethostname(), platform.node()} - {"", "localhost"}:
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "HOST", text)
    return printable(" ".join(text.split()))


def _system() -> Iterator[Finding]:
    from .training.runs.provenance import code_revision

    code = code_revision()
    revision = f", git {str(code['git_revision'])[:10]}{' with changes' if code['git_dirty'] else ''}"
    yield Finding("agnet", OK, f"{__version__}{revision if code['git_revision'] else ''}")
    conda, inside = "CONDA_PREFIX" in os.environ, sys.prefix != sys.base_prefix
    where = "virtual environment" if inside else "conda environment" if conda else "no environment of its own"
    yield Finding("Python", OK, f"{platform.python_implementation()} {platform.python_version()}, {where}")
    yield Finding("system", OK, f"{platform.system()} {platform.release()}, {platform.machine()}")


def _module(name: str) -> Iterator[Finding]:
    module = importlib.import_module(_MODULES[name])
    found = str(getattr(module, "__version__", "of unknown version"))
    if name == "torch":
        found += f", built for CUDA {module.version.cuda}" if module.version.cuda else ", built without CUDA"
    if name == "h5py":
        found += f", HDF5 {module.version.hdf5_version}"
    installed = [one for one in _OPENCVS if _version(one)] if name == "OpenCV" else []
    if len(installed) > 1:
        remedy = f"they overwrite each other: pip uninstall {' '.join(installed)}, then install one of them"
        yield Finding(name, WARNING, f"{found}, of {' and '.join(installed)}", remedy)
    else:
        yield Finding(name, OK, found)


def _requirements() -> Iterator[Finding]:
    """What the installed agnet requires, and the packages of its extras that are there."""
    from packaging.requirements import Requirement  # required by Matplotlib

    try:
        wanted = [Requirement(line) for line in metadata.requires("agnet") or []]
    except metadata.PackageNotFoundError:
        yield Finding("requirements", WARNING, "agnet runs from a folder: unknown", "pip install . in that folder")
        return
    always = [one for one in wanted if one.marker is None]
    others = [
        one for one in wanted if one.marker and not any(f'"{extra}"' in str(one.marker) for extra in _FOR_DEVELOPERS)
    ]
    wrong = [f"{one.name} {_version(one.name) or 'is missing'}" for one in always if not _is_met(one)]
    fix = "pip install " + " ".join(f'"{one.name}{one.specifier}"' for one in always if not _is_met(one))
    yield (
        Finding("requirements", FAILED, ", ".join(wrong), fix)
        if wrong
        else Finding("requirements", OK, f"all {len(always)} packages are there")
    )
    there = {one.name: one for one in others if _version(one.name)}
    old = [f'"{one.name}{one.specifier}"' for one in there.values() if not _is_met(one)]
    found = ", ".join(f"{name} {_version(name)}" for name in there) or "none"
    yield Finding("optional", WARNING if old else OK, found, f"pip install {' '.join(old)}" if old else "")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _is_met(requirement: object) -> bool:
    from packaging.requirements import Requirement

    assert isinstance(requirement, Requirement)
    version = _version(requirement.name)
    return bool(version) and requirement.specifier.contains(version, prereleases=True)


def _threads() -> Iterator[Finding]:
    """Cores that this process may use, what limits them, and the threads that PyTorch computes with."""
    import joblib
    import torch

    machine, usable, threads = os.cpu_count() or 1, joblib.cpu_count(), torch.get_num_threads()
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    limits = ["the affinity of this process"] if bound < machine else []
    limits += ["a quota, as of a container"] if usable < bound and "LOKY_MAX_CPU_COUNT" not in os.environ else []
    variables = [f"{name}={os.environ[name]}" for name in _THREADS if name in os.environ]
    found = f"{usable} of {machine} cores"
    found += f", limited by {' and '.join(limits)}" if limits else ""
    found += f"; PyTorch computes with {threads}"
    found += f" ({', '.join(variables)})" if variables else ""
    if threads > usable:
        yield Finding("threads", WARNING, found, f"more threads than cores are slow: set OMP_NUM_THREADS={usable}")
    elif threads < usable // 2 and variables:
        yield Finding("threads", WARNING, found, f"unset {', '.join(name.partition('=')[0] for name in variables)}")
    else:
        yield Finding("threads", OK, found)


def _devices() -> Iterator[Finding]:
    import torch

    from .training.machine.device_names import why_no_cuda
    from .training.machine.hardware import hardware

    yield Finding("CPU", OK, str(hardware(torch.device("cpu"))["cpu"]))
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        yield Finding(f"GPU {number}", OK, f"{about.name}, {rough_size(about.total_memory)}")
    if torch.backends.mps.is_available():
        yield Finding("GPU", OK, "of Apple, MPS")
    elif not torch.cuda.device_count():
        yield Finding("GPU", OK, why_no_cuda() or "PyTorch finds none")


def _memory() -> Iterator[Finding]:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    available = _available_memory()
    told = "" if available is None else f", {rough_size(available)} of it available"
    yield Finding("memory", OK, f"{rough_size(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))}{told}")


def _available_memory() -> int | None:
    """Bytes that programs can get, with what the system gives back of its caches; None if it does not tell."""
    try:
        found = re.search(r"^MemAvailable: +(\d+) kB$", _MEMORY.read_text(), re.MULTILINE)
    except OSError:  # not on Linux
        found = None
    return int(found[1]) * 1024 if found else None


def _shared_memory() -> Iterator[Finding]:
    from .training.samples.loader import SHARED_MEMORY

    if not SHARED_MEMORY.is_dir():
        yield Finding("shared memory", OK, "without a limit of its own")
        return
    room = shutil.disk_usage(SHARED_MEMORY)
    little = room.free < LITTLE_SHARED
    remedy = "start the container with --shm-size=1g, or train with fewer --workers" if little else ""
    found = f"{SHARED_MEMORY}: {rough_size(room.free)} of {rough_size(room.total)} free"
    yield Finding("shared memory", WARNING if little else OK, found, remedy)


def _open_files() -> Iterator[Finding]:
    if find_spec("resource") is None:  # Windows
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = ["no limit" if limit == resource.RLIM_INFINITY else f"{limit:,}" for limit in (soft, hard)]
    few, enough = 0 <= soft < FEW_FILES, FEW_FILES * 4
    most = enough if hard == resource.RLIM_INFINITY else min(hard, enough)
    raised = f"ulimit -n {most}" if most > soft else ""
    more = "" if most >= FEW_FILES else "ask the administrator of this machine for a higher hard limit (ulimit -Hn)"
    remedy = ", and ".join(filter(None, (raised, more))) if few else ""
    yield Finding("open files", WARNING if few else OK, f"at most {said[0]}, up to {said[1]} on request", remedy)


def _folder() -> Iterator[Finding]:
    """An HDF5 file written to the current folder and read again: network file systems may lock in other ways."""
    import h5py
    import numpy as np

    free = shutil.disk_usage(".").free
    values = np.arange(1000, dtype=np.float32)
    try:
        with tempfile.TemporaryDirectory(prefix="agnet-doctor-", dir=".") as place:
            with h5py.File(Path(place, "trial.h5"), "w") as file:
                file.create_dataset("values", data=values, compression="gzip")
            with h5py.File(Path(place, "trial.h5"), "r") as file:
                same = bool(np.array_equal(file["values"][:], values))
    except OSError as error:
        remedy = "go to a folder that you may write to, with room on its disk"
        yield Finding("current folder", FAILED, f"no HDF5 file can be written: {first_line(error)}", remedy)
        return
    found = f"HDF5 is written and read; {rough_size(free)} free"
    if not same:
        yield Finding("current folder", FAILED, "an HDF5 file was read other than written", "use another disk")
    elif free < LITTLE_DISK:
        yield Finding("current folder", WARNING, found, "make room, or work on another disk")
    else:
        yield Finding("current folder", OK, found)


def _caches() -> Iterator[Finding]:
    """Folders that packages write to: weights of PyTorch, fonts of Matplotlib."""
    import torch

    from .data.errors import ConfigurationError
    from .data.files import check_folder_writable, existing_part

    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    fonts = Path(os.environ.get("MPLCONFIGDIR") or cache / "matplotlib")
    for what, place, variable in (
        ("weights", Path(torch.hub.get_dir()), "TORCH_HOME"),
        ("fonts", fonts, "MPLCONFIGDIR"),
    ):
        found = f"{place}, {rough_size(shutil.disk_usage(existing_part(place)).free)} free"
        try:
            check_folder_writable(place, f"set {variable} to a folder that you may write to")
            yield Finding(f"cache of {what}", OK, found)
        except ConfigurationError as error:
            complaint, _, remedy = str(error).partition("; ")
            yield Finding(f"cache of {what}", WARNING, complaint, remedy)


def _photograph() -> Iterator[Finding]:
    """Stage 1 on a photograph that comes with scikit-learn."""
    from .data.images import read_image
    from .proposals.one_image import propose_regions
    from .proposals.settings import ProposalSettings

    start = time.perf_counter()
    file = metadata.distribution("scikit-learn").locate_file("sklearn/datasets/images/china.jpg")
    image = read_image(Path(str(file)))
    regions = propose_regions(image, ProposalSettings())
    took = 1000 * (time.perf_counter() - start)
    height, width = image.shape[:2]
    found = f"{width} x {height} pixels decoded, {regions.total_keypoints:,} SIFT keypoints, "
    found += f"{len(regions.boxes_xyxy)} regions, {took:.0f} ms"
    yield Finding("photograph", OK if regions.total_keypoints else FAILED, found)


def _training() -> Iterator[Finding]:
    import torch

    devices = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    for device in devices:
        name = f"training on {device}"
        yield from _findings(name, lambda name=name, device=device: _step(name, device))  # type: ignore[misc]


def _step(name: str, device: str) -> Iterator[Finding]:
    """One training step of a tiny network with torchvision's region pooling, after which its loss must be smaller."""
    import torch
    from torch import nn
    from torchvision.ops import roi_align

    start = time.perf_counter()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 32, 32, generator=generator).to(device)
    labels = torch.tensor([0, 1, 0, 1], device=device)
    boxes = [torch.tensor([[4.0, 4.0, 20.0, 20.0]], device=device)] * len(images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()).to(device)
        head = nn.Linear(8 * 9, 2).to(device)
    optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.01)
    losses = []
    for _ in range(2):
        loss = nn.functional.cross_entropy(head(roi_align(body(images), boxes, 3).flatten(1)), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = f"loss {losses[0]:.3f}, after one step {losses[1]:.3f}, {1000 * (time.perf_counter() - start):.0f} ms"
    remedy = "" if losses[1] < losses[0] else "try --device cpu, and report this"
    yield Finding(name, FAILED if remedy else OK, found, remedy)


def _of_module(name: str) -> Callable[[], Iterator[Finding]]:
    return lambda: _module(name)


CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "system": _system,
    **{name: _of_module(name) for name in _MODULES},
    "requirements": _requirements,
    "devices": _devices,
    "threads": _threads,
    "memory": _memory,
    "shared memory": _shared_memory,
    "open files": _open_files,
    "current folder": _folder,
    "caches": _caches,
    "photograph": _photograph,
    "training": _training,
}
