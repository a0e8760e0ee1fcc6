"""Products of a sparse matrix with a dense one, with gradients, and images as patches that such a matrix multiplies.

The matrix is kept as compressed sparse rows; only the gradients of its values are computed.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Pattern:
    """Where a matrix [rows, columns] has its values: compressed rows, and those of its transpose with their order."""

    size: tuple[int, int]
    starts: Tensor
    columns: Tensor
    starts_transposed: Tensor
    rows: Tensor
    order: Tensor

    @classmethod
    def of(cls, mask: Tensor) -> "Pattern":
        """The places of a mask [rows, columns] that are not 0."""
        rows, columns = mask.nonzero(as_tuple=True)
        order = (columns * len(mask) + rows).argsort()
        starts, transposed = (F.pad(mask.count_nonzero(axis).cumsum(0), (1, 0)) for axis in (1, 0))
        pattern = cls((mask.shape[0], mask.shape[1]), starts, columns, transposed, rows[order], order)
        with warnings.catch_warnings():  # torch says once in a process that sparse rows are in beta
            warnings.simplefilter("ignore", UserWarning)
            pattern.matrix(columns.float())
        return pattern

    def matrix(self, values: Tensor) -> Tensor:
        """The sparse matrix of these values, row by row."""
        return torch.sparse_csr_tensor(self.starts, self.columns, values, self.size, check_invariants=False)

    def transposed(self, values: Tensor) -> Tensor:
        """Its transpose, of the same values in the same order."""
        size = self.size[::-1]
        values = values.index_select(0, self.order)
        return torch.sparse_csr_tensor(self.starts_transposed, self.rows, values, size, check_invariants=False)


def multiply(matrix: Tensor, dense: Tensor) -> Tensor:
    """The product of a sparse and a dense matrix; `@` would fill the result before, and copy it after."""
    product = dense.new_empty(matrix.shape[0], dense.shape[1])
    return torch.addmm(product, matrix, dense, beta=0, out=product)


class Product(torch.autograd.Function):
    """A sparse matrix of values [1, kept] times inputs [columns, samples], plus a bias [rows]: [rows, samples]."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, bias: Tensor | None, inputs: Tensor, pattern: Pattern) -> Tensor:
        """Computes the product."""
        ctx.save_for_backward(values, inputs)
        ctx.pattern = pattern
        product = multiply(pattern.matrix(values.view(-1)), inputs)
        return product if bias is None else product.add_(bias.unsqueeze(1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Computes the gradients of values, bias and inputs, as far as they are needed."""
        values, inputs = ctx.saved_tensors
        pattern, gradient = ctx.pattern, gradient.contiguous()
        sampled = torch.sparse.sampled_addmm(pattern.matrix(values.view(-1)), gradient, inputs.t(), beta=0.0)
        of_bias = gradient.sum(1) if ctx.needs_input_grad[1] else None
        of_inputs = multiply(pattern.transposed(values.view(-1)), gradient) if ctx.needs_input_grad[2] else None
        return sampled.values().view_as(values), of_bias, of_inputs, None


class Patches(torch.autograd.Function):
    """Images [n, channels, h, w] as patches [channels * kh * kw, oh * ow * n]: samples come last, in long runs."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> Tensor:
        """Copies every patch."""
        ctx.shape, ctx.kernel, ctx.stride = images.shape, kernel, stride
        windows = images.permute(1, 2, 3, 0).contiguous()
        for axis in (0, 1):
            windows = windows.unfold(1 + axis, kernel[axis], stride[axis])
        # [channels, oh, ow, n, kh, kw]
        return windows.permute(0, 4, 5, 1, 2, 3).reshape(images.shape[1] * kernel[0] * kernel[1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Adds the gradients of all patches up, pixel by pixel."""
        n, channels, *size = ctx.shape
        (kh, kw), (sh, sw) = ctx.kernel, ctx.stride
        high, wide = (1 + (length - k) // s for length, k, s in zip(size, ctx.kernel, ctx.stride, strict=True))
        patches = gradient.view(channels, kh, kw, high, wide, n)
        images = gradient.new_zeros(channels, *size, n)
        for row in range(kh):
            for column in range(kw):
                ends = row + sh * (high - 1) + 1, column + sw * (wide - 1) + 1
                images[:, row : ends[0] : sh, column : ends[1] : sw] += patches[:, row, column]
        return images.permute(3, 0, 1, 2), None, None
