"""`agnet complexity`: parameters, FLOPs, inference time and memory of networks, compared with Table VI."""

from __future__ import annotations

import json
from typing import Any

import click

from ..training.models.settings import AGNetSettings
from . import options
from .completion import complete_backbones
from .field_options import SettingsCommand, field_option, field_options, settings_from

BACKBONES = ("resnet50", "densenet121", "inception-v3", "nasnet-mobile", "vgg16")  # Table VI's, and VGG-16


@click.command(cls=SettingsCommand, short_help="Count a network's parameters and FLOPs, as in Table VI.")
@click.option(
    "--backbone",
    "backbones",
    shell_complete=complete_backbones,
    multiple=True,
    help="Name of a backbone; may be given several times.  [default: resnet50, densenet121, inception-v3, "
    "nasnet-mobile, vgg16; alstm and conv-alstm, for one frame; bcnn and srbn with their two streams]",
)
@click.option(
    "--latency",
    is_flag=True,
    help="Measure inference, too: its time, and as MB the most bytes of tensors that exist at once: weights, the batch "
    "and what is computed, without the workspaces of single operations.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Number of images per batch, with --latency.",
)
@options.device
@options.json_
@field_option(AGNetSettings, "classes", default=40)
@field_options(AGNetSettings, without=("classes", "backbone"))
@click.pass_context
def complexity(
    context: click.Context,
    backbones: tuple[str, ...],
    latency: bool,
    batch_size: int,
    device: str,
    as_json: bool,
    **_: Any,
) -> None:
    """Report parameters, FLOPs, inference time and memory of networks with and without AG-Net's parts.

    The values of the paper's Table VI are listed next to them.
    """
    from dataclasses import replace

    from ..data.memory import keep_network_memory
    from ..training.loop.preflight import check_backbone

    others = not backbones
    backbones = backbones or BACKBONES
    for backbone in backbones:
        check_backbone(backbone)
    # Imported here: PyTorch takes seconds to load.
    from ..training.machine.devices import choose_device
    from ..training.measure.complexity import (
        VARIANTS,
        costs_text,
        network_cost,
        network_inference,
        other_costs,
        other_inference,
    )

    keep_network_memory()
    costs = []
    for backbone in backbones:
        settings = settings_from(context, AGNetSettings, backbone=backbone)
        found = [network_cost(settings, variant) for variant in VARIANTS]
        if latency:
            taken = network_inference(settings, batch_size, choose_device(device))
            found = [replace(cost, **taken[cost.variant]._asdict()) for cost in found]
        costs += found
    if others:
        found = other_costs(context.params["classes"])
        if latency:
            taken = other_inference(context.params["classes"], batch_size, choose_device(device))
            found = [replace(cost, **taken[cost.variant]._asdict()) for cost in found]
        costs += found
    click.echo(json.dumps([cost.to_dict() for cost in costs]) if as_json else costs_text(costs))
