"""`agnet doctor`: checks of the machine and of the installation, to paste into a bug report."""

from __future__ import annotations

import json
import sys

import click

from . import options


@click.command(short_help="Check this machine and installation, for bug reports.")
@options.json_
def doctor(as_json: bool) -> None:
    """Check versions, devices, limits and disks, decode a photograph and train for a step, in a few seconds.

    Each check is one line: ok, warning or FAILED, with a remedy; the exit code is 1 if something failed. Nothing is
    sent anywhere, and no line names the user, the machine or a folder of photographs, so that all of them can be pasted
    into a bug report.
    """
    from ..data.text import table
    from ..doctor import WARNING, examine, has_failed

    found = examine()
    failed = has_failed(found)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "checks": [one.to_dict() for one in found]}, indent=1))
    else:
        rows = [[one.state, one.check, f"{one.found}; {one.remedy}" if one.remedy else one.found] for one in found]
        click.echo("\n".join(table(rows, right=())))
        warnings = sum(one.state == WARNING for one in found)
        verdict = "something failed" if failed else "nothing failed"
        click.echo(f"{verdict}{f', warnings: {warnings}' if warnings else ''}", err=True)
    if failed:
        sys.exit(1)
