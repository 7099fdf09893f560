"""Whether a second look at salient places pays, at equal compute and against the same look at other places.

    python studies/second_look.py --boxes boxes.h5 --root DIR --weights FILE [--seeds 3] [--epochs 8] [--output FILE]

An experiment, not a part of agnet. BOXES has four primary regions (`agnet propose --primary 4 --kinds primary`). A
photograph is seen whole, resized to a square, then four square crops are seen at the backbone's own size, and the
answer is ``log p(whole) + mean log p(crop)``: one classifier for the whole, one for all crops. A crop's side is 1.3
times the longer side of its region, at least 16 pixels and at most the shorter side of the photograph, in all rows. Its
centre is, in fractions of the photograph's width and height,

- ``salient``: that of the region;
- ``other``: that of the same slot's region in another photograph, of train and validation or of test;
- ``random``: drawn at random;
- ``corners``: one of the four corners;

and a crop that would leave the photograph is shifted into it.

Beside them, the whole photograph alone at 224 and 448 pixels, and at both (``log p(224) + log p(448)``). The cost is in
encodings at 224 pixels. The backbone is EfficientNet-Lite0 with ImageNet weights, its first layers computed once, in
bfloat16, without augmentation:

- ``frozen``: logistic regression on the mean of the last map. Its penalty is chosen for the whole photograph by five
  folds of train and is the same for all rows. Accuracy is measured by tenfold cross-validation on train, and on test.
- ``trained``: the layers from ``--cut`` on are trained with the classifiers, all rows with the same number of epochs,
  learning rate and order of the photographs. Test is read once, after the last epoch.

Train and validation photographs are both trained on. The 95 % intervals of differences are those of `agnet compare`,
over photographs in pairs and, if trained with several seeds, over seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from agnet.data.boxes.reader import Boxes, read_boxes
from agnet.data.errors import AgnetError, MismatchError
from agnet.data.files import write_text
from agnet.data.images import read_image
from agnet.training.measure.intervals import share_difference_interval
from agnet.training.models.backbones.backbone import Backbone, build_backbone
from agnet.training.runs.weights import find_weights
from agnet.training.samples.views import View

SIDE = 224  #: pixels; the backbone's own size
LARGE = 448
CROP = 1.3  #: side of a crop, as a multiple of the longer side of its region
PLACES = ("salient", "other", "random", "corners")
#: row of the table -> views, and the cost in encodings at 224 pixels
ROWS = {"224": (("224",), 1), "448": (("448",), 4), "224 + 448": (("224", "448"), 5)} | {
    f"224 + {place}": (("224", place), 5) for place in PLACES
}
CONTROL = "224"
PENALTIES = (1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Part:
    """Features of the images of a split."""

    maps: dict[str, Tensor]  #: view -> first layers' output, half precision ``(n, looks, C, h, w)``
    labels: Tensor  #: int64 ``(n,)``


def centres(boxes: Boxes, rows: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Centres of the crops of some photographs, ``(n, 4, 2)`` xy in fractions of the photograph, for each of PLACES."""
    xyxy = boxes.primary_xyxy[boxes.frame_first[rows]]
    sizes = np.tile(boxes.sizes_wh[boxes.usable[rows]], 2)[:, None]
    salient = (xyxy / sizes).reshape(len(rows), -1, 2, 2).mean(axis=2)
    shift = generator.permutation(len(rows))  # a cycle: nobody keeps its own
    other = np.empty_like(salient)
    other[shift] = salient[np.roll(shift, 1)]
    corners = np.broadcast_to(np.array([(0, 0), (1, 0), (0, 1), (1, 1)], float), salient.shape)
    return {"salient": salient, "other": other, "random": generator.uniform(size=salient.shape), "corners": corners}


def crops(image: np.ndarray, xyxy: np.ndarray, centre_xy: np.ndarray) -> list[np.ndarray]:
    """Cut the squares of a photograph ``(h, w, 3)`` and resize them to SIDE. They are shifted to lie within it."""
    height, width = image.shape[:2]
    found = []
    for (left, top, right, bottom), (x, y) in zip(xyxy, centre_xy, strict=True):
        side = int(np.clip(round(CROP * max(right - left, bottom - top)), 16, min(width, height)))
        at_x = int(np.clip(round(x * width - side / 2), 0, width - side))
        at_y = int(np.clip(round(y * height - side / 2), 0, height - side))
        square = image[at_y : at_y + side, at_x : at_x + side]
        found.append(
            cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA if side > SIDE else cv2.INTER_LINEAR)
        )
    return found


def looks(boxes: Boxes, root: Path, row: int, places: dict[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
    """The views of a photograph, each ``(looks, side, side, 3)``."""
    at = boxes.usable[row]
    image = read_image(root / boxes.names[at].decode())
    size_wh = (image.shape[1], image.shape[0])
    found = {str(side): View.of(size_wh, (side, side)).pixels(image)[None] for side in (SIDE, LARGE)}
    xyxy = boxes.primary_xyxy[boxes.frame_first[row]]
    for place, centre in places.items():
        found[place] = np.stack(crops(image, xyxy, centre[number]))
    return found


def part(boxes: Boxes, root: Path, splits: Sequence[str], encode: Callable[[Tensor], Tensor], seed: int) -> Part:
    rows = np.concatenate([boxes.rows(split) for split in splits])
    places = centres(boxes, rows, np.random.default_rng(seed))
    maps: dict[str, list[Tensor]] = {name: [] for name in (str(SIDE), str(LARGE), *PLACES)}
    for number, row in enumerate(rows.tolist()):
        for name, pixels in looks(boxes, root, row, places, number).items():
            maps[name].append(encode(torch.from_numpy(pixels).permute(0, 3, 1, 2)).half())
        if number % 200 == 199:
            print(f"{number + 1} of {len(rows)} photographs of {' and '.join(splits)}", flush=True)
    labels = torch.from_numpy(boxes.labels[boxes.usable[rows]].astype(np.int64))
    return Part({name: torch.stack(some) for name, some in maps.items()}, labels)


def halves(network: Backbone, cut: int) -> tuple[nn.Module, nn.Module]:
    """The network's layers before block ``cut``, and the others."""
    net: Any = network.body.net
    return (
        nn.Sequential(net.conv_stem, net.bn1, *net.blocks[:cut]),
        nn.Sequential(*net.blocks[cut:], net.conv_head, net.bn2),
    )


def means(last: nn.Module, maps: Tensor) -> Tensor:
    """Means of the last map of every look, ``(n, looks, C)``."""
    return last(maps.flatten(0, 1).float()).mean(dim=(2, 3)).unflatten(0, maps.shape[:2])


# Frozen


def classifier(penalty: float) -> object:
    return make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=300))


def log_probabilities(model: object, train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Mean log-probability of the classes over the looks of each test photograph, ``(n, K)``."""
    count = train.shape[1]
    fitted = model.fit(train.reshape(len(train) * count, -1), np.repeat(labels, count))  # type: ignore[attr-defined]
    found = fitted.predict_log_proba(test.reshape(len(test) * test.shape[1], -1))
    return np.asarray(found).reshape(len(test), test.shape[1], -1).mean(axis=1)


def frozen(parts: dict[str, Part], last: nn.Module) -> dict[str, dict[str, np.ndarray]]:
    """Whether each photograph is answered right: measured on -> row -> bool ``(n,)``."""
    pooled: dict[str, dict[str, np.ndarray]] = {}
    with torch.inference_mode():
        for split, one in parts.items():
            pooled[split] = {
                name: torch.cat([means(last, some) for some in maps.split(32)]).numpy()
                for name, maps in one.maps.items()
            }
    labels = {split: one.labels.numpy() for split, one in parts.items()}
    whole = pooled["train"]["224"][:, 0]
    scores = {
        penalty: cross_val_score(classifier(penalty), whole, labels["train"], cv=StratifiedKFold(5)).mean()
        for penalty in PENALTIES
    }
    penalty = max(scores, key=scores.__getitem__)
    print(f"penalty C = {penalty}, of {scores}", flush=True)
    folds = list(StratifiedKFold(10, shuffle=True, random_state=0).split(whole, labels["train"]))
    answers: dict[str, dict[str, np.ndarray]] = {"folds of train": {}, "test": {}}
    for name in pooled["train"]:
        train, test = pooled["train"][name], pooled["test"][name]
        answers["test"][name] = log_probabilities(classifier(penalty), train, labels["train"], test)
        out = np.empty((len(train), answers["test"][name].shape[1]))
        for inside, outside in folds:
            out[outside] = log_probabilities(
                classifier(penalty), train[inside], labels["train"][inside], train[outside]
            )
        answers["folds of train"][name] = out
        print(f"frozen, {name}: {(out.argmax(axis=1) == labels['train']).mean():.3f}", flush=True)
    return {
        where: {
            row: np.sum([found[view] for view in views], axis=0).argmax(axis=1) == labels[where.split()[-1]]
            for row, (views, _) in ROWS.items()
        }
        for where, found in answers.items()
    }


# Trained


def trained(parts: dict[str, Part], network: Callable[[], nn.Module], row: str, epochs: int, seed: int) -> np.ndarray:
    """Whether each test photograph is answered right, bool ``(n,)``."""
    views, train, test = ROWS[row][0], parts["train"], parts["test"]
    torch.manual_seed(seed)
    last = network()
    classes = int(train.labels.max()) + 1
    heads = nn.ModuleDict({view: nn.Linear(last[-2].out_channels, classes) for view in views})  # type: ignore[index]
    last.requires_grad_(True)
    groups = [{"params": last.parameters(), "lr": 0.003}, {"params": heads.parameters(), "lr": 0.03}]
    optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=1e-4, nesterov=True)
    batch = min(32, len(train.labels))
    steps = epochs * (len(train.labels) // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / (steps / epochs)) * (1 + math.cos(math.pi * step / steps)) / 2
    )
    generator = torch.Generator().manual_seed(seed)
    last.eval()  # batch statistics stay those of the weights
    for _ in range(epochs):
        order = torch.randperm(len(train.labels), generator=generator)
        for some in order[: len(order) // batch * batch].split(batch):
            loss = torch.zeros(())
            for view in views:
                logits = heads[view](means(last, train.maps[view][some]))
                targets = train.labels[some].repeat_interleave(logits.shape[1])
                loss = loss + cross_entropy(logits.flatten(0, 1), targets, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    found = []
    with torch.inference_mode():
        for first in range(0, len(test.labels), batch):
            answers = [
                log_softmax(heads[view](means(last, test.maps[view][first : first + batch])), dim=2).mean(dim=1)
                for view in views
            ]
            found.append(torch.stack(answers).sum(dim=0).argmax(dim=1))
    return (torch.cat(found) == test.labels).numpy()


# The table


def difference(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> str:
    """Points of accuracy by which ``first`` is ahead, from right answers bool ``(n,)`` of each seed."""
    ours, theirs = np.array(first, float), np.array(second, float)
    interval = share_difference_interval(theirs, ours)
    return f"{100 * (ours.mean() - theirs.mean()):+.1f} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"


def show(title: str, rights: dict[str, list[np.ndarray]]) -> None:
    print(f"\n{title}, top-1\n{'row':16}{'units':>6}{'top-1, %':>10}  minus {CONTROL}")
    for row, right in rights.items():
        told = "" if row == CONTROL else difference(right, rights[CONTROL])
        print(f"{row:16}{ROWS[row][1]:6}{100 * np.mean(right):10.1f}  {told}".rstrip())
    for row in ("224 + other", "224 + random", "224 + corners", "224 + 448"):
        if row in rights and "224 + salient" in rights:
            print(f"{'salient minus':16}{row[6:]:10}{difference(rights['224 + salient'], rights[row])}")


def save(file: Path | None, arguments: argparse.Namespace, results: dict[str, dict[str, list[np.ndarray]]]) -> None:
    """Write which photographs each row answers right, with each seed."""
    if file:
        lists = {
            name: {row: np.array(right).astype(int).tolist() for row, right in some.items()}
            for name, some in results.items()
        }
        write_text(file, json.dumps({"arguments": vars(arguments), "right": lists}, default=str))


def run(arguments: argparse.Namespace) -> None:
    boxes = read_boxes(arguments.boxes)
    if boxes.layout.primary != 4:
        raise MismatchError(f"{arguments.boxes} has {boxes.layout.primary} primary regions; make one with --primary 4")
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
    network = build_backbone("efficientnet-lite0", find_weights(arguments.weights, "efficientnet-lite0")).eval()
    network.requires_grad_(False)
    first, last = halves(network, arguments.cut)

    def encode(images: Tensor) -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return first(network.normalised(images).contiguous(memory_format=torch.channels_last))

    parts = {
        split: part(boxes, arguments.root, splits, encode, number)
        for number, (split, splits) in enumerate({"train": ("train", "val"), "test": ("test",)}.items())
    }
    print(", ".join(f"{len(one.labels)} {split}" for split, one in parts.items()), flush=True)
    results = {
        f"frozen, {where}": {row: [right] for row, right in rights.items()}
        for where, rights in frozen(parts, last).items()
    }
    for title, rights in results.items():
        show(title, rights)
    save(arguments.output, arguments, results)
    weights = {name: value.clone() for name, value in last.state_dict().items()}

    def fresh() -> nn.Module:
        last.load_state_dict(weights)
        return last

    rows: dict[str, list[np.ndarray]] = {row: [] for row in (CONTROL, *arguments.rows)}
    for seed in range(arguments.seeds):
        for row, done in rows.items():
            done.append(trained(parts, fresh, row, arguments.epochs, seed))
            print(f"seed {seed}, trained, {row}: {100 * done[-1].mean():.1f}", flush=True)
        save(arguments.output, arguments, results | {"trained": rows})
    if arguments.seeds:
        show(f"trained from block {arguments.cut} on, test, seeds: {arguments.seeds}", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=Path, required=True, help="boxes file with four primary regions")
    parser.add_argument("--root", type=Path, required=True, help="folder of the photographs")
    parser.add_argument("--weights", required=True, help="file of ImageNet weights, or imagenet")
    parser.add_argument(
        "--cut", type=int, default=6, choices=range(7), help="first block that is trained [6, the last]"
    )
    parser.add_argument("--epochs", type=int, default=8, help="number of epochs [8]")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds of training; 0: frozen features only [3]")
    parser.add_argument(
        "--rows", nargs="+", choices=ROWS, default=["224 + 448", "224 + salient", "224 + other"], help="rows to train"
    )
    parser.add_argument("--output", type=Path, help="JSON file of the right answers")
    try:
        run(parser.parse_args())
    except AgnetError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
