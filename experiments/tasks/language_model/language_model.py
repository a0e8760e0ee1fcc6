"""Causal language models of Hugging Face from small configs, on the text of Python's own documentation, by perplexity.

`python dense.py gpt` (or `llama`) trains the dense model and writes gpt.pth (or llama.pth).
"""

import math
import pydoc_data.topics
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

Batch = dict[str, Tensor]
LENGTH = 64


def gpt() -> nn.Module:
    """Two blocks of width 96 over bytes; Hugging Face's Conv1D, and an embedding that the head shares."""
    size = GPT2Config(
        vocab_size=128, n_positions=LENGTH, n_embd=96, n_layer=2, n_head=4, use_cache=False,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return GPT2LMHeadModel(size)


def llama() -> nn.Module:
    """Two blocks of width 96 over bytes; gated linear layers, grouped queries."""
    size = LlamaConfig(
        vocab_size=128, hidden_size=96, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=LENGTH, use_cache=False, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(size)


def data() -> tuple[Batch, Batch, Batch]:
    """Pieces of 64 ASCII characters: eight of ten for training, one for validation, one for the test."""
    text = "\n".join(pydoc_data.topics.topics.values()).encode("ascii", "ignore")
    ids = torch.tensor(list(text[: len(text) // LENGTH * LENGTH])).view(-1, LENGTH)
    part = len(ids) // 10
    train, validation, test = (
        {"input_ids": one, "labels": one} for one in ids.split([len(ids) - 2 * part, part, part])
    )
    return train, validation, test


def perplexity(model: nn.Module, batches: Iterable[Batch]) -> float:
    """The exponential of the mean cross-entropy of the next character, which the model computes itself."""
    losses = [(float(model(**batch).loss), len(batch["input_ids"])) for batch in batches]
    return math.exp(sum(loss * count for loss, count in losses) / sum(count for _, count in losses))
