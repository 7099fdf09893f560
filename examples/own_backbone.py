"""AG-Net's head on a backbone of your own, from photographs in memory to a trained network.

    python examples/own_backbone.py

The data are two synthetic classes, squares and discs: eight images, memorised in a few steps on a CPU.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torchvision

import agnet


def photograph(label: int, generator: np.random.Generator) -> np.ndarray:
    """Draw a few squares (0) or discs (1) on noise: uint8 RGB ``(H, W, 3)``."""
    image = generator.integers(90, 130, (180, 240, 3), dtype=np.uint8)
    for _ in range(5):
        x, y = (int(at) for at in generator.integers(30, 150, 2))
        colour = [int(value) for value in generator.integers(0, 256, 3)]
        if label == 0:
            cv2.rectangle(image, (x - 15, y - 15), (x + 15, y + 15), colour, -1)
        else:
            cv2.circle(image, (x, y), 17, colour, -1)
    return image


def main() -> None:
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    labels = torch.arange(8) % 2
    photographs = [photograph(int(label), generator) for label in labels]

    # Stage 1: 36 regions per image, in fractions of its width and height.
    regions = np.stack([agnet.propose_regions(image, agnet.ProposalSettings()).boxes_xyxy for image in photographs])
    boxes = torch.from_numpy(regions / np.array([240, 180, 240, 180], dtype=np.float32))

    # Stage 2: any network that returns a feature map, here torchvision's ResNet-18 without its head.
    body = torch.nn.Sequential(*list(torchvision.models.resnet18().children())[:-2])
    model = agnet.assemble(agnet.ModelSettings(classes=2), agnet.Backbone(body, channels=512))
    pixels = np.stack([cv2.resize(image, (224, 224)) for image in photographs])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)  # the network normalises them itself

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for step in range(6):
        output = model(images, boxes)
        loss = torch.nn.functional.cross_entropy(output.logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right = int((output.logits.argmax(dim=1) == labels).sum())
        print(f"step {step}: loss {loss.item():.3f}, {right} of {len(labels)} correct")


if __name__ == "__main__":
    main()
