"""`agnet complexity`: what networks cost, beside Table VI."""

from __future__ import annotations

import json

import click

from ..training.models.settings import AGNetSettings
from . import options

BACKBONES = ("resnet50", "densenet121", "inception-v3", "nasnet-mobile", "vgg16")  # Table VI's, and VGG-16


@click.command()
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    help="Name of a backbone; may be given several times.  [default: resnet50, densenet121, inception-v3, "
    "nasnet-mobile, vgg16, and bcnn and srbn with their two streams]",
)
@click.option("--classes", type=click.IntRange(1), default=40, show_default=True, help="Classes to tell apart.")
@click.option(
    "--region-count",
    "regions",
    type=click.IntRange(0),
    default=AGNetSettings.regions,
    show_default=True,
    help="Regions of an image, which are tokens beside the whole of it.",
)
@options.stages()
@click.option("--latency", is_flag=True, help="Measure the time of inference, too.")
@click.option(
    "--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Images at once, with --latency."
)
@options.device
@options.json_
def complexity(
    backbones: tuple[str, ...],
    classes: int,
    regions: int,
    stages: int,
    latency: bool,
    batch_size: int,
    device: str,
    as_json: bool,
) -> None:
    """Parameters, arithmetic and time of networks with and without AG-Net's parts, beside the paper's Table VI."""
    from dataclasses import replace

    from ..data.memory import keep_network_memory
    from ..training.loop.preflight import check_backbone

    two_streams = not backbones
    backbones = backbones or BACKBONES
    for backbone in backbones:
        check_backbone(backbone)
    # Only now: PyTorch takes seconds to load.
    from ..training.machine.devices import choose_device
    from ..training.measure.complexity import (
        VARIANTS,
        costs_text,
        network_cost,
        network_milliseconds,
        two_stream_costs,
        two_stream_milliseconds,
    )

    keep_network_memory()
    costs = []
    for backbone in backbones:
        settings = AGNetSettings(classes=classes, regions=regions, backbone=backbone, stages=stages)
        found = [network_cost(settings, variant) for variant in VARIANTS]
        if latency:
            taken = network_milliseconds(settings, batch_size, choose_device(device))
            found = [replace(cost, milliseconds=taken[cost.variant]) for cost in found]
        costs += found
    if two_streams:
        found = two_stream_costs(classes)
        if latency:
            taken = two_stream_milliseconds(classes, batch_size, choose_device(device))
            found = [replace(cost, milliseconds=taken[cost.variant]) for cost in found]
        costs += found
    click.echo(json.dumps([cost.to_dict() for cost in costs]) if as_json else costs_text(costs))
