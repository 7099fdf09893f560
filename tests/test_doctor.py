"""`agnet doctor`: what it finds on this machine and on worse ones, and what it must not tell."""

import getpass
import json
import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from agnet import doctor
from agnet.data.text import rough_size
from agnet.doctor import CHECKS, FAILED, OK, WARNING, anonymous

pytestmark = pytest.mark.usefixtures("one_thread")


def found_by(name):
    return list(doctor._findings(name, CHECKS[name]))


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The findings on this machine, without a network, and the files left in the folder."""
    place = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(socket.socket, "connect", lambda *address: pytest.fail("it used the network"))
        return doctor.examine(), list(place.iterdir())


def test_nothing_fails_where_the_tests_pass(here):
    findings, left = here
    assert not [one for one in findings if one.state == FAILED] and not left
    names = [one.check for one in findings]
    assert len(names) == len(set(names))
    by_name = {one.check: one for one in findings}
    assert by_name["OpenCV"].found and by_name["torch"].found.startswith(sys.modules["torch"].__version__)
    assert "SIFT keypoints, 36 regions" in by_name["photograph"].found and "training on cpu" in names
    assert by_name["current folder"].found.startswith("HDF5 is written and read")


def test_nothing_names_the_user_the_machine_or_the_folder(here):
    text = "\n".join(f"{one.found}\n{one.remedy}" for one in here[0])
    private = [str(Path.home()), f"/{getpass.getuser()}", str(Path.cwd())]
    assert not [word for word in private if word in text]


def test_names_are_replaced_also_in_messages_of_others(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/anna"))
    monkeypatch.setattr(getpass, "getuser", lambda: "anna")
    monkeypatch.setattr(socket, "gethostname", lambda: "lab-7")
    monkeypatch.setattr(Path, "cwd", lambda: Path("/home/anna/secret project"))
    told = "cannot open /home/anna/secret project/x or /home/anna/y\nor /data/anna/z or /home/annabel on lab-7; savanna"
    assert anonymous(told) == "cannot open ./x or ~/y or /data/USER/z or /home/annabel on HOST; savanna"


@pytest.mark.parametrize("as_json", [False, True])
def test_what_cannot_be_loaded_fails_alone_and_so_does_the_command(agnet, monkeypatch, as_json):
    monkeypatch.setattr(doctor, "CHECKS", {name: CHECKS[name] for name in ("system", "h5py", "open files")})
    monkeypatch.setitem(sys.modules, "h5py", None)
    done = agnet("doctor", *["--json"] * as_json, code=1)
    if as_json:
        told = json.loads(done.stdout)
        states = {one["check"]: one["state"] for one in told["checks"]}
        assert not told["ok"]
    else:
        lines = done.stdout.splitlines()
        states = {line[8:20].strip(): line.split()[0] for line in lines}
        assert "ModuleNotFoundError: import of h5py halted" in done.stdout and "something failed" in done.stderr
    assert states.pop("h5py") == FAILED and {"agnet", "Python", "open files"} <= set(states)
    assert FAILED not in states.values()


def test_limits_that_stop_training_are_warnings_with_a_remedy(monkeypatch):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 4096))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: SimpleNamespace(total=64 * 10**6, free=10**6))
    (files,), (folder,) = found_by("open files"), found_by("current folder")
    assert (files.state, files.remedy) == (WARNING, "ulimit -n 4096") and "at most 256" in files.found
    assert folder.state == WARNING and "1 MB free" in folder.found
    for limits, remedy in (
        ((256, resource.RLIM_INFINITY), "ulimit -n 4096"),
        ((256, 2048), "ulimit -n 2048"),
        ((256, 512), "ulimit -n 512, and ask the administrator of this machine for a higher hard limit (ulimit -Hn)"),
        ((512, 512), "ask the administrator of this machine for a higher hard limit (ulimit -Hn)"),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, limits=limits: limits)
        assert found_by("open files")[0].remedy == remedy
    if sys.platform == "linux":
        (shared,) = found_by("shared memory")
        assert shared.state == WARNING and "--shm-size" in shared.remedy and "of 64 MB" in shared.found


def test_memory_is_what_programs_can_get_and_not_what_nothing_uses(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text(
        "MemTotal:       16000000 kB\nMemFree:          200000 kB\nMemAvailable:    9000000 kB\n"
    )
    monkeypatch.setattr(doctor, "_MEMORY", tmp_path / "meminfo")
    assert found_by("memory")[0].found.endswith(f", {rough_size(9_000_000 * 1024)} of it available")
    monkeypatch.setattr(doctor, "_MEMORY", tmp_path / "absent")
    assert "available" not in found_by("memory")[0].found


def test_threads_that_are_too_many_or_too_few(monkeypatch):
    import joblib
    import torch

    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    (many,) = found_by("threads")
    assert many.state == WARNING and "OMP_NUM_THREADS=4" in many.remedy and "4 of 8 cores" in many.found
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (few,) = found_by("threads")
    assert few.state == WARNING and "(OMP_NUM_THREADS=1" in few.found and "unset OMP_NUM_THREADS" in few.remedy
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert found_by("threads")[0].state == OK


def test_a_folder_without_write_access_fails_and_a_cache_is_a_warning(monkeypatch, tmp_path):
    import h5py

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(h5py, "File", refuse)
    (folder,) = found_by("current folder")
    assert folder.state == FAILED and "Permission denied" in folder.found and folder.remedy
    (tmp_path / "file").touch()
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "file" / "fonts"))
    _, fonts = found_by("caches")
    assert fonts.state == WARNING and fonts.remedy.startswith("set MPLCONFIGDIR")


def test_a_home_that_may_not_be_entered_is_a_warning(monkeypatch, tmp_path):
    stat, access = os.stat, os.access

    def locked(path, *arguments, **options):  # permissions do not keep out root
        if (tmp_path / "home") in Path(os.fsdecode(path)).parents:
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *arguments, **options)

    (tmp_path / "home").mkdir()
    for name, place in (("XDG_CACHE_HOME", ".cache"), ("TORCH_HOME", ".cache/torch")):
        monkeypatch.setenv(name, str(tmp_path / "home" / place))
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "home" and access(path, mode))
    monkeypatch.setattr(os, "stat", locked)
    weights, fonts = found_by("caches")
    assert weights.state == fonts.state == WARNING
    assert "no permission in" in weights.found and weights.remedy.startswith("set TORCH_HOME")


def test_requirements_that_are_missing_or_too_old_are_named_with_a_command(monkeypatch):
    wanted = ["numpy>=1.26", "h5py>=99", "nobody-s>=1", 'timm>=99; extra == "timm"', 'pytest>=8; extra == "dev"']
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: wanted)
    always, optional = found_by("requirements")
    assert always.state == FAILED and "nobody-s is missing" in always.found and "numpy" not in always.found
    assert always.remedy == 'pip install "h5py>=99" "nobody-s>=1"'
    assert "pytest" not in optional.found
    if optional.found != "none":
        assert optional.state == WARNING and optional.remedy == 'pip install "timm>=99"'


def test_two_opencvs_are_told(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: "5.0" if "contrib" not in name else "")
    (opencv,) = found_by("OpenCV")
    assert opencv.state == WARNING and "pip uninstall opencv-python opencv-python-headless" in opencv.remedy
