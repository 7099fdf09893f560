"""What ALSTM costs on cached maps, as a ratio to a plain LSTM within one run.

    python benchmarks/clips.py [--batch-size 16] [--frames 16] [--channels 512] [--attention-units 64]

A training step (forward, backward, AdamW) of ALSTM's head for each score / of `torch.nn.LSTM` with a linear layer on
the same maps' means over their positions, both of 512 units: wanted is at most 1.5. Both get the maps of a frozen
backbone, B x T x C x 7 x 7, and take turns; the ratio is the median over rounds.

`one by one` is the same LSTM on the same means whose inputs are multiplied frame by frame, as they must be if they
depend on the state: without any attention, the least that ALSTM can cost.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from agnet.data.memory import keep_freed_memory
from agnet.training.machine.devices import Device, choose_device
from agnet.training.models.backbones.backbone import Backbone
from agnet.training.models.blocks.lstm_step import Products, lstm_step
from agnet.training.models.build import assemble
from agnet.training.models.settings import SCORES, ALSTMSettings

CLASSES, SIDE, WARM_UP, LSTM, ONE_BY_ONE = 51, 7, 2, "LSTM", "one by one"


class CachedMaps(Backbone):
    """A stand-in for a frozen backbone: frames are their maps."""

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        return (images,)


class PooledLSTM(nn.Module):
    """`torch.nn.LSTM` over the mean features of frames."""

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, units, batch_first=True)
        self.classifier = nn.Linear(units, CLASSES)

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, T, C, h, w)`` -> logits ``(B, T, classes)``."""
        logits: Tensor = self.classifier(self.lstm(maps.mean(dim=(3, 4)))[0])
        return logits


class OneByOne(PooledLSTM):
    """The same, with the inputs multiplied frame by frame by ALSTM's blocks."""

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, T, C, h, w)`` -> logits ``(B, T, classes)``."""
        means = maps.mean(dim=(3, 4))
        input_, recurrent, *biases = self.lstm.parameters()
        gates = Products(torch.cat([input_, recurrent], dim=1), biases[0] + biases[1], means.shape[1], len(means))
        hidden = cell = means.new_zeros(len(means), self.lstm.hidden_size)
        found = []
        for frame in means.unbind(1):
            hidden, cell = lstm_step(gates(torch.cat([frame, hidden], dim=1)), cell)
            found.append(hidden)
        logits: Tensor = self.classifier(torch.stack(found, dim=1))
        return logits


def steps(arguments: argparse.Namespace, device: Device) -> dict[str, Callable[[], None]]:
    """A training step of either network."""
    size = (arguments.batch_size, arguments.frames, SIDE, SIDE, arguments.channels)
    maps = torch.rand(size, device=device.device).permute(0, 1, 4, 2, 3)  # channels last, as backbones return them
    valid = torch.ones(size[:2], dtype=torch.bool, device=device.device)
    labels = torch.randint(CLASSES, (arguments.batch_size,), device=device.device).repeat_interleave(arguments.frames)

    def step_of(network: nn.Module, logits_of: Callable[[], Tensor]) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with device.autocast():
                logits = logits_of()
            nn.functional.cross_entropy(logits.float().flatten(0, 1), labels).backward()
            optimizer.step()

        return step

    def alstm(score: str) -> Callable[[], None]:
        backbone = CachedMaps(nn.Identity(), arguments.channels)
        settings = ALSTMSettings(CLASSES, score=score, attention_units=arguments.attention_units)
        model = assemble(settings, backbone).to(device.device).train()
        return step_of(model, lambda: model(maps, valid).logits)

    pooled, one_by_one = (
        network(arguments.channels, ALSTMSettings.units).to(device.device) for network in (PooledLSTM, OneByOne)
    )
    plain = {LSTM: step_of(pooled, lambda: pooled(maps)), ONE_BY_ONE: step_of(one_by_one, lambda: one_by_one(maps))}
    return plain | {score: alstm(score) for score in SCORES}


def seconds(rounds: int, device: Device, work: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Seconds of each step in every round; they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + WARM_UP):
        for name, step in work.items():
            device.wait()
            start = time.perf_counter()
            step()
            device.wait()
            if turn >= WARM_UP:
                taken[name].append(time.perf_counter() - start)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--attention-units", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    device = choose_device(arguments.device, arguments.precision)
    taken = seconds(arguments.rounds, device, steps(arguments, device))
    result = {}
    for score in (ONE_BY_ONE, *SCORES):
        ratio = median(ours / theirs for ours, theirs in zip(taken[score], taken[LSTM], strict=True))
        result[score] = {"ratio": ratio, "s": median(taken[score]), "LSTM s": median(taken[LSTM])}
        if not arguments.json:
            told = f"{median(taken[score]):.4f} s, LSTM {median(taken[LSTM]):.4f} s"
            print(
                f"{'LSTM' if score == ONE_BY_ONE else 'ALSTM'}, {score} / LSTM, a training step: {ratio:.2f} ({told})",
                flush=True,
            )
    if arguments.json:
        print(json.dumps({"device": str(device.device), **vars(arguments), **result}))


if __name__ == "__main__":
    main()
