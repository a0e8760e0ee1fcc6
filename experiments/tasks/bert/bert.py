"""BERT of Hugging Face, from a small config: classifies token sequences of several lengths, with attention masks.

`python dense.py` trains the dense model and writes dense.pth. A sequence's class is whether its tokens hold more of the
first half of the vocabulary than of the second.
"""

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification

TOKENS, LENGTH = 200, 24


class Sequences(Dataset[dict[str, Tensor]]):
    """So many sequences as Hugging Face's models take them; a data set of one's own, read item by item."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.ids = torch.randint(2, TOKENS, (count, LENGTH), generator=generator)
        lengths = torch.randint(8, LENGTH + 1, (count, 1), generator=generator)
        self.mask = (torch.arange(LENGTH) < lengths).long()
        low = ((self.ids < TOKENS // 2) * self.mask).sum(1)
        self.labels = (2 * low > self.mask.sum(1)).long()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.ids[index], "attention_mask": self.mask[index], "labels": self.labels[index]}


def model() -> BertForSequenceClassification:
    """Two layers of width 64."""
    size = BertConfig(
        vocab_size=TOKENS, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=LENGTH,
    )  # fmt: skip
    return BertForSequenceClassification(size)


def data() -> tuple[Sequences, Sequences, Sequences]:
    """4,000 / 1,000 / 1,000 sequences."""
    return Sequences(4000, 0), Sequences(1000, 1), Sequences(1000, 2)
