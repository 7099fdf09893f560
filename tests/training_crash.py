"""Training in processes that can be stopped in every way, and a campaign of kills.

    python tests/training_crash.py BOXES --kills 30

kills `agnet train` at random moments, resumes it, and compares the end with that of a run that nobody touched.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

# Loading torch takes seconds, so one process does it and is forked for every run.
PROGRAM = """
import json, os, pathlib, sys, tempfile
import torchvision
sys.path.insert(0, sys.argv[1])
from small_mobilenet import mobilenet_v3_small
torchvision.models.mobilenet_v3_small = mobilenet_v3_small
from agnet.cli import main
import agnet.data.boxes.reader, agnet.proposals.one_image, agnet.training.loop.fit
from agnet.training.runs.curves import draw_curves
from agnet.training.runs.trackers import KINDS, is_installed

loaded = {name.partition(".")[0] for name in sys.modules}
with tempfile.TemporaryDirectory() as place:  # these load something at their first use only
    draw_curves([{"epoch": 1, "train_loss": 1.0}], pathlib.Path(place, "curves.png"))
    if is_installed("tensorboard"):
        KINDS["tensorboard"](pathlib.Path(place), {}).update([{"epoch": 1}])

print("ready", *loaded, flush=True)
agnet.training.loop.fit.draw_curves = lambda *about: None  # tested elsewhere, and half of the time of a small run
for line in sys.stdin:
    order = json.loads(line)
    if "poll" in order:
        child, status = os.waitpid(order["poll"], os.WNOHANG)
        print(json.dumps(os.waitstatus_to_exitcode(status) if child else None), flush=True)
        continue
    child = os.fork()
    if child:
        print(child, flush=True)
        continue
    nothing, log = os.open(os.devnull, os.O_RDONLY), os.open(order["log"], os.O_WRONLY | os.O_CREAT, 0o644)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.update(order["environment"])
    exec(order["before"])
    main(args=order["arguments"], prog_name="agnet")
"""

OPTIONS = (
    *("--model", "plain", "--backbone", "mobilenet-v3-small", "--weights", "none", "--image-size", "64"),
    *("--epochs", "3", "--batch-size", "4", "--workers", "0", "--device", "cpu", "--keep-states"),
)
SOON = ("--save-every", "0.0005")  # minutes: a state every few steps


def waiting_before(epoch: int, step: int, seed: int = 0) -> str:
    """Python statements by which a run says ``here`` before that step, and goes on when it has noted a signal."""
    return f"""
import time
from agnet.training.loop.interruption import Interruption
from agnet.training.loop.learner import Learner
noted, note, whole_step = [], Interruption._note, Learner.step

def step(self, batches, epoch, step, steps):
    if (self.seed, epoch, step) == ({seed}, {epoch}, {step}):
        print("here", flush=True)
        while not noted:
            time.sleep(0.01)
    return whole_step(self, batches, epoch, step, steps)

Learner.step = step
Interruption._note = lambda self, *signal: noted.append(signal) or note(self, *signal)
"""


class Child:
    """One run of the command."""

    def __init__(self, nursery: Nursery, pid: int, log: Path) -> None:
        self._nursery, self.pid, self._log = nursery, pid, log
        self.code: int | None = None  #: its exit code, or minus the signal that killed it

    def running(self) -> bool:
        if self.code is None:
            self.code = self._nursery.ask({"poll": self.pid})
        return self.code is None

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait_for(self, condition, seconds: float = 300) -> None:
        """Until a condition holds or the child has ended; by default for as long as only a child that hangs takes."""
        end = time.monotonic() + seconds
        while self.running() and not condition():
            if time.monotonic() > end:
                raise TimeoutError(self.said())
            time.sleep(0.01)

    def wait(self, seconds: float = 300) -> int:
        """Its exit code."""
        self.wait_for(lambda: False, seconds)
        return self.code

    def said(self) -> str:
        return self._log.read_text() if self._log.exists() else ""


class Nursery:
    """A process with everything loaded, forked for every run; a context manager that ends them all."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._children = folder, []

    def __enter__(self) -> Nursery:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        # PyTorch's own warnings, of a network that cannot tell it the name of 127.0.0.1, are not what a run says.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
        command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent)]
        self._process = subprocess.Popen(command, text=True, env=environment, **pipes)
        ready, *self.loaded = self._process.stdout.readline().split() or [""]  #: packages, before any run
        if ready != "ready":
            raise SystemExit("the command does not start")
        return self

    def __exit__(self, *exception: object) -> None:
        for child in self._children:
            if child.running():
                child.send(signal.SIGKILL)
        self._process.stdin.close()
        self._process.wait(timeout=300)
        self._process.stdout.close()

    def ask(self, order: dict[str, object]) -> object:
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def train(self, boxes: Path, run: Path, *options: object, before: str = "", **environment: str) -> Child:
        """Start `agnet train` in a process of its own, after the Python statements ``before``."""
        return self.start("train", "--boxes", boxes, "--run", run, *OPTIONS, *options, before=before, **environment)

    def start(self, *arguments: object, before: str = "", **environment: str) -> Child:
        """Start a command in a process of its own, after the Python statements ``before``."""
        log = self._folder / f"said-{len(self._children)}.txt"
        order = {"arguments": list(map(str, arguments)), "log": str(log), "before": before, "environment": environment}
        child = Child(self, self.ask(order), log)
        self._children.append(child)
        return child

    def kill_often(
        self, boxes: Path, run: Path, kills: int, seconds: float, seed: int, *options: object
    ) -> list[dict[str, object]]:
        """Kill a run at random moments within ``seconds`` of its start and resume it, again and again; when it ends,
        begin anew. Returns the results of all ends, the last one after so many kills.
        """
        moments, ends = random.Random(seed), []
        while True:
            resume = ["--resume"] if (run / "config.json").exists() else []
            child = self.train(boxes, run, *SOON, *options, *resume)
            if kills > 0:
                time.sleep(moments.uniform(0, seconds))
                child.send(signal.SIGKILL)
            code = child.wait()
            if code not in (0, -signal.SIGKILL):
                raise SystemExit(f"exit code {code}:\n{child.said()}")
            if code:
                kills -= 1
                continue
            ends.append(result_of(run))
            if kills <= 0:
                return ends
            shutil.rmtree(run)


def result_of(run: Path) -> dict[str, object]:
    """All that two runs of the same training must have in common: everything but times."""
    from safetensors.torch import load_file

    from agnet.training.loop.engine import TIMINGS

    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {
        "best": (run / "best.safetensors").read_bytes(),
        "last": {name: tensor.numpy().tobytes() for name, tensor in load_file(run / "last.safetensors").items()},
        "log": [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("boxes", type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", default="0")
    arguments = parser.parse_args()
    options = ["--workers", arguments.workers, "--ema-decay", "0.9"]
    with tempfile.TemporaryDirectory() as place, Nursery(Path(place)) as nursery:
        straight, killed = Path(place) / "straight", Path(place) / "killed"
        started = time.monotonic()
        child = nursery.train(arguments.boxes, straight, *options)
        if child.wait(600):
            raise SystemExit(f"the run that nobody touches fails:\n{child.said()}")
        seconds = time.monotonic() - started
        ends = nursery.kill_often(arguments.boxes, killed, arguments.kills, seconds, arguments.seed, *options)
        same = sum(end == result_of(straight) for end in ends)
        print(f"{arguments.kills} kills within {seconds:.1f} s of a start: {same} of {len(ends)} ends are equal")
        sys.exit(same < len(ends))


if __name__ == "__main__":
    main()
