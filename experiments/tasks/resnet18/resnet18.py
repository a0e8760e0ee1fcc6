"""torchvision's ResNet-18 with the preprocessing of its own weights, on a folder of images of different sizes.

`python resnet18.py` makes the folder, with `train/`, `val/` and `test/` in it. With ImageNet's classes, and a network
connection, space.toml has `model = "torchvision:resnet18(weights='DEFAULT')"` and `transform = "weights"`.
"""

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, resnet18
from torchvision.transforms.functional import to_pil_image

FOLDER, CLASSES = Path(__file__).with_name("images"), 8


def model() -> nn.Module:
    """Eight classes; without pretrained weights, which are downloaded."""
    return resnet18(num_classes=CLASSES)


def transform(image: object) -> Tensor:
    """The preprocessing of the ImageNet weights, for images of 64 pixels."""
    made: Tensor = ResNet18_Weights.DEFAULT.transforms(crop_size=64, resize_size=64)(image)
    return made


def make_images(counts: tuple[int, int, int] = (480, 160, 160)) -> None:
    """Writes images of faint stripes at eight angles under noise, in three folders of eight classes each."""
    generator = torch.Generator().manual_seed(0)
    for part, count in zip(("train", "val", "test"), counts, strict=True):
        for number in range(count):
            kind, height, width = number % CLASSES, *torch.randint(64, 96, (2,), generator=generator).tolist()
            row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            angle, shift = math.pi * kind / CLASSES, 6 * torch.rand(1, generator=generator)
            phase = (row * math.cos(angle) + column * math.sin(angle)) / 2 + shift
            noise = torch.randn(3, height, width, generator=generator)
            folder = FOLDER / part / f"angle{kind}"
            folder.mkdir(parents=True, exist_ok=True)
            to_pil_image((0.5 + 0.045 * phase.sin() + 0.2 * noise).clamp(0, 1)).save(folder / f"{number}.png")


if __name__ == "__main__":
    make_images()
