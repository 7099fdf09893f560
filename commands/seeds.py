"""The option for several seeds: `agnet train --seeds 0 1 2`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from .sections import SectionedCommand

SEEDS = "--seeds"


class SeveralSeeds(SectionedCommand):
    """A command with ``--seeds``, which takes all words up to the next option: ``--seeds 0 1 2``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _one_each(args))


def _one_each(words: Sequence[str]) -> list[str]:
    """Rewrite ``--seeds 0 1`` as ``--seeds 0 --seeds 1``, which click understands."""
    found: list[str] = []
    option = ""  # the last one
    for word in words:
        if word.startswith("-"):
            option = word
        elif option == SEEDS and found[-1] != SEEDS:
            found.append(SEEDS)
        found.append(word)
    return found


def check_seeds(context: click.Context, parameter: click.Parameter, seeds: tuple[int, ...]) -> tuple[int, ...]:
    """Check that the seeds are distinct; the callback of the option."""
    if len(set(seeds)) != len(seeds):
        raise click.BadParameter("give each seed only once")
    return seeds
