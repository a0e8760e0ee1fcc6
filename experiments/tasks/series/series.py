"""Classification of series by an LSTM: sktime's Italian power demand, a day of one month against a day of another.

`python dense.py` trains the dense model and writes dense.pth.
"""

import torch
from sktime.datasets import load_italy_power_demand
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]


class Classifier(nn.Module):
    """[n, 24, 1] -> [n, 2]; 128 + 4,096 + 64 weights. An LSTM's gates have a ratio each."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(1, 32, batch_first=True), nn.Linear(32, 2)

    def forward(self, series: Tensor) -> Tensor:
        """Class scores, of the state after the last hour."""
        return self.head(self.lstm(series)[0][:, -1])


def data() -> tuple[Pair, Pair, Pair]:
    """500 / 298 / 298 days of 24 hours, and the half of the year: 0 or 1."""
    values, labels = load_italy_power_demand(return_X_y=True, return_type="numpy3D")
    series = torch.tensor(values, dtype=torch.float32).transpose(1, 2)
    classes = torch.tensor([int(label) - 1 for label in labels])
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(0))
    sizes = [500, 298, 298]
    train, validation, test = zip(series[order].split(sizes), classes[order].split(sizes), strict=True)
    return train, validation, test
