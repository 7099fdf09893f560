"""Samples of clips: which frames, in which view, with which regions; and networks of images called on clips."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from agnet.data.clips import frames_at, open_clip
from agnet.data.errors import MismatchError
from agnet.data.sampling import Sampling
from agnet.training.models.contract import Output
from agnet.training.samples.loader import Batch, ClipDataset, Loader, WindowSampler
from agnet.training.samples.views import AffineRange, View

HW = (32, 40)


def clips_of(boxes, root, frames=4, **others):
    return ClipDataset(boxes, root, HW, sampling=others.pop("sampling", Sampling(frames)), **others)


def test_a_file_of_clips_is_read_as_it_was_written(clip_boxes, clip_index):
    boxes = clip_boxes
    assert boxes.of_clips and boxes.groups == clip_index.groups
    assert boxes.clips.frames.tolist() == [{"p0": 3, "p1": 5, "p2": 9, "p3": 14}[person] for person in boxes.groups]
    row = boxes.groups.index("p1")
    assert boxes.frames_of(row).tolist() == [0, 2, 4] and boxes.clips.last(row) == pytest.approx(0.4)
    for frame, nearest in ((0, 0), (2, 2), (3, 2), (4, 4), (99, 4)):
        (x0, *_), (x1, *_), around = boxes.regions(row, frame).boxes_xyxy.tolist()
        assert (x0, x1) == (4 + nearest, 30 - nearest) and around == [min(x0, x1), 4, max(x0, x1) + 16, 20]
    assert boxes.region_valid(row, 0).tolist() == [True, True, True]
    assert boxes.region_valid(row, 4).tolist() == [True, False, False]


def test_a_sample_has_the_frames_of_its_times_and_masks_what_is_missing(clip_boxes, clip_folder):
    dataset = clips_of(clip_boxes, clip_folder)
    for row in (clip_boxes.groups.index("p0"), clip_boxes.groups.index("p3")):
        sample = dataset[(0, row)]
        with open_clip(clip_folder / clip_boxes.names[row].decode()) as clip:
            frames = list(frames_at(clip, Sampling(4).times(clip_boxes.clips.last(row))))
        view = View.of((64, 48), HW)
        assert sample.valid.tolist() == [True] * len(frames) + [False] * (4 - len(frames))
        for number, frame in enumerate(frames):
            np.testing.assert_array_equal(sample.frames[number], view.pixels(frame.pixels))
            wanted = view.boxes(clip_boxes.regions(row, frame.number))
            np.testing.assert_array_equal(sample.regions[number], wanted)
            assert sample.region_valid[number].tolist() == clip_boxes.region_valid(row, frame.number).tolist()
        assert not sample.frames[len(frames) :].any() and not sample.region_valid[len(frames) :].any()


def test_all_frames_of_a_clip_are_augmented_alike_and_differently_in_each_epoch(clip_boxes, clip_folder):
    row = clip_boxes.names.tolist().index(b"test/still/p3_still.mp4")  # its frames are all the same
    dataset = clips_of(clip_boxes, clip_folder, augment=AffineRange(20, 0.2, 0.2), seed=1, erasing=1.0)
    first, again, other = (dataset[(epoch, row)].frames.numpy().astype(int) for epoch in (0, 0, 1))
    assert np.abs(first - first[:1]).mean() < 2 < np.abs(first - other).mean()
    np.testing.assert_array_equal(first, again)
    plain = clips_of(clip_boxes, clip_folder)[(0, row)].frames.numpy().astype(int)
    assert np.abs(first - plain).mean() > 5


def test_windows_are_samples_of_their_own(clip_boxes, clip_folder):
    dataset = clips_of(clip_boxes, clip_folder, sampling=Sampling(4, "window", 10), regions=False)
    rows = clip_boxes.rows("test")
    loader = Loader(dataset, rows, 3, 1, sampler=WindowSampler(dataset, rows, 3))
    batches = list(loader.epoch(0))
    loader.close()
    assert loader.images == 12 and torch.cat([batch.rows for batch in batches]).tolist() == np.repeat(rows, 4).tolist()
    valid = torch.cat([batch.valid.sum(dim=1) for batch in batches])
    assert valid.tolist() == [4, 4, 4, 2] * 3  # 14 frames
    with open_clip(clip_folder / clip_boxes.names[rows[0]].decode()) as clip:
        every = [View.of((64, 48), HW).pixels(frame.pixels) for frame in clip.chosen(lambda number, seconds: True)]
    seen = torch.cat([batch.frames for batch in batches])[:4].permute(0, 1, 3, 4, 2)
    np.testing.assert_array_equal(seen.flatten(0, 1)[:14], every)


@pytest.mark.parametrize(("frames", "size_wh"), [(14, (32, 32)), (9, (64, 48))])
def test_a_clip_that_has_another_size_or_ends_early_is_refused(clip_boxes, tmp_path, frames, size_wh):
    name = clip_boxes.names[0].decode()
    (tmp_path / name).parent.mkdir(parents=True)
    writer = cv2.VideoWriter(str(tmp_path / name), cv2.VideoWriter.fourcc(*"mp4v"), 10, size_wh)
    for _ in range(frames):
        writer.write(np.zeros((*size_wh[::-1], 3), np.uint8))
    writer.release()
    with pytest.raises(MismatchError, match="does not have the 14 frames of 64 x 48 pixels"):
        clips_of(clip_boxes, tmp_path)[(0, 0)]


class Images(nn.Module):
    """A network of images whose every output depends on its input alone, except for the batch norm's statistics."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images, regions):
        means = self.norm(images.float()).mean(dim=(2, 3))
        maps = images.float().mean(dim=1).softmax(dim=1)
        return Output(means, regions.mean(dim=2), maps, means * 2, {"own": means.sum(dim=1)}, means * 3)


def test_a_network_of_images_sees_every_valid_frame_and_no_padding():
    torch.manual_seed(0)
    valid = torch.tensor([[True, True, True], [True, False, False], [True, True, False]])
    frames, regions = torch.randint(0, 256, (3, 3, 3, 8, 8), dtype=torch.uint8), torch.rand(3, 3, 5, 4)
    garbage = torch.where(valid[..., None, None, None], frames, 255 - frames)
    labels, rows = torch.arange(3), torch.arange(3)
    networks = [Images().train() for _ in range(3)]
    (one, two), flat = (
        [
            Batch(given, valid, regions, labels, rows).called(network, ("images", "regions"))
            for given, network in zip((frames, garbage), networks, strict=False)
        ],
        networks[2](frames[valid], regions[valid]),
    )
    for name in ("logits", "region_weights", "attention_map"):
        found = getattr(one, name)
        assert torch.equal(found, getattr(two, name)) and torch.equal(found[valid], getattr(flat, name)), name
        assert not found[~valid].any()
    starts = [0, 3, 4, 6]
    for name in ("embedding", "compared"):
        wanted = [getattr(flat, name)[a:b].mean(dim=0) for a, b in pairwise(starts)]
        torch.testing.assert_close(getattr(one, name), torch.stack(wanted))
    wanted = [flat.losses["own"][a:b].mean() for a, b in pairwise(starts)]
    torch.testing.assert_close(one.losses["own"], torch.stack(wanted))
    assert torch.equal(networks[0].norm.running_mean, networks[1].norm.running_mean)
    assert torch.equal(networks[0].norm.running_mean, networks[2].norm.running_mean)
    single = Batch(frames[:, :1], valid[:, :1], regions[:, :1], labels, rows).called(Images(), ("images", "regions"))
    assert single.logits.shape == (3, 3)
