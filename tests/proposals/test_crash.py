"""Whatever stops `agnet propose`, nothing finished is lost: the command in processes of its own, really killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import h5py
import numpy as np
import pytest

import crash
from agnet.data.boxes.reader import read_boxes
from crash import PROGRAM

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found in /proc")

PART_IMAGES, CHUNK_IMAGES = 4, 2  # the 18 images of `folder` make five parts
PATIENCE = 300  # seconds: only what hangs is to exceed them, on whatever machine
MARK = b"a decoder's death: "

# A run that stops, as by Ctrl-Z, when its first part is finished: no test has to be quick enough to meet it there.
PAUSE = """
import os, signal
from agnet.data.boxes.writer import Part
save = Part.save

def save_and_stop(part, path):
    Part.save = save
    save(part, path)
    os.kill(os.getpid(), signal.SIGSTOP)

Part.save = save_and_stop
"""

# As sitecustomize.py in every process: decoding a content that ends with MARK, a signal and a number kills the process
# that does it, so many times in all. Workers are fresh interpreters; no patch in the parent reaches them.
DEADLY_DECODER = f"""
import hashlib, importlib.abc, importlib.util, os, signal, sys

def obey(content):
    _, mark, order = content.rpartition({MARK!r})
    if mark:
        name, times = order.decode().split()
        for life in range(int(times)):
            try:
                os.close(os.open(f"{{__file__}}-{{hashlib.md5(content).hexdigest()}}-{{life}}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            os.kill(os.getpid(), getattr(signal, name))

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "agnet.data.images":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            decode = module.decode_image
            module.decode_image = lambda content, *rest: obey(content) or decode(content, *rest)

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""


def command(place, *options, jobs=2, before=""):
    """The command that writes ``place/boxes.h5`` from ``place/images``, after the Python statements ``before``."""
    arguments = ["--dataset", "folder", "--root", place / "images", "--boxes", place / "boxes.h5", "--jobs", jobs]
    program = [sys.executable, "-c", before + PROGRAM, PART_IMAGES, CHUNK_IMAGES, "propose"]
    return [str(word) for word in [*program, *arguments, *options]]


def run(words, code=0, **options):
    """Run a command to its end; an expected failure must be told in one line, which is returned."""
    quiet = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    result = subprocess.run(words, timeout=PATIENCE, **quiet, **options)
    assert result.returncode == code, result.stderr
    if code:
        assert "Traceback" not in result.stderr
        *before, last = result.stderr.splitlines()
        assert last.startswith("Error: ") and not any(line.startswith("Error: ") for line in before), result.stderr
        return last
    return result.stderr


@contextmanager
def started(words):
    """A run in the background, killed with all its processes in the end."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, start_new_session=True, **pipes) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def finished_parts(place):
    """Name -> time of change and content."""
    return {part.name: (part.stat().st_mtime_ns, part.read_bytes()) for part in place.glob("boxes.h5.parts/*.npz")}


def await_pause(process):
    deadline = time.monotonic() + PATIENCE
    while os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOHANG) is None:
        assert process.poll() is None and time.monotonic() < deadline, "no part gets finished"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def reference(_original_folder, tmp_path_factory):
    """The bytes of an uninterrupted run over `folder`."""
    place = tmp_path_factory.mktemp("reference")
    shutil.copytree(_original_folder, place / "images")
    run(command(place))
    return (place / "boxes.h5").read_bytes()


@pytest.fixture
def half(folder, tmp_path):
    """A place with the images and what a run left that was killed after its first part."""
    with started(command(tmp_path, before=PAUSE)) as process:
        await_pause(process)
        process.kill()
    assert len(finished_parts(tmp_path)) == 1 and not (tmp_path / "boxes.h5").exists()
    return tmp_path


def test_kills_at_random_moments_lose_nothing():
    """Few of them: a day's worth is ``python tests/crash.py --kills 1000``."""
    result = subprocess.run([sys.executable, crash.__file__, "--kills", "8"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    print(result.stdout)


@pytest.mark.usefixtures("folder")
def test_a_finished_run_again_leaves_the_file_alone(tmp_path):
    run(command(tmp_path))
    boxes = tmp_path / "boxes.h5"
    before = boxes.stat(), boxes.read_bytes()
    assert "18 of them were already in the file" in run(command(tmp_path))
    assert (boxes.stat().st_ino, boxes.stat().st_mtime_ns) == (before[0].st_ino, before[0].st_mtime_ns)
    assert boxes.read_bytes() == before[1]


def test_a_lock_of_a_dead_process_does_not_block(half, reference):
    lock = half / "boxes.h5.parts" / "lock"
    assert lock.exists()
    lock.write_text(str(os.getpid()))  # nor does its content matter
    run(command(half))
    assert (half / "boxes.h5").read_bytes() == reference
    assert {path.name for path in half.iterdir()} == {"images", "boxes.h5"}


@pytest.mark.usefixtures("folder")
def test_of_two_runs_at_once_the_second_stops_with_a_clear_message(tmp_path, reference):
    with started(command(tmp_path, before=PAUSE)) as first:
        await_pause(first)
        for options in ([], ["--restart"]):
            assert "another run is writing" in run(command(tmp_path, *options), code=1)
        assert finished_parts(tmp_path)
        first.send_signal(signal.SIGCONT)
        _, said = first.communicate(timeout=PATIENCE)
        assert first.returncode == 0, said
    assert (tmp_path / "boxes.h5").read_bytes() == reference


@pytest.fixture(scope="module")
def bound(tmp_path_factory):
    """Words before a command that make permissions bind; root gives up the right to pass over them."""
    words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    place = tmp_path_factory.mktemp("read-only")
    place.chmod(0o555)
    attempt = f"import pathlib; pathlib.Path({str(place)!r}, 'file').touch()"
    if words and not shutil.which(words[0]):
        pytest.skip("root without setpriv")
    result = subprocess.run([*words, sys.executable, "-c", attempt], capture_output=True, text=True)
    if "PermissionError" not in result.stderr:
        pytest.skip(f"permissions do not bind here: {result.stderr}")
    return words


@contextmanager
def read_only(*folders):
    for folder in folders:
        folder.chmod(0o555)
    try:
        yield
    finally:
        for folder in folders:
            folder.chmod(0o755)


@pytest.mark.usefixtures("folder")
def test_a_read_only_folder_is_told_in_one_line(tmp_path, bound):
    with read_only(tmp_path):
        told = run([*bound, *command(tmp_path)], code=1)
        assert "no permission in " in told and told.rstrip().endswith("in another folder with --boxes"), told
    assert {path.name for path in tmp_path.iterdir()} == {"images"}


def test_a_folder_that_became_read_only_keeps_its_parts(half, bound, reference):
    before = finished_parts(half)
    with read_only(half, half / "boxes.h5.parts"):
        assert "no permission in " in run([*bound, *command(half)], code=1)
    assert finished_parts(half) == before
    assert f"{PART_IMAGES * len(before)} of them were already in the file" in run(command(half))
    assert (half / "boxes.h5").read_bytes() == reference


@pytest.mark.parametrize(("limit", "parts"), [(1_000, 0), (20_000, 5)])
@pytest.mark.usefixtures("folder")
def test_a_full_disk_is_told_in_one_line_and_keeps_finished_parts(limit, parts, tmp_path, reference):
    """By a limit on the size of a file: 1 kB is too little for a part, 20 kB for all of them merged."""
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
    assert "cannot write" in run(command(tmp_path, before=limited), code=1)
    before = finished_parts(tmp_path)
    assert len(before) == parts and not list(tmp_path.rglob("*.tmp")) and not (tmp_path / "boxes.h5").exists()
    run(command(tmp_path))
    assert (tmp_path / "boxes.h5").read_bytes() == reference


@pytest.fixture
def deadly(tmp_path):
    """The environment in which a marked image kills its decoder."""
    hook = tmp_path / "hook" / "sitecustomize.py"
    hook.parent.mkdir()
    hook.write_text(DEADLY_DECODER)
    path = os.pathsep.join(filter(None, [str(hook.parent), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def tables(boxes):
    """All tables of the file but the reasons of failures, of images only those that could be used."""
    with h5py.File(boxes) as file:
        found = {name: table[:] for name, table in file.items() if isinstance(table, h5py.Dataset)}
    del found["failures"]
    found["images"] = found["images"][found["images"]["status_of_the_image"] != b"unreadable"]
    return found


# These two need the run to survive its workers: a killed worker's images are tried again alone.
@pytest.mark.parametrize("jobs", [2])
def test_an_image_that_kills_its_decoder_costs_itself_alone(jobs, folder, deadly, tmp_path):
    victims = {"train/bee/1.png": b"SIGKILL", "train/bee/2.png": b"SIGSEGV"}
    for name, sign in victims.items():
        (folder / name).write_bytes(MARK + sign + b" 1000")
    options = ["--max-unreadable", "1"]
    run(command(tmp_path, *options, jobs=jobs), env=deadly)
    deaths = read_boxes(tmp_path / "boxes.h5")
    (tmp_path / "boxes.h5").rename(tmp_path / "with-deaths.h5")
    run(command(tmp_path, *options, jobs=jobs))  # there they are no images at all
    reasons = dict(deaths.failures)
    assert sorted(reasons) == sorted(victims)
    assert all("killed" in reason for reason in reasons.values()), reasons
    expected, found = tables(tmp_path / "boxes.h5"), tables(tmp_path / "with-deaths.h5")
    assert expected.keys() == found.keys() and len(found["images"]) == 16
    for name, table in expected.items():
        assert np.array_equal(table, found[name]), name


@pytest.mark.parametrize(("times", "jobs"), [(1, 2), (2, 1)])
def test_an_image_that_was_near_when_workers_were_killed_is_not_blamed(times, jobs, folder, deadly, tmp_path):
    image = folder / "train" / "bee" / "1.png"
    undisturbed = image.read_bytes() + MARK + b"SIGKILL %d" % times  # what follows a PNG's end is not looked at
    image.write_bytes(undisturbed)
    run(command(tmp_path, jobs=jobs), env=deadly)
    assert len(list((tmp_path / "hook").glob("*-[0-9]"))) == times
    (tmp_path / "boxes.h5").rename(tmp_path / "with-deaths.h5")
    run(command(tmp_path, jobs=jobs))
    assert (tmp_path / "boxes.h5").read_bytes() == (tmp_path / "with-deaths.h5").read_bytes()
