"""Makes images for the detector: a bright square each, under noise."""

import torch
from torch import Tensor
from torch.utils.data import Dataset


class Squares(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """So many images [1, 64, 64], each with the box of its square."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.noise = 0.2 * torch.rand(count, 1, 64, 64, generator=generator)
        self.corners = torch.randint(2, 36, (count, 2), generator=generator)
        self.sides = torch.randint(12, 26, (count,), generator=generator)

    def __len__(self) -> int:
        return len(self.sides)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        (x, y), side, image = self.corners[index].tolist(), int(self.sides[index]), self.noise[index].clone()
        image[:, y : y + side, x : x + side] += 0.8
        box = torch.tensor([[x, y, x + side, y + side]], dtype=torch.float32)
        return image, {"boxes": box, "labels": torch.ones(1, dtype=torch.int64)}
