"""Small networks, batches and recipes for several test modules; fixtures are in ``conftest.py``."""

import torch
from torch import nn

from agnet.training.machine.devices import Device
from agnet.training.machine.distributed import Processes
from agnet.training.models.backbones.backbone import Backbone, Preprocessing
from agnet.training.models.build import assemble
from agnet.training.models.model import Model
from agnet.training.models.registry import ModelSettings
from agnet.training.recipes import RECIPES
from agnet.training.samples.loader import Batch

CPU = Device(torch.device("cpu"))
RAW = Preprocessing(224, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # identity: pixel values 0..255
EYES = Preprocessing(16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
# Plain SGD with a constant learning rate.
BARE = RECIPES["paper"].override(lr=0.1, momentum=0.0, step_epochs=99, batch_size=4, epochs=4)
LUCK = RECIPES["modern"].override(mixup=0.4, dropout=0.5, lr=0.01, accumulate=2, ema_decay=0.9, epochs=2)
GPU_IS_FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
CPU_IS_FULL = RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate")


def tiny(model="plain", norm=False, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU()]
    body = nn.Sequential(*layers, nn.Conv2d(8, 16, 3, stride=2), nn.ReLU())
    return assemble(ModelSettings(classes=3, regions=6, model=model), Backbone(body, 16, EYES))


def batch_of(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)
    corners = torch.rand(count, 6, 2, 2, generator=generator).sort(dim=2).values
    labels = torch.randint(0, 3, (count,), generator=generator)
    return Batch.of_images(images, corners.flatten(2), labels, torch.arange(count))


class OneOfTwo(Processes):
    """A process whose other one is only imagined; ``total`` is what both sum up to."""

    def __init__(self, rank, total):
        super().__init__(rank, 2, rank)
        self.total = total

    def sum_number(self, value):
        return self.total

    def parallel(self, model, *, synchronised_norms):
        return model


class Small(Model):
    """A network that raises ``error`` for more than ``most`` images at once, as if memory were too small."""

    def __init__(self, model, most, error):
        super().__init__()
        self.model, self.most, self.error = model, most, error
        self.inputs, self.dropout, self.seen = model.inputs, model.dropout, []

    def forward(self, images, *others):
        self.seen.append(len(images))
        if len(images) > self.most:
            raise self.error
        return self.model(images, *others)

    def parts(self):
        return {f"model.{path}": kind for path, kind in self.model.parts().items()}


def call(model, images, regions):
    """Call a model with the inputs it takes, images or regions or both."""
    inputs = {"images": images, "regions": regions}
    return model(*[inputs[name] for name in model.inputs])


def bare_body():
    return nn.Conv2d(3, 16, 8, stride=8)


def small_model(body=bare_body, channels=16, dtype=torch.float64, classes=3, regions=4, **changes):
    """Build a small model in evaluation mode, with δ ≠ 0 so that the self-attention has an effect. 7 × 7 at 56 × 56."""
    torch.manual_seed(0)
    settings = ModelSettings(classes, regions, units=4, se_ratio=4, **changes)
    model = assemble(settings, Backbone(body(), channels, RAW))
    if getattr(model, "self_attention", None):
        nn.init.constant_(model.self_attention.delta, 0.7)
    return model.to(dtype).eval()


def images_and_regions(images=3, regions=4, side=56, dtype=torch.float64, seed=1):
    """Draw random pixels ``(images, 3, side, side)`` and boxes ``(images, regions, 4)`` xyxy as network inputs."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(images, 3, side, side, generator=generator, dtype=dtype)
    corners = torch.rand(images, regions, 2, 2, generator=generator, dtype=dtype)
    return pixels, corners.sort(dim=2).values.flatten(2)
