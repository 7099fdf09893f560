"""The option for several seeds: `agnet train --seeds 0 1 2`."""

from __future__ import annotations

import click

from .options import one_each
from .sections import SectionedCommand
from .viewing import in_one_word

SEEDS = "--seeds"


class SeveralSeeds(SectionedCommand):
    """A command with ``--seeds``, which takes all words up to the next option, ``--seeds 0 1 2``, and ``--sizes``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, in_one_word(one_each(args, (SEEDS,))))


def check_seeds(context: click.Context, parameter: click.Parameter, seeds: tuple[int, ...]) -> tuple[int, ...]:
    """Check that the seeds are distinct; the callback of the option."""
    if len(set(seeds)) != len(seeds):
        raise click.BadParameter("give each seed only once")
    return seeds
