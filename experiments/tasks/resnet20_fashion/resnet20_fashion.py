"""Fashion-MNIST, as Debian's dataset-fashion-mnist installs it, for the ResNet-20 of experiments/resnet20.

Training images are shifted and mirrored anew in every epoch, a batch at a time.
"""

import gzip
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset, default_collate

Pair = tuple[Tensor, Tensor]
PADDING = 2
"""By how many pixels a training image is shifted at most."""

SIZES = [55_000, 5_000, 10_000]
"""Images for training, validation and the test."""


def read(path: Path, header: int) -> Tensor:
    """The bytes of an IDX file that follow its header."""
    return torch.frombuffer(bytearray(gzip.decompress(path.read_bytes())), dtype=torch.uint8, offset=header)


def load(folder: Path, part: str) -> Pair:
    """Images [n, 1, 28, 28] of mean 0 and deviation 1 over the training set, and classes [n]."""
    images = read(folder / f"{part}-images-idx3-ubyte.gz", 16).view(-1, 1, 28, 28)
    classes = read(folder / f"{part}-labels-idx1-ubyte.gz", 8)
    return (images / 255 - 0.286) / 0.353, classes.long()


def augment(samples: list[Pair]) -> list[Tensor]:
    """A batch whose images are cropped at random from padded ones, and mirrored at random."""
    images, classes = default_collate(samples)
    count, size = len(images), images.shape[-1]
    padded = torch.nn.functional.pad(images, (PADDING,) * 4, value=float(images.min()))
    row, column = (torch.randint(2 * PADDING + 1, (count, 1)) + torch.arange(size) for _ in range(2))
    mirrored = torch.where(torch.rand(count, 1) < 0.5, column.flip(1), column)
    cropped = padded[torch.arange(count)[:, None, None], 0, row[:, :, None], mirrored[:, None, :]]
    return [cropped[:, None], classes]


def data(folder: str = "/usr/share/datasets/fashion-mnist", batch_size: int = 128) -> tuple[DataLoader[Pair], ...]:
    """Loaders of the three splits; images for validation are drawn from the training set."""
    (images, classes), (unseen, wanted) = load(Path(folder), "train"), load(Path(folder), "t10k")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, validation = (
        TensorDataset(images[part], classes[part]) for part in order[: sum(SIZES[:2])].split(SIZES[:2])
    )
    test = TensorDataset(unseen[: SIZES[2]], wanted[: SIZES[2]])
    loader = DataLoader(train, min(batch_size, len(train)), shuffle=True, drop_last=True, collate_fn=augment)
    return loader, DataLoader(validation, 500), DataLoader(test, 500)
