"""Makes images for the U-Net: a disc and a square each, under noise."""

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]


def data(sizes: tuple[int, ...] = (400, 100, 100)) -> tuple[Pair, ...]:
    """Images [n, 1, 32, 32], and for each pixel 0 (nothing), 1 (disc) or 2 (square)."""
    generator = torch.Generator().manual_seed(0)
    row, column = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")

    def split(count: int) -> Pair:
        x, y, u, v = (torch.rand(4, count, 1, 1, generator=generator) * 24 + 4).unbind()
        disc = (row - x) ** 2 + (column - y) ** 2 < 30
        square = ((row - u).abs() < 5) & ((column - v).abs() < 5) & ~disc
        classes = disc.long() + 2 * square.long()
        return (classes.gt(0) + 0.5 * torch.randn(count, 32, 32, generator=generator))[:, None], classes

    return tuple(map(split, sizes))
