"""Computes pruned layers by the weights that they keep alone: the more is removed, the less retraining takes.

On a CPU, as products of a sparse matrix (compressed sparse rows) with the layer's inputs, one column a sample; a
convolution's inputs are the patches under its kernel (im2col; Chellapilla et al. 2006). Sums are made in another order
than in a dense layer, so that results differ by rounding.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_KEPT = 0.15
"""Layers that keep at most this share of their weights are computed so; of more, dense products are as fast."""

MIN_WEIGHTS = 10_000
"""Layers of fewer weights stay as they are: their dense products take less than what a sparse one needs before it."""

Pair = tuple[Tensor, Tensor]
_CHANNELS_LAST = torch.channels_last


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


def _multiply(matrix: Tensor, dense: Tensor) -> Tensor:
    """The product of a sparse and a dense matrix; `@` would fill the result before, and copy it after."""
    product = dense.new_empty(matrix.shape[0], dense.shape[1])
    return torch.addmm(product, matrix, dense, beta=0, out=product)


class _Product(torch.autograd.Function):
    """A sparse matrix of values [1, kept] times inputs [columns, samples], plus a bias [rows]: [rows, samples]."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, bias: Tensor | None, inputs: Tensor, pattern: Pattern) -> Tensor:
        ctx.save_for_backward(values, inputs)
        ctx.pattern = pattern
        product = _multiply(pattern.matrix(values.view(-1)), inputs)
        return product if bias is None else product.add_(bias.unsqueeze(1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, inputs = ctx.saved_tensors
        pattern, gradient = ctx.pattern, gradient.contiguous()
        sampled = torch.sparse.sampled_addmm(pattern.matrix(values.view(-1)), gradient, inputs.t(), beta=0.0)
        of_bias = gradient.sum(1) if ctx.needs_input_grad[1] else None
        of_inputs = _multiply(pattern.transposed(values.view(-1)), gradient) if ctx.needs_input_grad[2] else None
        return sampled.values().view_as(values), of_bias, of_inputs, None


class _Patches(torch.autograd.Function):
    """Images [n, channels, h, w] as patches [channels * kh * kw, oh * ow * n]: samples come last, in long runs."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> Tensor:
        ctx.shape, ctx.kernel, ctx.stride = images.shape, kernel, stride
        windows = images.permute(1, 2, 3, 0).contiguous()
        for axis in (0, 1):
            windows = windows.unfold(1 + axis, kernel[axis], stride[axis])
        # [channels, oh, ow, n, kh, kw]
        return windows.permute(0, 4, 5, 1, 2, 3).reshape(images.shape[1] * kernel[0] * kernel[1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
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


def _linear(module: nn.Linear, pattern: Pattern, inputs: Tensor) -> Tensor:
    """[..., in] -> [..., out]."""
    flat = inputs.reshape(-1, pattern.size[1])
    product: Tensor = _Product.apply(module.weight, module.bias, flat.t().contiguous(), pattern)
    return product.t().reshape(*inputs.shape[:-1], pattern.size[0])


def _conv2d(module: nn.Conv2d, pattern: Pattern, inputs: Tensor) -> Tensor:
    """[n, in, h, w] -> [n, out, oh, ow], whose samples come last in memory."""
    assert not isinstance(module.padding, str)
    high, wide = module.padding
    padded = F.pad(inputs, (wide, wide, high, high)) if high or wide else inputs
    kernel, stride = module.kernel_size, module.stride
    size = [1 + (length - k) // s for length, k, s in zip(padded.shape[2:], kernel, stride, strict=True)]
    product: Tensor = _Product.apply(module.weight, module.bias, _Patches.apply(padded, kernel, stride), pattern)
    return product.view(-1, *size, len(inputs)).permute(3, 0, 1, 2)


def _pool(module: nn.Module, inputs: Tensor) -> Tensor:
    """Pools [n, channels, h, w]; where samples come last, as channels, which pooling treats alike and else copies."""
    exchanged = inputs.transpose(0, 1)
    last = inputs.dim() == 4 and not inputs.is_contiguous() and exchanged.is_contiguous(memory_format=_CHANNELS_LAST)
    pooled: Tensor = type(module).forward(module, exchanged if last else inputs)
    return pooled.transpose(0, 1) if last else pooled


def _forward_by_kept(module: nn.Module) -> Callable[..., Tensor] | None:
    """The function that computes a layer by what it keeps; None where there is none."""
    if type(module) is nn.Linear:
        return _linear
    if type(module) is not nn.Conv2d or module.groups > 1 or module.padding_mode != "zeros":
        return None
    return _conv2d if module.dilation == (1, 1) and not isinstance(module.padding, str) else None


def _keeps_little(weight: Tensor, mask: Tensor) -> bool:
    """Whether a layer with this mask is computed faster by what it keeps."""
    kept = int(mask.count_nonzero())
    on_cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
    return on_cpu and weight.numel() >= MIN_WEIGHTS and 0 < kept <= MAX_KEPT * mask.numel()


def _sole_owners(model: nn.Module) -> dict[int, nn.Module]:
    """The layer of each weight that no other module has or could look at, by the weight's identity.

    A module of the user's might look at it, so only models of torch's own modules have any.
    """
    modules = list(model.modules())
    if not torch.backends.mkl.is_available() or any(
        type(m).__module__.split(".")[:2] != ["torch", "nn"] for m in modules
    ):
        return {}
    owners = [(id(weight), module) for module in modules for weight in module.parameters(recurse=False)]
    times = Counter(identity for identity, _ in owners)
    return {identity: module for identity, module in owners if times[identity] == 1}


@contextmanager
def sparse_layers(model: nn.Module, masks: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Within it, layers that keep little have their kept weights [1, kept] as their parameter, and compute by these.

    `masks` are pairs (weight, mask); yields those of the layers that stay as they are. Afterwards every weight is back
    in its layer, as it was trained, and removed ones are exactly zero. On a CPU, and for models of torch's own modules.
    """
    rest, changed, owners = list[Pair](), list[tuple[nn.Module, nn.Parameter, Tensor]](), _sole_owners(model)
    for weight, mask in masks:
        owner = owners.get(id(weight))
        forward = None if owner is None else _forward_by_kept(owner)
        if owner is None or forward is None or not _keeps_little(weight, mask):
            rest.append((weight, mask))
            continue
        assert isinstance(weight, nn.Parameter)
        changed.append((owner, weight, mask != 0))
        owner.register_parameter("weight", nn.Parameter(weight.detach()[mask != 0].unsqueeze(0)))
        _replace_forward(owner, partial(forward, owner, Pattern.of(mask.flatten(1))))
    pools = [module for module in model.modules() if changed and type(module) in (nn.MaxPool2d, nn.AvgPool2d)]
    for module in pools:
        _replace_forward(module, partial(_pool, module))
    try:
        yield rest
    finally:
        for module, weight, kept in changed:
            weight.data.zero_()[kept] = module.get_parameter("weight").detach().view(-1)
            module.register_parameter("weight", weight)
        for module in [*(module for module, _, _ in changed), *pools]:
            del module.forward  # its class's again


def _replace_forward(module: nn.Module, forward: Callable[..., Tensor]) -> None:
    """Gives a module another forward, over its class's."""
    module.forward = forward
