"""`agnet explain` on videos: what is explained, its numbers and its pictures."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from agnet.data.images import read_image
from agnet.data.sampling import Sampling
from agnet.data.videos import VideoWriter
from agnet.training.answers.contributions import Explained
from agnet.training.answers.explain import Explanation, Question
from agnet.training.answers.explained_clip_pictures import save_explained
from agnet.training.answers.explained_clips import ClipExplainer, ExplainedClip, ExplainedFrame, clips_of_video
from agnet.training.answers.pictures import Caption
from agnet.training.models.backbones.backbone import Backbone
from agnet.training.models.build import assemble
from agnet.training.models.registry import ModelSettings
from agnet.training.runs.checkpoints import save_checkpoint
from agnet.training.samples.views import View
from factories import CPU, RAW

pytestmark = pytest.mark.usefixtures("one_thread", "small_mobilenet")

TUBES = {"method": "sift", "primary": 2, "frames": 4, "image_size": 64}
CLIP = Sampling(3, "segments", 2.5)


def trained(untrained, sampling=CLIP, **changes):
    """A checkpoint with random weights at 64 × 64, whose batch norms have seen images: features are not all tiny."""
    checkpoint = untrained(ModelSettings(classes=3, backbone="mobilenet-v3-small", **changes))
    nn.init.normal_(checkpoint.model.classifier.bias)
    checkpoint.model.size_hw = (64, 64)
    backbone = checkpoint.model.backbones[0].train()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        backbone(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8))
    backbone.eval()
    return replace(checkpoint, sampling=sampling, proposals=TUBES)


@pytest.fixture
def video(clip_folder):
    """14 frames at 10 a second."""
    return clip_folder / "test" / "right" / "p3_right.mp4"


NETWORKS = {
    "mean": ({"regions": 3, "temporal": "mean"}, "parts"),
    "attention": ({"regions": 3, "temporal": "attention", "shortcut": True}, "parts"),
    "each frame": ({"regions": 3}, "parts"),
    "plain": ({"model": "plain"}, "hirescam"),
    "alstm": ({"model": "alstm", "units": 4}, "hirescam"),
    "conv-alstm": ({"model": "conv-alstm", "units": 4}, "hirescam"),
    "over an LSTM": ({"regions": 3, "temporal": "alstm", "lstm_units": 4}, "hirescam"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_the_frames_add_and_the_bias_are_the_difference_of_the_logits(agnet, untrained, video, name):
    changes, method = NETWORKS[name]
    checkpoint = trained(untrained, **changes)
    save_checkpoint(Path("best.safetensors"), checkpoint)
    (found,) = map(json.loads, agnet("explain", "--run", ".", video, "--json").stdout.splitlines())
    assert found["method"] == method and found["video"] == str(video)
    assert [frame["seconds"] for frame in found["frames"]] == pytest.approx([0.2, 0.6, 1.1], abs=1e-6)
    assert sum(frame["adds"] for frame in found["frames"]) + found["bias"] == pytest.approx(found["logits"], abs=1e-4)
    assert min(abs(frame["adds"]) for frame in found["frames"]) > 1e-4
    for frame in found["frames"]:
        assert sum(np.sum(token["places"]) for token in frame["tokens"]) == pytest.approx(frame["adds"], abs=1e-5)
        assert len(frame["tokens"]) == (4 if method == "parts" else 1)
    pair = checkpoint.classes.index(found["class"]), checkpoint.classes.index(found["against"])
    if name == "plain":  # the bias, and nothing else, is not in the maps
        bias = checkpoint.model.classifier.bias.tolist()
        assert found["bias"] == pytest.approx(bias[pair[0]] - bias[pair[1]], abs=1e-5)
    if name in ("mean", "attention"):  # one answer for the clip, whose probabilities are known
        shares = [found["probabilities"][found[which]] for which in ("class", "against")]
        assert found["logits"] == pytest.approx(np.log(shares[0] / shares[1]), abs=1e-4)


def frames_by_hand(video, numbers, side=64):
    """Frames ``(1, n, 3, side, side)`` as OpenCV reads them, shrunk as for the network."""
    opened, found = cv2.VideoCapture(str(video)), []
    while (read := opened.read())[0]:
        found.append(read[1][..., ::-1])
    pixels = [View.of((found[0].shape[1], found[0].shape[0]), (side, side)).pixels(found[n]) for n in numbers]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)[None]


def explained(checkpoint, video, method, **question):
    return list(ClipExplainer(checkpoint, CPU, Question(method, **question), None, None).explain(str(video)))


@torch.no_grad()
@pytest.mark.parametrize("model", ["plain", "alstm"])
def test_answers_of_frames_are_explained_by_the_mean_difference_of_their_logits(untrained, video, model):
    checkpoint = trained(untrained, model=model, **({"units": 4} if model == "alstm" else {}))
    (found,) = explained(checkpoint, video, "hirescam", this=2, against=0)
    frames = frames_by_hand(video, [frame.number for frame in found.frames])
    network = checkpoint.model
    logits = network(frames[0]).logits if model == "plain" else network(frames, torch.ones(1, 3).bool()).logits[0]
    assert found.whole.evidence.total == pytest.approx(float((logits[:, 2] - logits[:, 0]).mean()), abs=1e-4)
    assert found.whole.probabilities[0] == pytest.approx(float(logits.softmax(dim=1)[:, 2].mean()), abs=1e-5)


@torch.no_grad()
def test_maps_of_a_recurrent_network_are_gradients_times_activations_through_time(untrained, video):
    checkpoint = trained(untrained, model="alstm", units=4)
    network = checkpoint.model.double()
    (found,) = explained(checkpoint, video, "hirescam", this=1, against=0)
    frames = frames_by_hand(video, [frame.number for frame in found.frames])
    features = network.backbone(frames[0])
    for number, y, x in ((0, 0, 1), (1, 1, 0), (2, 1, 1)):
        values = []
        for step in (1e-5, -1e-5):
            moved = features.clone()
            moved[number, :, y, x] *= 1 + step
            network.backbone.forward = lambda _, moved=moved: moved
            logits = network(frames, torch.ones(1, 3).bool()).logits[0]
            values.append(float((logits[:, 1] - logits[:, 0]).mean()))
        wanted = (values[0] - values[1]) / 2e-5
        assert found.frames[number].evidence.parts[0, y, x] == pytest.approx(wanted, rel=1e-3) and abs(wanted) > 1e-6


@pytest.mark.parametrize("model", ["alstm", "conv-alstm", "agnet"])
def test_attention_sums_to_1_in_every_frame(agnet, untrained, video, model):
    changes = {"regions": 3, "temporal": "mean"} if model == "agnet" else {"units": 4}
    save_checkpoint(Path("best.safetensors"), trained(untrained, model=model, **changes))
    (found,) = map(
        json.loads, agnet("explain", "--run", ".", video, "--json", "--method", "attention").stdout.splitlines()
    )
    assert [np.sum(frame["attention"]) for frame in found["frames"]] == pytest.approx([1, 1, 1], abs=1e-5)
    assert not {"logits", "bias", "against"} & set(found) and not {"adds", "tokens"} & set(found["frames"][0])


def test_a_long_video_is_several_clips_and_a_short_one_is_one(video):
    def numbers(sampling):
        return [[frame.number for frame in clip] for clip in clips_of_video(str(video), sampling, 10**6)]

    assert numbers(CLIP) == [[2, 6, 11]]  # at 0.22, 0.65 and 1.08 s, as in evaluation
    assert numbers(Sampling(3, "segments", 5)) == [[0, 2, 4], [6, 8, 10], [12]]
    assert numbers(Sampling(3, "window", 5)) == [[0, 2, 4], [6, 8, 10], [12]]
    assert numbers(None) == [list(range(14))]  # as many as there are, of 16


def test_regions_that_are_found_in_each_frame_by_itself_are_not_summed_over_frames(agnet, untrained, video):
    for proposals, summed in ((TUBES, True), ({"method": "sift", "primary": 2}, False)):
        checkpoint = replace(trained(untrained, CLIP if summed else None, regions=3), proposals=proposals)
        save_checkpoint(Path("best.safetensors"), checkpoint)
        said = agnet("explain", "--run", ".", video).stdout
        assert ("region 0" in said) == summed and "primary regions" in said


def test_every_clip_of_a_long_video_is_told_and_all_are_drawn_together(agnet, untrained, video):
    checkpoint = trained(untrained, replace(CLIP, rate=5), model="plain")
    save_checkpoint(Path("best.safetensors"), checkpoint)
    done = agnet("explain", "--run", ".", video, "--save", "pictures")
    assert [line.split(", ")[1][:12] for line in done.stdout.splitlines() if line[0] != " "] == [
        "0.0 to 0.4 s",
        "0.6 to 1.0 s",
        "1.2 to 1.2 s",
    ]
    assert sorted(path.name for path in Path("pictures").iterdir()) == [
        "right-p3_right-strip.png",
        "right-p3_right-strip.svg",
        "right-p3_right.mp4",
    ]
    assert cv2.VideoCapture("pictures/right-p3_right.mp4").get(cv2.CAP_PROP_FRAME_COUNT) == 7


def test_what_cannot_be_read_is_said_and_the_rest_explained(agnet, untrained, video, tmp_path):
    save_checkpoint(Path("best.safetensors"), trained(untrained, None, model="plain"))
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[:-2000])
    failed = agnet("explain", "--run", ".", "cut.mp4", "none.mp4", video, code=1)
    assert "cut.mp4" in failed.stderr and "none.mp4: cannot be read" in failed.stderr
    assert failed.stdout.startswith(str(video))


class Brightness(nn.Module):
    """Channels that are all the brightness of 8 × 8 pixels."""

    def forward(self, images):
        return nn.functional.avg_pool2d(images, 8).mean(dim=1, keepdim=True).expand(-1, 16, -1, -1)


@pytest.mark.parametrize(
    ("changes", "method"),
    [
        ({"use_regions": False, "temporal": "mean"}, "parts"),
        ({"use_regions": False, "temporal": "attention"}, "parts"),
        ({"model": "plain"}, "hirescam"),
    ],
    ids=str,
)
def test_a_network_that_sees_one_corner_in_one_frame_points_there_and_then(untrained, tmp_path, changes, method):
    with VideoWriter(tmp_path / "a.mp4", 10) as video:
        for number in range(14):
            frame = np.zeros((112, 112, 3), np.uint8)
            frame[:16, 96:] = 255 * (5 <= number <= 8)
            video.write(frame)
    torch.manual_seed(0)
    model = assemble(ModelSettings(classes=3, units=4, se_ratio=4, **changes), Backbone(Brightness(), 16, RAW)).eval()
    nn.init.zeros_(model.classifier.weight)
    nn.init.constant_(model.classifier.weight[1], 0.1)
    model.size_hw = (56, 56)
    checkpoint = replace(trained(untrained, model="plain"), model=model, settings=model_settings(changes))
    (found,) = explained(checkpoint, tmp_path / "a.mp4", method, this=1, against=0)
    adds = [frame.adds for frame in found.frames]
    assert adds[1] > 0 and adds[1] > 0.95 * sum(map(abs, adds))
    places = found.frames[1].evidence.laid_back((7, 7))
    assert places[0, 6] > 0.9 * np.abs(places).sum()
    page, _ = save_explained([found], tmp_path / "pictures", Caption(checkpoint.classes))
    orange = warm(read_image(page))
    rows, columns = np.nonzero(orange[: 62 + 20 + 22 + 351])  # the tiles
    assert columns.mean() == pytest.approx(20 + 351 + 12 + 351 * 6.5 / 7, abs=6)
    assert rows.mean() == pytest.approx(20 + 62 + 22 + 351 * 0.5 / 7, abs=6)


def model_settings(changes):
    return ModelSettings(classes=3, backbone="mobilenet-v3-small", **changes)


def warm(picture):
    return picture[..., 0].astype(int) - picture[..., 2] > 40


SHARES = np.array([0.6, 0.4])


def clip_with(parts, method):
    """An explained clip with these maps ``(T, h, w)``."""
    whole = np.array([[0, 0, 1, 1]])
    each = [Explained(part[None], 0.0, whole) for part in parts]
    together = Explanation(
        "a.mp4", "ant", "bee", (0.6, 0.4), Explained(parts.sum(0)[None], 0.1, whole), method, None, None, SHARES
    )
    return ExplainedClip(together, tuple(ExplainedFrame(t, t / 10, one, None) for t, one in enumerate(each)))


@pytest.mark.parametrize("method", ["hirescam", "attention"])
def test_frames_are_drawn_on_one_scale_and_flat_maps_do_not_light_up(tmp_path, monkeypatch, method):
    monkeypatch.chdir(tmp_path)
    with VideoWriter(tmp_path / "a.mp4", 10) as video:
        for _ in range(2):
            video.write(np.full((96, 96, 3), 128, np.uint8))
    flat = np.full((7, 7), 1 / 49)
    peak = flat.copy()
    peak[3, 3] = 20 / 49
    tiles = {}
    for name, maps in {"flat": [flat, flat], "one": [flat, peak]}.items():
        page, _ = save_explained([clip_with(np.stack(maps), method)], tmp_path / name, Caption(("ant", "bee")))
        drawn = read_image(page).astype(int)
        tiles[name] = [np.ptp(drawn[20 + 62 + 22 :, left : left + 351][:351], axis=2) for left in (20, 383)]
    assert tiles["one"][1][176, 176] > 80  # the peak
    assert tiles["one"][0][176, 176] < 12 and tiles["flat"][0][176, 176] <= (3 if method == "attention" else 80)
