"""Videos under networks of clips: windows that slide over them, their answers, and pictures of attention."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from agnet.data.inputs import Input
from agnet.data.sampling import Sampling
from agnet.training.answers.annotated import AnnotatedFolder
from agnet.training.answers.answer import Moment, Stretch, Summary
from agnet.training.answers.pictures import draw_attention
from agnet.training.answers.predict import Attention, Prediction
from agnet.training.answers.predict_files import FilePredictor
from agnet.training.answers.windows import sliding_windows
from agnet.training.machine.devices import choose_device
from agnet.training.models.contract import Output
from agnet.training.models.settings import ALSTMSettings, PlainSettings
from agnet.training.runs.checkpoints import save_checkpoint


def windows(frames, size):
    return [(window[0], window[-1], len(window), new) for window, new in sliding_windows(range(frames), size)]


def test_windows_overlap_by_half_and_every_frame_is_new_once():
    assert windows(3, 8) == [(0, 2, 3, 3)]
    assert windows(8, 8) == [(0, 7, 8, 8)]
    assert windows(21, 8) == [(0, 7, 8, 8), (4, 11, 8, 4), (8, 15, 8, 4), (12, 19, 8, 4), (13, 20, 8, 1)]
    for frames in range(1, 40):
        for size in (1, 2, 5, 8):
            found = windows(frames, size)
            assert sum(new for *_, new in found) == frames and found[-1][1] == frames - 1


def prediction_with(weights, highest):
    return Prediction("a", ("x",), (1.0,), np.ones(1, np.float32), None, None, None, 0.0, Attention(weights, highest))


def lit(picture):
    """Share of the pixels that are coloured."""
    return float((np.ptp(picture.astype(int), axis=2) > 12).mean())


def test_a_flat_map_stays_dark_and_an_unsure_frame_is_paler_than_a_sure_one():
    frame = np.full((90, 120, 3), 128, np.uint8)
    flat = np.ones((7, 7), np.float32)
    peak = flat * 0.5
    peak[2, 5] = 49 - 24
    weak = 1 + (peak - 1) * 0.1
    assert lit(draw_attention(frame, prediction_with(flat, 1.0))) == 0
    assert lit(draw_attention(frame, prediction_with(flat, 25.0))) == 0
    sure, unsure = (draw_attention(frame, prediction_with(one, 25.0)).astype(int) for one in (peak, weak))
    assert 0.01 < lit(sure.astype(np.uint8)) < 0.2
    y, x = np.unravel_index(np.ptp(sure, axis=2).argmax(), (90, 120))
    assert abs(y - 90 * 2.5 / 7) < 8 and abs(x - 120 * 5.5 / 7) < 8
    assert np.ptp(unsure, axis=2).max() < 0.4 * np.ptp(sure, axis=2).max()


class Looks(nn.Module):
    """A network of clips that looks at the brightest of 2 x 2 places, and whose answer is the number of frames."""

    inputs = ("frames", "valid")
    size_hw = input_hw = (32, 32)
    backbones = ()

    def forward(self, frames, valid):
        maps = torch.nn.functional.adaptive_avg_pool2d(frames.float().mean(dim=2), 2)
        logits = torch.nn.functional.one_hot(valid.sum(dim=1).clamp(max=3) - 1, 3).float()
        attention = maps.flatten(2).softmax(dim=2).view_as(maps)
        return Output(logits[:, None].expand(-1, frames.shape[1], -1) * 9, attention_map=attention)


@pytest.fixture
def watching(untrained):
    checkpoint = untrained(PlainSettings(3, "mobilenet-v3-small"))
    return replace(checkpoint, model=Looks().eval(), sampling=Sampling(4, "window", 5.0))


def test_a_video_has_an_answer_for_every_frame_and_segments(watching, clip_folder, tmp_path):
    video = clip_folder / "test" / "right" / "p3_right.mp4"
    predictor = FilePredictor(watching, None, choose_device("cpu"), jobs=0, pictures=True, smooth=0)
    answers = list(predictor.answers([Input(str(video))]))
    moments = [one for one in answers if isinstance(one, Moment)]
    assert isinstance(answers[0], Stretch) and answers[0].rate == 5 and answers[0].expected == 7
    assert [one.frame.number for one in moments] == [0, 2, 4, 6, 8, 10, 12]  # 14 frames at 10 a second
    assert {one.label.name for one in moments} == {"côté"} and isinstance(answers[-1], Summary)
    assert [(one.start, one.end) for one in answers[-1].segments] == [(0.0, pytest.approx(1.2))]
    (tmp_path / "right-p3_right-strip.png").write_bytes(b"another's")
    with AnnotatedFolder(tmp_path, watching.classes) as folder:
        saved = [folder.save(one) for one in answers]
    assert [path.name for path in saved if path] == ["right-p3_right.mp4"]
    assert (tmp_path / "right-p3_right-strip.png").read_bytes() == b"another's"
    assert folder.strip == tmp_path / "right-p3_right-strip-2.png"
    strip = cv2.imread(str(folder.strip))
    assert strip.shape[1] > 1000  # four frames beside each other


def test_an_interval_of_frames_is_refused_for_windows(agnet, untrained, clip_folder, tmp_path):
    checkpoint = untrained(ALSTMSettings(3, "mobilenet-v3-small", units=4))
    run = save_checkpoint(tmp_path / "best.safetensors", replace(checkpoint, sampling=Sampling(4, "segments", 7.5)))
    video = clip_folder / "test" / "right" / "p3_right.mp4"
    assert "at 7.5 frames a second; leave it out" in agnet("predict", "--run", run, video, "--every", 2, code=2).stderr
