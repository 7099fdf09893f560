"""Trackers of a run's log besides `log.jsonl`: a CSV file, TensorBoard, Weights & Biases, and MLflow."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ...data.errors import ConfigurationError
from ...data.files import write_text
from ...data.spelling import did_you_mean
from ...data.text import csv_text, first_line
from ...extras import how_to_install
from .folder import SEVERAL, read_config, read_log, title_of

Line = Mapping[str, object]  #: one epoch of the log: values by name

RECORD = "trackers.json"  #: trackers that were asked for, and what each remembers of the run
TABLE, EVENTS = "log.csv", "tensorboard/events.out.tfevents.agnet"
NONE = "none"
PROJECT = "agnet"  #: project of Weights & Biases and experiment of MLflow, unless the environment names another


class Tracker(Protocol):
    """A log of one run outside `log.jsonl`. Any of its methods may fail: see `Trackers`."""

    place: str  #: where the user finds it, for a message; empty for a file of the run's folder

    def update(self, lines: Sequence[Line]) -> None:
        """Log the epochs among ``lines``, the whole log, that were not logged before."""

    def measure(self, split: str, values: Mapping[str, float], epoch: int) -> None:
        """Log what an evaluation on ``split`` found for the checkpoint of ``epoch``."""

    def close(self, finished: bool) -> None:
        """End the log; ``finished`` is False if the run was interrupted or failed."""


class Trackers:
    """The trackers of one run. One that fails is dropped with a warning: no tracker ends a training.

    Args:
        run: Folder of the run, with its configuration.
        names: Names of the trackers, keys of `KINDS`; None for those of the run (`names_of`).
        say: Function called with a line of text for the user.
    """

    def __init__(self, run: Path, names: Iterable[str] | None, say: Callable[[str], None]) -> None:
        self._run, self._say = run, say
        self._asked = names is not None or (run / RECORD).exists()
        recorded = _recorded(run)
        self._states = {name: recorded.get(name, {}) for name in (names_of(run) if names is None else names)}
        self._kept: object = None
        self._open: dict[str, Tracker] = {}
        for name, state in self._states.items():
            self._attempt(name, lambda name=name, state=state: self._begin(name, state))  # type: ignore[misc]
        self._keep()

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._each(lambda tracker: tracker.close(kind is None))

    def update(self, lines: Sequence[Line]) -> None:
        """Bring every tracker up to date with the whole log."""
        self._each(lambda tracker: tracker.update(lines))
        self._keep()

    def measure(self, split: str, values: Mapping[str, float], epoch: int) -> None:
        """Log the measures of an evaluation, by name, at the epoch of the checkpoint."""
        self._each(lambda tracker: tracker.measure(split, values, epoch))

    def _begin(self, name: str, state: dict[str, Any]) -> None:
        self._open[name] = tracker = KINDS[name](self._run, state)
        if tracker.place:
            self._say(f"{name}: {tracker.place}")

    def _each(self, action: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            self._attempt(name, lambda tracker=tracker: action(tracker))  # type: ignore[misc]

    def _attempt(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever a server, a disk or a foreign package raises
            self._open.pop(name, None)
            self._say(
                f"Warning: nothing more is logged to {name} ({first_line(error)}); the files in the folder of the run "
                "have everything"
            )

    def _keep(self) -> None:
        """Record the states of the trackers, if they were asked for and have changed."""
        text = json.dumps(self._states, indent=1) + "\n"
        if self._asked and text != self._kept:
            self._kept = text
            with suppress(OSError):  # a full disk stops the run elsewhere, with a better message
                write_text(self._run / RECORD, text)


def names_of(run: Path) -> list[str]:
    """Names of the trackers that a run was started with; by default TensorBoard, where it is installed."""
    if (run / RECORD).exists():
        return list(_recorded(run))
    return ["tensorboard"] if is_installed("tensorboard") else []


def parse_names(text: str) -> tuple[str, ...]:
    """Parse names separated by commas, or ``none``. Raises: `ValueError` for an unknown name."""
    names = tuple(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))
    if names == (NONE,):
        return ()
    if NONE in names:
        raise ValueError(f"{NONE} stands alone, got {text!r}")
    for name in names or ("",):
        if name not in KINDS:
            raise ValueError(f"wanted {', '.join(KINDS)} or {NONE}, got {name!r}{did_you_mean(name, [*KINDS, NONE])}")
    return names


def check_installed(names: Iterable[str]) -> None:
    """Raise `ConfigurationError` for the first tracker whose package is missing."""
    for name in names:
        if name != "csv" and not is_installed(name):
            raise ConfigurationError(f"--log {name} needs the package {name}, the extra {name}: {how_to_install(name)}")


def is_installed(package: str) -> bool:
    """Whether a package is installed; a folder that happens to have its name is none. Does not import it."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


def log_measures(run: Path, file: Path, say: Callable[[str], None]) -> None:
    """Log an evaluation to those trackers of a run that are not files of its folder.

    Args:
        run: Folder of a single run.
        file: Metrics that were written, such as ``metrics-test.json``.
        say: Function called with a line of text for the user.
    """
    if not {"wandb", "mlflow"} & set(_recorded(run)):
        return
    found = json.loads(file.read_text(encoding="utf-8"))
    values = {name: value for name, value in found.items() if isinstance(value, float)}
    with Trackers(run, None, say) as trackers:
        trackers.update(read_log(run))  # also what a tracker that failed in training lacks
        trackers.measure(file.stem.removeprefix("metrics-"), values, int(found["epoch"]))


def _recorded(run: Path) -> dict[str, dict[str, Any]]:
    """Read what the trackers remember of a run; nothing of names that this version does not know."""
    try:
        found = json.loads((run / RECORD).read_text(encoding="utf-8"))
        return {name: state for name, state in found.items() if name in KINDS and isinstance(state, dict)}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


class _Table:
    """`log.csv`: one row for each epoch, and a column for each value that any epoch has."""

    place = ""

    def __init__(self, run: Path, state: dict[str, Any]) -> None:
        self._file = run / TABLE

    def update(self, lines: Sequence[Line]) -> None:
        names = list(dict.fromkeys(name for line in lines for name in line))
        write_text(self._file, csv_text([names, *([line.get(name) for name in names] for line in lines)]))

    def measure(self, split: str, values: Mapping[str, float], epoch: int) -> None:
        """Do nothing: `metrics-test.csv` is beside it."""

    def close(self, finished: bool) -> None:
        """Do nothing."""


class _TensorBoard:
    """An event file for TensorBoard. PyTorch's SummaryWriter would put the host name into the file's name."""

    place = ""

    def __init__(self, run: Path, state: dict[str, Any]) -> None:
        self._file, self._written = run / EVENTS, 0

    def update(self, lines: Sequence[Line]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._file.parent.mkdir(exist_ok=True)
        anew = not self._written or not self._file.exists()  # a resumed run may have lost the last epochs
        with self._file.open("wb" if anew else "ab") as file:
            writer = RecordWriter(file)
            if anew:
                writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
            for line in lines[0 if anew else self._written :]:
                values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _numbers(line).items()]
                event = Event(wall_time=time.time(), step=_epoch(line), summary=Summary(value=values))
                writer.write(event.SerializeToString())
            writer.flush()
        self._written = len(lines)

    def measure(self, split: str, values: Mapping[str, float], epoch: int) -> None:
        """Do nothing: the file holds the curves of training."""

    def close(self, finished: bool) -> None:
        """Do nothing."""


class _Wandb:
    """Weights & Biases. Without a login it is offline, unless WANDB_MODE says otherwise."""

    def __init__(self, run: Path, state: dict[str, Any]) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        title, group = _name_and_group(run)
        offline = "WANDB_MODE" not in os.environ and not wandb.login(prompt=False, verify=False)
        self._state = state
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=state.get("run"),
            resume="allow",
            name=title,
            group=group or None,
            config=_told(run),
            allow_val_change=True,  # on resuming, for the number of workers
            mode="offline" if offline else None,
            # Without the names of the machine and of its user, and without the command's output.
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=30,
                x_disable_meta=True,
                host="",
                username="",
                disable_git=True,
            ),
        )
        state["run"] = self._run.id
        folder = os.path.relpath(Path(self._run.dir).parent)
        self.place = f"offline, in {folder}; to upload: wandb sync" if self._run.offline else str(self._run.url)

    def update(self, lines: Sequence[Line]) -> None:
        for line in _new(lines, self._state):
            self._run.log(_numbers(line), step=_epoch(line))
            self._state["epochs"] = _epoch(line)

    def measure(self, split: str, values: Mapping[str, float], epoch: int) -> None:
        self._run.summary.update(_measured(split, values))

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


class _MLflow:
    """MLflow, through its client: it records no name of the machine or of its user, and changes no global state."""

    def __init__(self, run: Path, state: dict[str, Any]) -> None:
        # A server that is gone would be asked seven times, for minutes, after every epoch.
        for name, value in (("HTTP_REQUEST_MAX_RETRIES", "2"), ("DISABLE_TELEMETRY", "true")):
            os.environ.setdefault(f"MLFLOW_{name}", value)
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)  # not the making of its database
        self._client, self._state = MlflowClient(), state
        if "run" in state:
            self._client.update_run(state["run"], status="RUNNING")
        else:
            state["run"] = self._create(run)
        self.place = f"run {self._client.get_run(state['run']).info.run_name}; to look at it: mlflow ui"

    def _create(self, run: Path) -> str:
        from mlflow.entities import Param

        wanted = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(wanted)
        number = experiment.experiment_id if experiment else self._client.create_experiment(wanted)
        title, group = _name_and_group(run)
        found = self._client.create_run(number, run_name=title, tags={"group": group} if group else None)
        params = [Param(name, str(value)[:500]) for name, value in _flat(_told(run)).items()]  # older servers' limit
        for start in range(0, len(params), 100):  # the most in one request
            self._client.log_batch(found.info.run_id, params=params[start : start + 100])
        return str(found.info.run_id)

    def update(self, lines: Sequence[Line]) -> None:
        for line in _new(lines, self._state):
            self._log(_numbers(line), _epoch(line))
            self._state["epochs"] = _epoch(line)

    def measure(self, split: str, values: Mapping[str, float], epoch: int) -> None:
        known = self._client.get_run(self._state["run"]).data.metrics
        found = _measured(split, values)
        self._log({name: value for name, value in found.items() if known.get(name) != value}, epoch)

    def _log(self, values: Mapping[str, float], epoch: int) -> None:
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        self._client.log_batch(
            self._state["run"], metrics=[Metric(name, value, now, epoch) for name, value in values.items()]
        )

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self._state["run"], "FINISHED" if finished else "KILLED")


#: Trackers by name: functions of a run's folder, and of a dictionary of JSON values that it keeps for the tracker.
KINDS: dict[str, Callable[[Path, dict[str, Any]], Tracker]] = {
    "csv": _Table,
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "mlflow": _MLflow,
}


def _new(lines: Sequence[Line], state: Mapping[str, Any]) -> list[Line]:
    """Lines of epochs that a tracker does not have: what it has stays, and a resumed run repeats some epochs."""
    return [line for line in lines if _epoch(line) > state.get("epochs", 0)]


def _epoch(line: Line) -> int:
    return int(str(line["epoch"]))


def _numbers(line: Line) -> dict[str, float]:
    """The numbers of a log line by their `_tag`."""
    return {
        _tag(name): float(value)
        for name, value in line.items()
        if isinstance(value, (int, float)) and name not in ("epoch", "best")
    }


def _measured(split: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}/{split}": value for name, value in values.items()}


def _tag(name: str) -> str:
    """Name of a log entry in trackers: ``val_loss`` -> ``loss/val``, so that related curves are shown side by side."""
    part, _, figure = name.partition("_")
    return f"{figure}/{part}" if part in ("train", "val") else f"run/{name}"


def _name_and_group(run: Path) -> tuple[str, str]:
    """Name of a run in trackers, and of the group that its seeds or folds form; empty for a single run."""
    place = run.resolve()
    kind, _, number = place.name.partition("-")
    if kind in SEVERAL and number.isdecimal():
        return f"{title_of(run) or place.parent.name}, {kind} {number}", place.parent.name
    return title_of(run) or place.name, ""


def _told(run: Path) -> dict[str, dict[str, object]]:
    """What trackers are told of a run's configuration: everything but the places of its files."""
    config = read_config(run)
    boxes = {name: config["boxes"].get(name) for name in ("title", "dataset", "fingerprint", "images")}
    others = ("model", "recipe", "run", "versions", "hardware", "code")
    return {**{name: config[name] for name in others if name in config}, "boxes": boxes}


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Flatten nested dictionaries: ``{"recipe": {"lr": 1}}`` -> ``{"recipe.lr": 1}``."""
    found: dict[str, object] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found
