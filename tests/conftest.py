"""Fixtures shared by several test files: generated photographs, a tiny data set of them, and its boxes file."""

from __future__ import annotations

import os

# Read when libraries are loaded, here and in the processes that tests start: on these small networks, on a few hundred
# points or on a busy machine, several threads only wait for each other, and waiting is work.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

# ruff: noqa: E402
import platform
import shutil
import signal
import socket
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import h5py
import joblib
import numpy as np
import pytest
import threadpoolctl
from click.testing import CliRunner
from PIL import Image, ImageDraw

from agnet.cli import main
from agnet.data.boxes.reader import read_boxes
from agnet.data.boxes.writer import build_part, write_boxes
from agnet.data.contents import hash_of
from agnet.data.index import build_index
from agnet.data.regions import Layout, Proposal, Regions, Tubes
from agnet.data.sets.catalogue import open_dataset
from agnet.data.videos import VideoWriter
from agnet.proposals.run import propose_dataset
from agnet.proposals.settings import ProposalSettings
from training_crash import Nursery

cv2.setNumThreads(1)
threadpoolctl.threadpool_limits(1)

# Processes started in the background of a script or by nohup ignore Ctrl-C, and so do their children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# These may be set in the environment of the tests for other programs or other runs of this one.
for _name in ("AGNET_ROOT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
    os.environ.pop(_name, None)


@pytest.fixture(autouse=True)
def _work_in_this_process():
    """Run joblib in this process: starting workers takes longer than these data sets. Tests of workers select loky."""
    with joblib.parallel_config(backend="sequential"):
        yield


@pytest.fixture(scope="session", autouse=True)
def _quick_plots():
    """Write one pixel in place of the plots of trainings and evaluations, which take half a second each; what they show
    is tested where they are drawn. Returns the real functions by their places.
    """
    real = {}
    with pytest.MonkeyPatch.context() as patch:
        for module, names in PLOTS.items():
            for name in names if module in sys.modules else ():
                real[f"{module}.{name}"] = getattr(sys.modules[module], name)
                patch.setattr(f"{module}.{name}", _one_pixel)
        yield real


@pytest.fixture(autouse=True)
def _real_plots(request, _quick_plots):
    """Draw the plots of a test that is marked ``pictures``."""
    # Not by the test's own monkeypatch, which must be the first to be undone.
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("pictures"):
            for place, function in _quick_plots.items():
                patch.setattr(place, function)
        yield


PLOTS = {
    "agnet.training.loop.fit": ("draw_curves",),
    "agnet.training.measure.evaluation_plots": ("draw_confusion", "draw_calibration", "draw_cmc"),
}


def _one_pixel(_, path, *titles):
    Image.new("RGB", (1, 1)).save(path)
    return path


@pytest.fixture
def agnet(tmp_path, monkeypatch):
    """A function that runs a command in ``tmp_path`` and returns click's result; unexpected exceptions are raised."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, code=0):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture(scope="module")
def one_thread():
    """Limit torch to one thread: on a busy machine, waiting threads make these small networks fifty times slower."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def small_mobilenet():
    """Build the backbone ``mobilenet-v3-small`` with fewer blocks: half of the time of these small trainings."""
    import torchvision
    from small_mobilenet import mobilenet_v3_small

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchvision.models, "mobilenet_v3_small", mobilenet_v3_small)
        yield


CLASSES = ("ant", "bee", "côté")


@pytest.fixture(scope="session")
def untrained():
    """``(settings) -> Checkpoint`` of three classes as written by training, but with random weights."""
    import torch

    from agnet.training.models.build import build_model
    from agnet.training.runs.checkpoints import Checkpoint

    def build(settings):
        torch.manual_seed(0)
        model = build_model(settings).eval()
        return Checkpoint(
            model=model,
            settings=settings,
            classes=("ant", "bee", "côté"),
            proposals={"method": "sift", "primary": 3},
            fingerprint="f" * 32,
            epoch=4,
            val_top1=0.5,
        )

    return build


def _textured(seed, width=160, height=120):
    """Draw an image, uint8 RGB ``(height, width, 3)``, with soft texture and sharp shapes: a few dozen keypoints."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (height // 10 + 2, width // 10 + 2, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = generator.uniform((0, 0), (width, height))
        w, h = generator.uniform(0.05, 0.35, 2) * min(width, height)
        colour = tuple(generator.integers(0, 256, 3).tolist())
        shape = pen.ellipse if generator.random() < 0.5 else pen.rectangle
        shape((x, y, x + w, y + h), fill=colour)
    return np.asarray(image)


@pytest.fixture(scope="session")
def textured():
    """A function of a seed, a width and a height that draws a textured image."""
    return _textured


@pytest.fixture(scope="session")
def _original_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("original")
    for split, count in (("train", 4), ("val", 2)):
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = _textured([label, number, count], 96 + 16 * number, 80 + 8 * label)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture
def folder(_original_folder, tmp_path):
    """A data set of three classes: ``train`` with four images each and ``val`` with two; tests may change it."""
    return shutil.copytree(_original_folder, tmp_path / "images")


@pytest.fixture(scope="session")
def _original_boxes(_original_folder):
    path = _original_folder.with_name("original.h5")
    index = open_dataset("folder", _original_folder)
    settings = ProposalSettings(primary=3)
    with joblib.parallel_config(backend="sequential"):
        propose_dataset(index, settings, path)
    return path


@pytest.fixture
def boxes_file(_original_boxes, tmp_path):
    """The boxes file of `folder`, with three primary regions; tests may damage it."""
    return shutil.copy(_original_boxes, tmp_path / "boxes.h5")


# The tables of version 2: column name in version 2 -> column name in version 3.
_VERSION_2 = {
    "images": {
        "path_relative_to_the_dataset_root": "path_relative_to_the_dataset_root",
        **{name: name for name in ("split", "label", "width", "height", "keypoints", "distinct_keypoints")},
        "distinct_regions": "distinct_regions",
        "status": "status_of_the_image",
        **{name: name for name in ("file_bytes", "modified_utc", "content_blake2b")},
    },
    "failures": {
        "image": "image",
        "path_relative_to_the_dataset_root": "name_of_the_image_file",
        "reason_the_image_could_not_be_used": ("the_whole_reason_why_this_image_could_not_be_used_for_any_regions"),
    },
    "settings": {
        "name_of_the_setting": "name_of_the_setting_of_the_run",
        "value_used_when_the_boxes_were_computed": "value_used_when_the_boxes_were_computed",
    },
}


def _as_version_2(path):
    """Convert a boxes file in place to format version 2 and return ``path``."""
    with h5py.File(path, "r+", libver=("earliest", "v110")) as file:
        paths = file["images"]["path_relative_to_the_dataset_root"]
        for table, columns in _VERSION_2.items():
            if table not in file:
                continue
            rows, description = file[table][:], file[table].attrs["description"]
            cells = {name: rows[column] for name, column in columns.items()}
            if table == "failures":
                cells["path_relative_to_the_dataset_root"] = paths[rows["image"]]
            kinds = [(name, values.dtype) for name, values in cells.items()]
            texts = [(n, h5py.string_dtype("utf-8", k.itemsize) if k.kind == "S" else k) for n, k in kinds]
            old = np.zeros(len(rows), np.dtype(kinds))
            for name, values in cells.items():
                old[name] = values
            del file[table]
            options = {"compression": "gzip", "compression_opts": 4, "shuffle": True, "fletcher32": True}
            made = file.create_dataset(table, (len(old),), np.dtype(texts), chunks=(len(old),), **options)
            made[:] = old.view(made.dtype)
            made.attrs["description"] = description
        del file["00_read_me"]
        if "preview/00_contact_sheet" in file:
            file.move("preview/00_contact_sheet", "preview/contact_sheet")
        file.attrs["format_version"] = np.int32(2)
    return path


@pytest.fixture(scope="session")
def as_version_2():
    """A function that converts a boxes file in place to format version 2."""
    return _as_version_2


@pytest.fixture
def a_named_host(monkeypatch):
    """A host name for a test: the real one may be "vm" or "train", which occur in many files."""
    name = "the-host-of-this-test"
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    monkeypatch.setattr(platform, "node", lambda: name)
    return name


@dataclass
class Site:
    """Files and behaviour of a small local web server, and the requests it received."""

    files: dict[str, bytes] = field(default_factory=dict)
    etag: str | None = '"1"'
    ranges: bool = True  #: whether it honours Range
    if_range: bool = True  #: whether it honours If-Range
    lengths: bool = True  #: whether it sends the length
    behaviours: list = field(
        default_factory=list
    )  #: for the next requests: an HTTP status, ("cut", bytes), ("to", url)
    asked: list = field(default_factory=list)  #: (path, Range, status) of every request
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""
    waits: list[float] = field(default_factory=list)


@contextmanager
def _serve(site):
    """Serve a `Site` and set its ``url``."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            behaviour = site.behaviours.pop(0) if site.behaviours else None
            body, asked = site.files.get(self.path), self.headers.get("Range")
            status, start = 200 if body is not None else 404, 0
            if asked and site.ranges and body is not None:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                status = 206 if start < len(body) else 416
                if site.if_range and self.headers.get("If-Range") not in (None, site.etag):
                    status, start = 200, 0
            if isinstance(behaviour, int):
                status = behaviour
            elif behaviour and behaviour[0] == "to":
                status = 302
            site.asked.append((self.path, asked, status))
            self.send_response(status)
            for name, value in site.headers.items():
                self.send_header(name, value)
            if status == 302:
                self.send_header("Location", behaviour[1])
            if status not in (200, 206):
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if site.etag:
                self.send_header("ETag", site.etag)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            if site.lengths:
                self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            sent = body[start:]
            if behaviour and behaviour[0] == "cut":
                sent = sent[: behaviour[1]]
            self.wfile.write(sent)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def place(tmp_path_factory, _original_folder, _original_boxes):
    """A folder with the data set of `folder` and its boxes file, shared by a module's tests, which may add runs."""
    place = tmp_path_factory.mktemp("place")
    shutil.copytree(_original_folder, place / "images")
    shutil.copy(_original_boxes, place / "boxes.h5")
    return place


@pytest.fixture(scope="session")
def nursery(tmp_path_factory):
    """A `Nursery` from ``training_crash.py``: training processes that may be killed."""
    with Nursery(tmp_path_factory.mktemp("said")) as nursery:
        yield nursery


@pytest.fixture
def site(monkeypatch):
    """A running `Site` without files; downloads do not sleep but record the seconds in ``site.waits``."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with _serve(Site()) as site:
        monkeypatch.setattr("agnet.data.sets.fetch.time.sleep", site.waits.append)
        yield site


CLIP_FRAMES = (3, 5, 9, 14)  # of the clips of each class


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """Short videos of three gestures by four persons, at 10 frames a second: a textured square that moves right or
    down, or stays.
    """
    root = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    texture = generator.integers(0, 256, (16, 16, 3), np.uint8)
    for split, persons in (("train", (0, 1, 2)), ("test", (3,))):
        for label, (right, down) in {"down": (0, 2), "right": (3, 0), "still": (0, 0)}.items():
            (root / split / label).mkdir(parents=True)
            for person in persons:
                ground = generator.integers(90, 130, (48, 64, 3), np.uint8)
                with VideoWriter(root / split / label / f"p{person}_{label}.mp4", 10) as video:
                    for number in range(CLIP_FRAMES[person]):
                        frame = ground.copy()
                        x, y = 4 + right * number, 4 + down * number
                        frame[y : y + 16, x : x + 16] = texture
                        video.write(frame)
    return root


@pytest.fixture(scope="session")
def clip_index(clip_folder):
    """The index of these clips; person 2's are validation."""
    splits = {"p0": "train", "p1": "train", "p2": "val", "p3": "test"}
    names = sorted(path.relative_to(clip_folder).as_posix() for path in clip_folder.rglob("*.mp4"))
    persons = [name.rpartition("/")[2][:2] for name in names]
    rows = [(name, name.split("/")[1], splits[person]) for name, person in zip(names, persons, strict=True)]
    return replace(build_index("clips", clip_folder, rows), of_clips=True, groups=tuple(persons))


@pytest.fixture(scope="session")
def clip_boxes(clip_index, tmp_path_factory):
    """The boxes file of these clips, without stage 1: two squares, which move, in frames 0, 2, 4, ..."""
    layout = Layout(2)
    paths = [clip_index.root / name for name in clip_index.names]
    proposals = [_proposal_of_clip(path, CLIP_FRAMES[int(path.stem[1])], layout) for path in paths]
    part = build_part(clip_index, 0, proposals)
    path = tmp_path_factory.mktemp("boxes") / "clips.h5"
    settings = {"dataset": {"name": "clips"}, "proposals": {"method": "grid", "primary": 2, "kinds": "both"}}
    write_boxes(path, clip_index, [lambda: part], layout, {"fingerprint": "c" * 32}, settings, previews={})
    return read_boxes(path)


def _proposal_of_clip(path, frames, layout):
    numbers = np.arange(0, frames, 2, dtype=np.int32)
    regions = tuple(
        Regions(
            hull_xy=np.concatenate([box_corners(x, 4, 16) for x in (4 + number, 30 - number)]),
            hull_counts=np.array([4, 4], np.int32),
            keypoints=np.array([9, 5], np.int32),
            weights=np.array([0.6, 0.4], np.float32),
            size_wh=(64, 48),
            total_keypoints=14,
            distinct_keypoints=14,
            layout=layout,
        )
        for number in numbers.tolist()
    )
    valid = np.ones((len(numbers), 2), bool)
    valid[1:, 1] = False  # the second square is only found in the first frame
    tubes = Tubes(frames, 10.0, numbers, regions, valid)
    status = path.stat()
    return Proposal(regions[0], status.st_size, status.st_mtime_ns, hash_of(path), tubes=tubes)


def box_corners(x, y, side):
    """The corners of a square, as the vertices of a hull ``(4, 2)``."""
    return np.array([(x, y), (x + side, y), (x + side, y + side), (x, y + side)], np.float32)
