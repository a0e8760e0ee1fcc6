"""Classification of series by an LSTM: sktime's Japanese vowels, which of nine speakers said it.

`python dense.py` trains the dense model and writes dense.pth.
"""

import torch
from sktime.datasets import load_japanese_vowels
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]
LENGTH = 29


class Classifier(nn.Module):
    """[n, 29, 12] -> [n, 9]; 3,072 + 16,384 + 576 weights. An LSTM's gates have a ratio each."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(12, 64, batch_first=True), nn.Linear(64, 9)

    def forward(self, series: Tensor) -> Tensor:
        """Class scores, of the state after the last step."""
        return self.head(self.lstm(series)[0][:, -1])


def add_noise(series: Tensor) -> Tensor:
    """Training batches have other noise each time."""
    return series + 0.2 * torch.randn_like(series)


def data() -> tuple[Pair, Pair, Pair]:
    """340 / 150 / 150 utterances of 12 coefficients a step, as long as the longest: zeros come before the shorter."""
    table, speakers = load_japanese_vowels(return_X_y=True, return_type="nested_univ")
    series = torch.zeros(len(table), LENGTH, 12)
    for number, row in enumerate(table.itertuples(index=False)):
        utterance = torch.tensor([list(coefficient) for coefficient in row]).T
        series[number, LENGTH - len(utterance) :] = utterance
    classes = torch.tensor([int(speaker) - 1 for speaker in speakers])
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(0))
    sizes = [340, 150, 150]
    train, validation, test = zip(series[order].split(sizes), classes[order].split(sizes), strict=True)
    return train, validation, test
