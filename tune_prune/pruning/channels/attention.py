"""An attention that has fewer heads than its width calls for, which `nn.MultiheadAttention` cannot compute."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class NarrowAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` with some of its heads, or some of the channels that it reads and returns, removed.

    The size of a head stays; the number of heads follows from the weights. It takes and returns what a whole one does.
    """

    def forward(  # noqa: D102 - as in the base class
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        if self.bias_k is not None or self.add_zero_attn:
            raise NotImplementedError("an attention with add_bias_kv or add_zero_attn cannot lose heads")
        is_batched = query.dim() == 3
        inputs = [query, key, value] if is_batched else [one.unsqueeze(1) for one in (query, key, value)]
        inputs = inputs if self.batch_first and is_batched else [one.transpose(0, 1) for one in inputs]
        q, k, v = (self._split(one, *pair) for one, pair in zip(inputs, self._projections(), strict=True))
        mask = _join_masks(attn_mask, key_padding_mask, q, is_causal=is_causal and attn_mask is None)
        weights = None
        if need_weights:
            scores = q @ k.transpose(-1, -2) / math.sqrt(self.head_dim)
            weights = functional.dropout(
                (scores if mask is None else scores + mask).softmax(-1), self.dropout, self.training
            )
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            dropout = self.dropout if self.training else 0.0
            mixed = functional.scaled_dot_product_attention(q, k, v, mask, dropout)
        output = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if not is_batched:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return output if self.batch_first else output.transpose(0, 1), weights

    def _projections(self) -> list[tuple[Tensor, Tensor | None]]:
        """The weights and biases of queries, keys and values."""
        packed = self.in_proj_weight
        parts = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight) if packed is None else packed.chunk(3)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return list(zip(parts, biases, strict=True))

    def _split(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Projects inputs [n, tokens, channels] and splits them into heads, [n, heads, tokens, size of a head]."""
        projected: Tensor = functional.linear(inputs, weight, bias)
        return projected.view(*projected.shape[:2], -1, self.head_dim).transpose(1, 2)


def _join_masks(mask: Tensor | None, padding: Tensor | None, query: Tensor, *, is_causal: bool) -> Tensor | None:
    """One mask to add to the scores, of those of an attention and of keys that are padding."""
    rows, heads, tokens, _ = query.shape
    joined = query.new_zeros(())
    if is_causal:
        joined = joined + query.new_full((tokens, tokens), -math.inf).triu(1)
    if mask is not None:
        mask = _as_added(mask, query)
        joined = joined + (mask.view(rows, -1, *mask.shape[1:])[:, :heads] if mask.dim() == 3 else mask)
    if padding is not None:
        joined = joined + _as_added(padding, query)[:, None, None]
    return joined if joined.dim() else None


def _as_added(mask: Tensor, query: Tensor) -> Tensor:
    """A mask as numbers to add, where it may be a mask of what is left out."""
    return query.new_zeros(mask.shape).masked_fill(mask, -math.inf) if mask.dtype == torch.bool else mask


def narrow_attention(module: nn.MultiheadAttention, width: int) -> None:
    """Makes an attention one that computes with the weights that it has been given; `width` is that of its queries."""
    module.embed_dim = width
    module._qkv_same_embed_dim = False  # else a layer of a transformer may call a fused operation in its place
    if not isinstance(module, NarrowAttention):
        module.__class__ = NarrowAttention
