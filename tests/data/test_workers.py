"""Processes that cannot start, or die of what the machine lacks: no image is blamed for it, nothing of it is kept."""

import errno
import os
import pkgutil
import resource
import signal
import subprocess
import sys

import cv2
import joblib
import pytest
from click.testing import CliRunner

from agnet.cli import main
from agnet.data import images
from agnet.data import workers as parallel
from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import DatasetError, PassingError, WorkerError
from agnet.data.faults import PASSING, unread
from agnet.data.images import decode_image
from agnet.data.python_path import current_folder_hidden, usurper
from agnet.data.sets.catalogue import open_dataset
from agnet.data.sets.examination import examine
from agnet.data.workers import ahead_by_processes, in_parallel
from agnet.proposals import run as data_set
from agnet.proposals import worker
from agnet.proposals.run import propose_dataset
from agnet.proposals.settings import ProposalSettings

MINE = "raise SystemExit('my own experiment')\n"
PATIENCE = 300  # seconds: only what hangs is to exceed them


def propose(root, boxes):
    return propose_dataset(open_dataset("folder", root), ProposalSettings(method="grid", primary=3), boxes)


@pytest.fixture
def here(monkeypatch):
    """Images are worked on by this very process, in parts of four, so that patches reach them."""
    monkeypatch.setattr(data_set, "PART_IMAGES", 4)
    with joblib.parallel_config(backend="sequential"):
        yield


def command(place, *words, **environment):
    """`agnet propose` in the folder ``place``, by ``python -m``, which looks there for modules first."""
    where = ["--dataset", "folder", "--root", "images", "--boxes", "boxes.h5"]
    options = [*where, "--method", "grid", "--primary", "3", "--jobs", "2"]
    program = [sys.executable, "-m", "agnet", "propose", *options, *words]
    return subprocess.run(
        program, cwd=place, env={**os.environ, **environment}, capture_output=True, text=True, timeout=PATIENCE
    )


@pytest.mark.skipif(sys.version_info < (3, 11), reason="workers look in the current folder there; an error says so")
@pytest.mark.usefixtures("folder")
def test_files_in_the_current_folder_that_are_called_like_pythons_modules_are_nobodys_business(tmp_path):
    for name in ("random", "signal", "argparse", "joblib"):
        (tmp_path / f"{name}.py").write_text(MINE)
    done = command(tmp_path)
    assert done.returncode == 0 and len(read_boxes(tmp_path / "boxes.h5").usable) == 18, done.stderr
    assert "my own" not in done.stderr


@pytest.mark.usefixtures("folder")
def test_workers_that_cannot_start_are_told_and_no_image_is(tmp_path):
    """Of all that the command imports, only workers need argparse."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "argparse.py").write_text(MINE)
    done = command(tmp_path, PYTHONPATH=str(elsewhere))
    assert done.returncode == 1 and not (tmp_path / "boxes.h5").exists()
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: worker processes end as soon as they are started") and "No image" in last
    assert str(elsewhere / "argparse.py") in last and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.parts/*.npz"))
    with joblib.parallel_config(backend="sequential"):
        assert not read_boxes(propose(tmp_path / "images", tmp_path / "boxes.h5").boxes).failures


def test_a_module_in_the_place_of_pythons_own_is_named(monkeypatch):
    def with_a_strange_random(*_, **__):
        raise ImportError("cannot import name 'Random'", name="random", path="/mine/random.py")

    monkeypatch.setattr("agnet.data.sets.catalogue.open_dataset", with_a_strange_random)
    result = CliRunner().invoke(main, ["propose", "--dataset", "folder", "--root", ".", "--boxes", "b.h5"])
    assert result.exit_code == 1 and "/mine/random.py is taken for Python's own module" in result.output
    with pytest.raises(ImportError) as error:
        from random import nothing_of_that_name  # noqa: F401
    assert usurper(error.value) is None
    with pytest.raises(AttributeError) as error:
        os.nothing_of_that_name  # noqa: B018
    assert usurper(error.value) is None


@pytest.mark.parametrize("before", [None, "", "0"])
def test_the_environment_is_as_before_whoever_ends_first(before, monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTHONSAFEPATH", before)
    first, second = current_folder_hidden(), current_folder_hidden()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert os.environ["PYTHONSAFEPATH"] == "1"
    second.__exit__(None, None, None)
    assert os.environ.get("PYTHONSAFEPATH") == before


@pytest.fixture
def evaluate():
    """A task whose images are expressions, of which "9" and "11" kill the process that does them, by that signal. No
    function of this module, which the workers could not import."""

    def evaluate(names):
        import os

        for name in names:
            if name.isdigit():
                os.kill(os.getpid(), int(name))
        return [(name, "") for name in names]

    return evaluate


def results(chunks, task, jobs=1):
    with joblib.parallel_config(backend="loky"):
        return [
            result for chunk in in_parallel(chunks, task, lambda name, reason: (name, reason), jobs) for result in chunk
        ]


def test_only_a_decoders_crash_is_an_images_own_for_good(evaluate):
    reasons = dict(results([["a", "b"], [str(int(signal.SIGKILL)), str(int(signal.SIGSEGV)), "c"]], evaluate))
    assert [name for name, reason in reasons.items() if not reason] == ["a", "b", "c"]
    assert reasons["9"].startswith(PASSING) and "memory" in reasons["9"]
    assert not reasons["11"].startswith(PASSING) and "its decoder crashes (SIGSEGV)" in reasons["11"]


def test_a_crash_where_memory_is_limited_may_be_for_want_of_it(evaluate):
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (2**45, hard))
    try:
        reasons = dict(results([["a"], ["11"]], evaluate))
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    assert reasons["11"].startswith(PASSING) and not reasons["a"]


def test_a_crash_before_any_image_has_lived_may_be_the_machines(evaluate):
    assert dict(results([["11"]], evaluate))["11"].startswith(PASSING)


@pytest.fixture
def few_strangers(monkeypatch):
    """Each one that dies costs a second of starting processes."""
    monkeypatch.setattr(parallel, "_STRANGERS", 2)


@pytest.mark.usefixtures("few_strangers")
def test_processes_that_die_of_every_image_are_no_images_fault(evaluate):
    with pytest.raises(WorkerError, match=r"whatever image they are given \(SIGKILL\).*no image is at fault"):
        results([["9"] * 16] * 3, evaluate, jobs=2)


@pytest.mark.usefixtures("few_strangers")
def test_processes_that_die_of_the_first_images_go_on_where_others_live(evaluate):
    found = results([["11"] * 2, ["a"], ["b"]], evaluate)
    assert [name for name, _ in found] == ["11"] * 2 + ["a", "b"]
    assert all("decoder crashes" in reason for _, reason in found[:2]) and not found[2][1]


def test_an_image_that_lived_before_and_dies_now_tells_that_the_machine_has_changed(tmp_path):
    flag = str(tmp_path / "flag")

    def task(names):
        import os
        from pathlib import Path

        if "b" in names:
            Path(flag).touch()
        if names and Path(flag).exists():
            os.kill(os.getpid(), 9)
        return [(name, "") for name in names]

    with pytest.raises(WorkerError, match="whatever image they are given: they are killed"):
        results([["a"], ["b"]], task)


def too_many_files(*_, **__):
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def too_little_memory(*_, **__):
    raise MemoryError


def test_a_machine_that_has_no_room_for_processes_says_so(evaluate, monkeypatch):
    monkeypatch.setattr(parallel, "ProcessPoolExecutor", too_many_files)
    with pytest.raises(WorkerError, match=r"cannot be started: Too many open files; use fewer --jobs"):
        results([["a"]], evaluate)
    with pytest.raises(WorkerError, match="cannot be started"):
        list(ahead_by_processes(["a"], str, lambda item, reason: None, jobs=2, limit=2))
    for refusal in (too_many_files, too_little_memory):
        monkeypatch.setattr("joblib.externals.loky.process_executor._ExecutorManagerThread.__init__", refusal)
        with pytest.raises(WorkerError, match="cannot be started"):
            results([["a"], ["b"]], evaluate, jobs=2)


@pytest.mark.parametrize(
    "moment", ["process_executor:ProcessPoolExecutor._setup_queues", "backend.popen_loky_posix:Popen._launch"]
)
def test_a_process_killed_while_it_starts_costs_nothing(moment, evaluate, monkeypatch):
    """The pipe to it breaks: to a worker, or to the process that tracks semaphores."""
    owner, _, name = moment.rpartition(".")
    owner = pkgutil.resolve_name(f"joblib.externals.loky.{owner}")
    start, faults = getattr(owner, name), []

    def break_at_first(*arguments, **options):
        if faults:
            raise faults.pop()
        return start(*arguments, **options)

    monkeypatch.setattr(owner, name, break_at_first)
    faults += [BrokenPipeError(errno.EPIPE, "Broken pipe")]
    assert results([["a", "b"], ["c"], ["d"]], evaluate, jobs=2) == [(name, "") for name in "abcd"]
    faults += [BrokenPipeError(errno.EPIPE, "Broken pipe")]
    assert list(ahead_by_processes("ab", str, lambda item, reason: "lost", jobs=2, limit=2)) == ["a", "b"]
    faults += [BrokenPipeError(errno.EPIPE, "Broken pipe")] * 9
    with pytest.raises(WorkerError, match=r"Broken pipe.*No image is at fault"):
        list(ahead_by_processes("ab", str, lambda item, reason: "lost", jobs=2, limit=2))


def disturbed(monkeypatch, faults):
    """Opening an image whose name ends as one of ``faults`` ends in its error."""
    opened = open

    def refuse(path, *rest, **others):
        for ending, fault in faults.items():
            if str(path).endswith(ending):
                raise fault
        return opened(path, *rest, **others)

    monkeypatch.setattr(worker, "open", refuse, raising=False)


def test_what_is_the_machines_is_told_from_what_is_the_files():
    for name in ("EIO", "ESTALE", "ETIMEDOUT", "EMFILE", "ENFILE", "ENOMEM"):
        assert isinstance(unread(OSError(getattr(errno, name), name)), PassingError), name
    for name in ("ENOENT", "EACCES", "EISDIR", "ELOOP", "ENAMETOOLONG"):
        assert not isinstance(unread(OSError(getattr(errno, name), name)), PassingError), name


@pytest.mark.usefixtures("here")
def test_what_may_pass_is_tried_again_by_the_same_command(folder, tmp_path, monkeypatch):
    undisturbed = propose(folder, tmp_path / "undisturbed.h5").boxes
    with monkeypatch.context() as patch:
        disturbed(patch, {"train/bee/1.png": OSError(errno.EIO, "EIO"), "val/bee/1.png": MemoryError()})
        summary = propose(folder, tmp_path / "boxes.h5")
        assert (summary.unreadable, summary.postponed, summary.reused) == (2, 2, 0)
        boxes = read_boxes(summary.boxes)
        assert len(boxes.usable) == 16 and all(reason.startswith(PASSING) for _, reason in boxes.failures)
        assert propose(folder, tmp_path / "boxes.h5").postponed == 2
    summary = propose(folder, tmp_path / "boxes.h5")
    assert (summary.unreadable, summary.postponed) == (0, 0) and 0 < summary.reused < 18
    assert (tmp_path / "boxes.h5").read_bytes() == undisturbed.read_bytes()
    assert not (tmp_path / "boxes.h5.parts").exists()


@pytest.mark.usefixtures("here")
def test_where_nothing_can_be_read_for_now_there_is_no_file_and_no_blame(folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        disturbed(patch, {".png": OSError(errno.EIO, os.strerror(errno.EIO))})
        with pytest.raises(WorkerError, match=r"no image can be used here and now.*Input/output error"):
            propose(folder, tmp_path / "boxes.h5")
        assert not (tmp_path / "boxes.h5").exists()
    assert propose(folder, tmp_path / "boxes.h5").unreadable == 0


@pytest.mark.usefixtures("here")
def test_a_share_that_goes_away_in_the_middle_stops_the_run_and_costs_nothing(folder, tmp_path, monkeypatch):
    undisturbed = propose(folder, tmp_path / "undisturbed.h5").boxes
    monkeypatch.setattr(data_set, "CHUNK_IMAGES", 2)

    def unplug(done, unreadable):
        if done == 8:
            folder.rename(tmp_path / "unplugged")

    index = open_dataset("folder", folder)
    with pytest.raises(DatasetError, match=r"cannot be read any more.*No such file"):
        propose_dataset(index, ProposalSettings(method="grid", primary=3), tmp_path / "boxes.h5", progress=unplug)
    folder.mkdir()  # as an empty mount point
    with pytest.raises(DatasetError, match="the folder is empty now"):
        examine(index)
    folder.rmdir()
    (tmp_path / "unplugged").rename(folder)
    assert propose(folder, tmp_path / "boxes.h5").reused >= 8
    assert (tmp_path / "boxes.h5").read_bytes() == undisturbed.read_bytes()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("share", "code"), [("0.1", 1), ("0.12", 0)])
def test_the_command_tells_what_is_left_for_now_apart_from_what_is_broken(share, code, folder, tmp_path, monkeypatch):
    disturbed(monkeypatch, {"bee/1.png": OSError(errno.EIO, "EIO")})
    options = ["--dataset", "folder", "--root", folder, "--boxes", tmp_path / "b.h5", "--method", "grid"]
    result = CliRunner().invoke(main, [*map(str, ["propose", *options]), "--max-unreadable", share])
    assert result.exit_code == code, result.output
    assert "2 of 18 images (11.1%) were postponed" in result.output and "could not be read" not in result.output


def test_want_of_memory_is_no_fault_of_an_image(folder, monkeypatch):
    content = (folder / "train" / "bee" / "1.png").read_bytes()
    for fault in (MemoryError(), OSError("out of memory error when reading image file")):
        with monkeypatch.context() as patch, pytest.raises(PassingError, match="not enough memory"):
            patch.setattr(images, "to_rgb", lambda *arguments, fault=fault: (_ for _ in ()).throw(fault))
            decode_image(content)
    settings = ProposalSettings(method="grid", primary=3)
    short = cv2.error("Failed to allocate")
    short.code = cv2.Error.StsNoMem
    other = cv2.error("bad argument")
    other.code = cv2.Error.StsBadArg
    for fault, passing in ((MemoryError(), True), (short, True), (other, False)):
        with monkeypatch.context() as patch:
            patch.setattr(worker, "propose_regions", lambda *_, fault=fault: (_ for _ in ()).throw(fault))
            (proposal,) = worker.propose_chunk(str(folder), settings, None, ["train/bee/1.png"])
        assert proposal.reason.startswith(PASSING) == passing and bool(proposal.content_blake2b) != passing


MASKED = """
import signal, sys
from agnet.data.workers import in_parallel

def masked(chunk):
    return [signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])]

print(*in_parallel([("a",), ("b",)], masked, None, int(sys.argv[1])), masked(""))
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no masks of signals here")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupt_from_the_terminal_reaches_no_worker_even_while_it_starts(jobs):
    told = subprocess.run([sys.executable, "-c", MASKED, jobs], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["[True]", "[True]", "[False]"]
