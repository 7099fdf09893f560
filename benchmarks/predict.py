"""Speed of `agnet predict`, of the network alone on prepared tensors, and of reading and proposing alone.

    python benchmarks/predict.py RUN DIR

RUN is the folder of a run, DIR contains photographs. Each part uses one core; the command uses one for the network and
one for a process that reads and proposes. Times are the minimum over --rounds, measured in turn; the command's time is
the one it prints, from the first image to the last, including the start of its worker. Needs two cores and an
importable agnet.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

import agnet
from agnet.data.inputs import find_inputs
from agnet.data.memory import keep_network_memory
from agnet.training.answers.predict import predict_samples
from agnet.training.samples.reading import Sample, sample_of_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("photographs")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    import cv2
    import threadpoolctl
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    threadpoolctl.threadpool_limits(1)
    keep_network_memory()
    checkpoint, cpu = agnet.load_checkpoint(options.run / "best.safetensors"), agnet.choose_device("cpu")
    settings = agnet.ProposalSettings.from_dict(checkpoint.proposals)
    propose = partial(agnet.propose_regions, settings=settings) if checkpoint.regions else None
    names = [one.name for one in find_inputs([options.photographs], sys.stdin.buffer)]
    seconds: dict[str, list[float]] = {"network": [], "proposals": [], "command": []}
    for _ in range(options.rounds):
        begun = time.perf_counter()
        made = [sample_of_file(name, checkpoint.size_hw, propose) for name in names]
        seconds["proposals"].append(time.perf_counter() - begun)
        samples = [one for one in made if isinstance(one, Sample)]
        begun = time.perf_counter()
        for _ in predict_samples(checkpoint, samples, cpu, batch_size=options.batch_size):
            pass
        seconds["network"].append(time.perf_counter() - begun)
        seconds["command"].append(_command(options))
    best = {name: float(np.min(times)) for name, times in seconds.items()}
    for name, least in best.items():
        print(f"{name:10} {len(names) / least:7.1f} images per second")
    longer, both = max(best["network"], best["proposals"]), best["network"] + best["proposals"]
    print(
        f"time of the command: {best['command'] / longer:.2f} of the slower part, {best['command'] / both:.2f} of both"
    )


def _command(options: argparse.Namespace) -> float:
    command = ["predict", "--run", options.run, options.photographs, "--device", "cpu", "--jobs", "1", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "agnet", *map(str, command), "--batch-size", str(options.batch_size)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"images in ([\d.]+) s", done.stderr)
    if found is None:
        sys.exit(f"the command printed no time: {done.stderr}")
    return float(found.group(1))


if __name__ == "__main__":
    main()
