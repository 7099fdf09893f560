"""The command line: the group of commands, and one-line messages for known errors. Importing it loads nothing heavy."""

from __future__ import annotations

import errno
import io
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from . import __version__

_WORDS = "agnet.words"  # entry of a context: the words of a command

STAGES: dict[str, tuple[str, ...]] = {
    "Data and stage 1": ("datasets", "propose", "inspect"),
    "Stage 2": ("train", "evaluate", "report", "compare", "study", "labels", "figure", "runs", "complexity"),
    "Inference": ("predict", "explain", "export", "export-data"),
    "Sharing": ("push", "pull"),
    "Demo and bug reports": ("demo", "doctor"),
}


class _Commands(Mapping[str, click.Command]):
    """The commands by name, in the order of `STAGES`. Each is imported when it is first asked for."""

    def __getitem__(self, name: str) -> click.Command:
        if name not in self:
            raise KeyError(name)
        module = name.replace("-", "_")
        command: click.Command = getattr(import_module(f".commands.{module}", __package__), module)
        return command

    def __contains__(self, name: object) -> bool:
        return any(name in names for names in STAGES.values())

    def __iter__(self) -> Iterator[str]:
        return (name for names in STAGES.values() for name in names)

    def __len__(self) -> int:
        return sum(map(len, STAGES.values()))


class _OneLineErrors(click.Group):
    """A group that reports input errors in one line with exit code 1; programming errors keep their traceback.

    Ctrl-C exits with 130 at any time, and so does SIGTERM once a command has started. A training run that saves its
    state first has its own exit codes.
    """

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **others: Any) -> Any:  # type: ignore[override]
        standalone = others.pop("standalone_mode", True)
        run: Callable[[], Any] = partial(super().main, args, prog_name, standalone_mode=False, **others)
        _write_any_letter()
        if not standalone:
            return run()
        try:
            code = run()
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except (click.Abort, KeyboardInterrupt) as aborted:  # Abort: an interrupt, or the end of a file
            if isinstance(aborted.__cause__, EOFError):
                raise aborted.__cause__ from None
            click.echo("Interrupted.", err=True)
            code = 130
        sys.exit(code if isinstance(code, int) else 0)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by `STAGES` with their full summaries, which click would cut off with "..."."""
        for stage, names in STAGES.items():
            with formatter.section(stage):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=1000)) for name in names])

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order of `STAGES`."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            from .data.spelling import did_you_mean

            ctx.fail(f"there is no command {args[0]!r}{did_you_mean(args[0], self.commands)}")
        ctx.meta[_WORDS] = args[1:]
        return super().resolve_command(ctx, args)

    def invoke(self, context: click.Context) -> Any:
        from .data.errors import AgnetError
        from .data.python_path import current_folder_hidden, usurper

        # Schedulers and `kill` send SIGTERM: it ends workers and keeps finished work, like Ctrl-C.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with current_folder_hidden():
                return super().invoke(context)
        except click.UsageError as error:
            of_a_command = error.ctx not in (None, context)
            plain = type(error) in (click.UsageError, click.MissingParameter)
            if of_a_command and plain and (hint := _forgotten_option(error, context.meta[_WORDS])):
                raise click.UsageError(f"{error.format_message().rstrip('.')}. {hint}", error.ctx) from None
            raise
        except AgnetError as error:
            raise click.ClickException(str(error)) from None
        except (ImportError, AttributeError) as error:
            if file := usurper(error):
                raise click.ClickException(
                    f"{file} is taken for Python's own module of that name; rename it, or remove its folder from "
                    "PYTHONPATH"
                ) from None
            if "libGL" not in str(error):
                raise
            raise click.ClickException(
                f"OpenCV cannot be loaded ({error}): apt-get install libgl1, or pip uninstall opencv-python and "
                "pip install opencv-python-headless"
            ) from None
        except MemoryError:
            raise click.ClickException(
                "not enough memory; close other programs, raise the limit (ulimit -v), or use fewer --jobs or "
                "--workers. Finished work is kept: run the same command again"
            ) from None
        except UnicodeEncodeError as error:
            if "utf-8" in (error.encoding, sys.getfilesystemencoding()):
                raise
            raise click.ClickException(
                f"{error.object!r} is not a valid file name in {error.encoding}, the encoding of this locale; "
                "set PYTHONUTF8=1 in the environment and run the command again"
            ) from None
        except OSError as error:
            if error.errno in (None, errno.EPIPE):  # click handles a closed pipe
                raise
            raise click.ClickException(f"{error.filename or ''}: {error.strerror}".lstrip(": ")) from None


def _forgotten_option(error: click.UsageError, words: Sequence[str]) -> str:
    """``Did you mean --boxes boxes.h5?``, if a boxes file or a run was given without its option; else empty.

    Args:
        error: Error of a command's usage.
        words: Words of the command line after the name of the command.
    """
    from .data.text import printable

    command: Any = error.ctx.command if error.ctx else None
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    free = [name for one in command.params for name in one.opts if one.multiple or name not in words]
    kinds = [option for option in ("--boxes", "--run") if option in free]
    # What follows an option may be its value.
    loose = [word for before, word in pairwise(["", *words]) if not (before.startswith("-") or word.startswith("-"))]
    left_over = loose[len(arguments) :] if all(one.nargs > 0 for one in arguments) else []
    # Where the command needs a run, or takes nothing else, a word that is left over is one.
    is_run = isinstance(error, click.MissingParameter) or kinds == ["--run"]
    for word in loose:
        if "--boxes" in kinds and word.endswith((".h5", ".hdf5")):
            return f"Did you mean --boxes {printable(shlex.quote(word))}?"
        if "--run" in kinds and (_looks_like_a_run(word) or (is_run and [word] == left_over)):
            return f"Did you mean --run {printable(shlex.quote(word))}?"
    return ""


def _looks_like_a_run(word: str) -> bool:
    """Whether a word names a checkpoint, a network on the hub, or the folder of a run or of its seeds."""
    names = ("config.json", "*/config.json")
    return word.startswith("hf:/") or word.endswith(".safetensors") or any(any(Path(word).glob(name)) for name in names)


def _write_any_letter() -> None:
    """Write characters that the encoding of stdout or stderr lacks as escapes, so that names stay distinct."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@click.group(cls=_OneLineErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="agnet")
def main() -> None:
    """AG-Net: fine-grained image recognition guided by salient regions.

    Two stages share one HDF5 file: agnet propose writes the regions of every image of a data set, agnet train trains
    the network that attends to them.
    """


main.commands = _Commands()  # type: ignore[assignment]


if __name__ == "__main__":
    main(prog_name="agnet")
