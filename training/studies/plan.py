"""The plan of a study: its commands in order, which of them are done, and the time that the others will take."""

from __future__ import annotations

from collections import Counter

from ...data.text import rough_time, table
from .estimate import FINISHED, MEASURED, Estimates
from .records import is_done, to_resume
from .study import Study, Unit


def plan_text(study: Study, estimates: Estimates) -> str:
    """Format the plan as text: one line per command, the time in all, and what it is made of."""
    waiting = [unit for unit in study.units if not is_done(study, unit)]
    rows = [["", "command", "time"]]
    rows += [
        [f"{number}", unit.told, _told(unit, unit in waiting, estimates)] for number, unit in enumerate(study.units, 1)
    ]
    lines = [f"{study.title}: {len(study.rows)} rows, seeds {', '.join(map(str, study.seeds))}, into {study.folder}"]
    lines += table(rows, right={2})
    return "\n".join([*lines, *_sums(waiting, estimates), f"written: {study.folder} has these measurements only"])


def plan_to_dict(study: Study, estimates: Estimates) -> dict[str, object]:
    """The plan as JSON values; times in seconds, None where unknown."""
    waiting = {unit.name for unit in study.units if not is_done(study, unit)}
    commands = []
    for unit in study.units:
        found = estimates.of(unit) if unit.name in waiting else None
        commands.append(
            {
                "command": unit.told,
                "done": unit.name not in waiting,
                "seconds": found and found.seconds,
                "from": found and found.source,
            }
        )
    left = estimates.left([unit for unit in study.units if unit.name in waiting])
    return {"study": study.name, "commands": commands, "jobs": estimates.jobs, "seconds_left": left}


def _told(unit: Unit, waits: bool, estimates: Estimates) -> str:
    if not waits:
        return "done"
    found = estimates.of(unit)
    return f"{'resumed, of ' if to_resume(unit) else ''}{rough_time(found.seconds)}" if found else "unknown"


def _sums(waiting: list[Unit], estimates: Estimates) -> list[str]:
    if not waiting:
        return ["nothing left to run"]
    left = estimates.left(waiting)
    at_once = f", {estimates.jobs} commands side by side" if estimates.jobs > 1 else ""
    told = "time unknown" if left is None else f"about {rough_time(left)}"
    lines = [f"{len(waiting)} commands to run, {told}{at_once}"]
    sources = Counter(found.source for unit in waiting if (found := estimates.of(unit)))
    meaning = {
        FINISHED: "the same row with other seeds",
        MEASURED: "scaled from a sample of the images and a few training steps, without early stopping",
    }
    lines += [f"  of {count} the time is that of {source}: {meaning[source]}" for source, count in sources.items()]
    return lines
