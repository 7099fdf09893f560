"""Kill `agnet propose` at random moments, by every means there is, and see that nothing finished is lost.

    python tests/crash.py --kills 100 [--seed 0] [--keep DIR]

An uninterrupted run gives the reference. Then the same command runs on one output again and again, and each run is
struck at a moment of its own: anywhere in its expected duration, or aimed at a file that appears, because saving,
merging and cleaning up are short. After every run the files, the exit code and the processes left behind are checked.
Exit code 1 if anything was not as promised. Linux only: processes are found in /proc.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

IMAGES, PART_IMAGES, CHUNK_IMAGES = 96, 8, 2
PARTS = IMAGES // PART_IMAGES
# Far more than it takes, which the report tells: a busy machine is no fault of the program.
ORPHANS_END_WITHIN = 60.0  #: seconds
HANGS_AFTER = 300.0  #: seconds

# Started by `-c`: a script's file would be imported by every worker. It waits when the imports are done: there the
# clock starts, and the next run's imports can be done during this one.
PROGRAM = """
import sys
from agnet.cli import main
from agnet.proposals import run as data_set
data_set.PART_IMAGES, data_set.CHUNK_IMAGES = int(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
main(sys.argv[3:], prog_name="agnet", standalone_mode=True)
"""

KILL, WORKER, TRACKER = "SIGKILL parent", "SIGKILL worker", "SIGKILL tracker"
CTRL_C, TERM = "SIGINT group", "SIGTERM parent"
WEAPONS = (KILL, WORKER, TRACKER, CTRL_C, TERM)
NEEDS_WORKERS = (WORKER, TRACKER)  # without parts to compute no process but the parent is there
A_PART, A_WHOLE_PART, THE_MERGER, THE_RESULT = "*.parts/*.npz.tmp", "*.parts/*.npz", "*.h5.tmp", "boxes.h5"
# Every campaign begins with these, so that a short one has every weapon and every phase: a weapon, and the file at
# whose appearance it strikes.
OPENING = (
    (KILL, A_PART),
    (WORKER, A_WHOLE_PART),
    (TERM, A_PART),
    (TRACKER, A_WHOLE_PART),
    (CTRL_C, A_WHOLE_PART),
    (KILL, THE_MERGER),
    (CTRL_C, THE_MERGER),
    (KILL, THE_RESULT),
)
# Then dealt like cards, so that thirty kills have them all.
DECK = 4 * [KILL] + 3 * [WORKER] + [TRACKER] + 2 * [CTRL_C] + 2 * [TERM]
FINISHED_PARTS_SHARE = 0.2  #: of the rounds, begun with all parts finished: merging is a small part of the time
AIMED_SHARE = 0.3  #: of the strikes of a parent, aimed at a file that appears
SECOND_STRIKE_SHARE = 0.5  #: of the runs that a strike does not end
FITTING_CODES = {KILL: {-signal.SIGKILL}, CTRL_C: {130, -signal.SIGINT}, TERM: {130, -signal.SIGTERM}}

BEFORE, AMID, MERGING, DONE = "before a part", "in parts", "merging/after", "already done"
PHASES = (BEFORE, AMID, MERGING, DONE)

Snapshot = dict[str, tuple[int, bytes]]


@dataclass(frozen=True)
class Strike:
    """A weapon and when to use it: ``seconds`` after the start, or after a file like ``file`` is there."""

    weapon: str
    seconds: float
    file: str = ""


class Output:
    """The boxes file and its parts, as a run left them."""

    def __init__(self, boxes: Path) -> None:
        self.boxes, self.folder = boxes, boxes.with_name(f"{boxes.name}.parts")

    def parts(self) -> Snapshot:
        """Time of change and content of every finished part."""
        found = {}
        for path in _matching(self.folder, "*.npz"):
            try:
                found[path.name] = path.stat().st_mtime_ns, path.read_bytes()
            except FileNotFoundError:  # the run has just finished and tidies up
                continue
        return found

    def phase(self) -> str:
        if self.boxes.exists():
            return MERGING if self.folder.exists() else DONE
        count = len(_matching(self.folder, "*.npz"))
        return BEFORE if not count else AMID if count < PARTS else MERGING

    def remove(self) -> None:
        for path in self.boxes.parent.glob(f"{self.boxes.name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


class Run:
    """One run of the command in a session of its own, by which its processes are found even without their parent."""

    def __init__(self, root: Path, boxes: Path, log: Path) -> None:
        self.log = log
        options = ["--dataset", "folder", "--root", str(root), "--boxes", str(boxes), "--jobs", "2"]
        command = [sys.executable, "-c", PROGRAM, str(PART_IMAGES), str(CHUNK_IMAGES), "propose", *options]
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )

    def go(self) -> None:
        if self.process.stdout.readline() != b"ready\n":
            raise SystemExit(f"the command does not start:\n{self.said()}")
        self.process.stdin.close()
        self.started = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def alive(self) -> bool:
        return self.process.poll() is None

    def others(self) -> dict[int, str]:
        """The run's processes besides the parent: id -> command line."""
        return {pid: line for pid, line in _processes(self.process.pid) if pid != self.process.pid}

    def _targets(self, weapon: str) -> list[int]:
        if weapon not in NEEDS_WORKERS:
            return [self.process.pid]
        sign = "popen_loky_posix" if weapon == WORKER else "resource_tracker"
        return sorted(pid for pid, line in self.others().items() if sign in line)

    def await_targets(self, strike: Strike, folder: Path) -> list[int]:
        """Wait for the strike's moment and for what it can hit. Nothing if the run ends before."""
        start = 0.0 if strike.file else self.started
        while self.alive():
            now = time.perf_counter()
            if not start and _matching(folder, strike.file):
                start = now
            if start and now - start >= strike.seconds and (targets := self._targets(strike.weapon)):
                return targets
            time.sleep(0.0005)
        return []

    def end(self) -> int | None:
        """The exit code; None if the run hangs."""
        try:
            return self.process.wait(HANGS_AFTER)  # not for the end of its output: orphans hold that open
        except subprocess.TimeoutExpired:
            return None

    def orphans(self) -> tuple[dict[int, str], float]:
        """The processes that do not end by themselves, and how long the others took."""
        start = time.perf_counter()
        while (left := self.others()) and time.perf_counter() - start < ORPHANS_END_WITHIN:
            time.sleep(0.01)
        return left, time.perf_counter() - start

    def remove(self) -> None:
        """End whatever is left of it."""
        for pid, _ in _processes(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def _matching(folder: Path, pattern: str) -> list[Path]:
    """What matches; nothing where a run takes a folder away while it is looked into."""
    try:
        return list(folder.glob(pattern))
    except FileNotFoundError:
        return []


def _processes(session: int) -> Iterator[tuple[int, str]]:
    """Id and command line of the living processes of a session."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, _, _, its_session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state not in "ZX":
                yield int(entry.name), (entry / "cmdline").read_text(errors="replace").replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue


def _hit(weapon: str, target: int) -> bool:
    """False if the process has ended by itself since."""
    sign = {CTRL_C: signal.SIGINT, TERM: signal.SIGTERM}.get(weapon, signal.SIGKILL)
    try:
        os.killpg(target, sign) if weapon == CTRL_C else os.kill(target, sign)
    except ProcessLookupError:
        return False
    return True


class Trial:
    """Runs and strikes on one output, and what came of them."""

    def __init__(self, place: Path, kills: int, seed: int) -> None:
        self.place, self.kills, self.chance = place, kills, random.Random(seed)
        self.images, self.logs = place / "images", place / "logs"
        self.logs.mkdir(parents=True)
        (place / "output").mkdir()
        self.output = Output(place / "output" / "boxes.h5")
        self.deck: list[str] = []
        self.opening = list(OPENING)
        self.struck: Counter[tuple[str, str]] = Counter()
        self.noisy: Counter[str] = Counter()
        self.violations: list[str] = []
        self.runs = self.rounds = 0
        self.slowest_end = 0.0
        draw_images(self.images)
        self.next = self._prepared(1)

    def prepare(self) -> None:
        """The reference, the parts of a run that could not merge them, and how long runs take with and without them."""
        self.whole = self._undisturbed()
        self.reference = self.output.boxes.read_bytes()
        self.output.remove()
        obstacle = self.output.boxes.with_name(f"{self.output.boxes.name}.tmp")
        obstacle.mkdir()
        run = self._start()
        if run.end() != 1 or len(self.output.parts()) != PARTS:
            raise SystemExit(f"a folder in the way of the unfinished file does not keep it from merging:\n{run.said()}")
        obstacle.rmdir()
        self.finished_parts = shutil.copytree(self.output.folder, self.place / "finished.parts")
        self.merge = self._undisturbed()
        if self.output.boxes.read_bytes() != self.reference:
            raise SystemExit("two runs without any strike differ")
        self.output.remove()

    def _start(self) -> Run:
        self.runs += 1
        run, self.next = self.next, self._prepared(self.runs + 1)
        run.go()
        return run

    def _prepared(self, number: int) -> Run:
        return Run(self.images, self.output.boxes, self.logs / f"{number:04d}.txt")

    def _undisturbed(self) -> float:
        """Seconds that a run takes."""
        run = self._start()
        if run.end() != 0:
            raise SystemExit(f"a run without any strike failed:\n{run.said()}")
        return run.seconds()

    def go(self) -> None:
        fresh = True
        while self.struck.total() < self.kills:
            if fresh and not self.opening and self.chance.random() < FINISHED_PARTS_SHARE:
                shutil.copytree(self.finished_parts, self.output.folder)
            fresh = self._run(self._plan())
            if fresh:
                self.rounds += 1
                self.output.remove()

    def _plan(self) -> list[Strike]:
        """One strike; often a second one, of the parent, where the first lets the run go on."""
        if self.opening:
            weapon, file = self.opening.pop(0)
            return [Strike(weapon, self.chance.uniform(0, 0.02), file)]
        left = 0 if self.output.boxes.exists() else PARTS - len(self.output.parts())
        strikes = [self._strike(self._deal(bool(left)), left)]
        if strikes[0].weapon in NEEDS_WORKERS and self.chance.random() < SECOND_STRIKE_SHARE:
            strikes.append(Strike(self._deal(False), strikes[0].seconds + self.chance.uniform(0, self.whole / 2)))
        return strikes

    def _strike(self, weapon: str, left: int) -> Strike:
        expected = self.merge + (self.whole - self.merge) * (0.5 + 0.5 * left / PARTS if left else 0)
        files = {A_PART: left, THE_MERGER: left < 4, THE_RESULT: left < 4}
        if weapon not in NEEDS_WORKERS and self.chance.random() < AIMED_SHARE:
            file = self.chance.choice([name for name, can_appear in files.items() if can_appear])
            return Strike(weapon, self.chance.uniform(0, 0.02), file)
        return Strike(weapon, self.chance.uniform(0, expected))

    def _deal(self, with_workers: bool) -> str:
        if not any(with_workers or weapon not in NEEDS_WORKERS for weapon in self.deck):
            self.deck += self.chance.sample(DECK, len(DECK))
        weapon = next(weapon for weapon in self.deck if with_workers or weapon not in NEEDS_WORKERS)
        self.deck.remove(weapon)
        return weapon

    def _run(self, strikes: list[Strike]) -> bool:
        """Run the command, strike, and check what is left. Returns whether the output is finished."""
        start, started_done = self.output.parts(), self.output.boxes.exists()
        finished_before, hits = dict(start), {}
        run = self._start()
        try:
            for strike in strikes:
                targets = run.await_targets(strike, self.output.boxes.parent)
                finished_before |= self.output.parts()
                phase = self.output.phase()
                if not targets or not _hit(strike.weapon, self.chance.choice(targets)):
                    break
                hits[strike.weapon] = phase
                self.struck[strike.weapon, phase] += 1
            code = run.end()
            orphans, seconds = run.orphans()
        finally:
            run.remove()
        self.slowest_end = max(self.slowest_end, seconds)
        reused = IMAGES if started_done else PART_IMAGES * len(start)
        found = [
            *self._wrong_files(finished_before),
            *self._wrong_end(run, code, list(hits), reused),
            *([f"processes are still there: {'; '.join(orphans.values())}"] if orphans else []),
        ]
        self.noisy.update(list(hits) if "Traceback" in run.said() else [])
        for violation in found:
            self.violations.append(violation)
            struck = "; ".join(f"{weapon} {phase}" for weapon, phase in hits.items()) or "no strike"
            print(f"run {self.runs} ({struck}): {violation}\n{run.said()}", flush=True)
        return code == 0

    def _wrong_files(self, finished_before: Snapshot) -> Iterator[str]:
        """The boxes file is the reference or absent; until it is there, no finished part is lost or made anew."""
        if self.output.boxes.exists():
            if self.output.boxes.read_bytes() != self.reference:
                yield "the boxes file is not byte for byte the reference"
            return
        now = self.output.parts()
        for name, (changed, content) in finished_before.items():
            if name not in now:
                yield f"the finished part {name} is lost"
            elif now[name] != (changed, content):
                yield f"the finished part {name} was written again"

    def _wrong_end(self, run: Run, code: int | None, weapons: list[str], reused: int) -> Iterator[str]:
        """A run that was not told to stop finishes, and tidies up; one that was says so by its exit code."""
        if code is None:
            yield f"it hangs for {HANGS_AFTER:.0f} s"
        elif code == 0:
            left = sorted(path.name for path in self.output.boxes.parent.iterdir())
            if left != [self.output.boxes.name]:
                yield f"it finished and left {left}"
            said = re.search(r"^([\d,]+) of them were already in the file", run.said(), re.MULTILINE)
            if int(said[1].replace(",", "") if said else 0) != reused:
                yield f"{reused} images were finished before, it reused {said[1] if said else 0}"
        elif weapons and weapons[-1] in FITTING_CODES:
            if code not in FITTING_CODES[weapons[-1]]:
                yield f"exit code {code}"
        else:
            yield f"nobody told it to stop, but exit code {code}"

    def report(self) -> None:
        print(f"{'':16}" + "".join(f"{phase:>15}" for phase in PHASES) + f"{'all':>15}{'tracebacks':>15}")
        for weapon in WEAPONS:
            counts = [self.struck[weapon, phase] for phase in PHASES]
            print(f"{weapon:16}" + "".join(f"{count:15}" for count in [*counts, sum(counts), self.noisy[weapon]]))
        totals = [sum(self.struck[weapon, phase] for weapon in WEAPONS) for phase in PHASES]
        print(f"{'all':16}" + "".join(f"{count:15}" for count in [*totals, sum(totals), self.noisy.total()]))
        print(
            f"{self.rounds} rounds finished in {self.runs} runs; a whole run takes {self.whole:.1f} s, merging alone "
            f"{self.merge:.2f} s; the last process ended at most {self.slowest_end:.1f} s after its parent"
        )


def draw_images(root: Path) -> None:
    """Small photographs of sorts in three class folders: soft texture and sharp shapes, some dozens of keypoints."""
    for number in range(IMAGES):
        generator = np.random.default_rng(number)
        coarse = generator.integers(0, 256, (10, 12, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((96, 80), Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(image)
        for _ in range(12):
            x, y, w, h = generator.uniform(0, (96, 80, 28, 28)).tolist()
            pen.ellipse((x, y, x + w, y + h), fill=tuple(generator.integers(0, 256, 3).tolist()))
        path = root / f"class{number % 3}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a new folder to work in and leave: images, output, every run's log")
    options = parser.parse_args()
    if options.keep and options.keep.exists():
        parser.error(f"{options.keep} is there already")
    with tempfile.TemporaryDirectory() as temporary:
        trial = Trial(options.keep or Path(temporary) / "crash", options.kills, options.seed)
        try:
            trial.prepare()
            trial.go()
        finally:
            trial.next.remove()
        trial.report()
    print(f"seed {options.seed}: {len(trial.violations)} violations")
    return 1 if trial.violations else 0


if __name__ == "__main__":
    sys.exit(main())
