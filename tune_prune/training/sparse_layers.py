"""Computes pruned layers by the weights that they keep alone: the more is removed, the less retraining takes.

On a CPU, as products of a sparse matrix (compressed sparse rows) with the layer's inputs, one column a sample; a
convolution's inputs are the patches under its kernel (im2col; Chellapilla et al. 2006). Sums are made in another order
than in a dense layer, so that results differ by rounding.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_prune.training.sparse_products import Patches, Pattern, Product

MAX_KEPT = 0.12
"""Layers that keep at most this share of their weights are computed so; of more, dense products are as fast."""

MIN_WEIGHTS: dict[type[nn.Module], int] = {nn.Linear: 25_000, nn.Conv2d: 10_000}
"""Layers of fewer weights stay as they are: their dense products take less than what a sparse one needs before it."""

MAX_CHANNELS = 8
"""Convolutions of more input channels stay as they are: dense ones are fast, since libraries compute them in blocks."""

MAX_PATCHES = 100_000
"""Convolutions stay as they are where the patches of one sample are more numbers than this: they would take memory."""

Pair = tuple[Tensor, Tensor]
_CHANNELS_LAST = torch.channels_last


def _linear(module: nn.Linear, pattern: Pattern, inputs: Tensor) -> Tensor:
    """[..., in] -> [..., out]."""
    flat = inputs.reshape(-1, pattern.size[1])
    product: Tensor = Product.apply(module.weight, module.bias, flat.t().contiguous(), pattern)
    return product.t().reshape(*inputs.shape[:-1], pattern.size[0])


def _conv2d(module: nn.Conv2d, pattern: Pattern, inputs: Tensor) -> Tensor:
    """[n, in, h, w] -> [n, out, oh, ow], whose samples come last in memory."""
    assert not isinstance(module.padding, str)
    high, wide = module.padding
    padded = F.pad(inputs, (wide, wide, high, high)) if high or wide else inputs
    kernel, stride = module.kernel_size, module.stride
    size = [1 + (length - k) // s for length, k, s in zip(padded.shape[2:], kernel, stride, strict=True)]
    product: Tensor = Product.apply(module.weight, module.bias, Patches.apply(padded, kernel, stride), pattern)
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
    if type(module) is not nn.Conv2d or module.groups > 1 or module.in_channels > MAX_CHANNELS:
        return None
    plain = module.padding_mode == "zeros" and module.dilation == (1, 1) and not isinstance(module.padding, str)
    return _conv2d if plain else None


def _keeps_little(layer: nn.Module, weight: Tensor, mask: Tensor) -> bool:
    """Whether a layer with this mask is computed faster by what it keeps."""
    kept = int(mask.count_nonzero())
    on_cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
    large = weight.numel() >= MIN_WEIGHTS[type(layer)]
    return on_cpu and large and 0 < kept <= MAX_KEPT * mask.numel()


@dataclass(frozen=True)
class _Layer:
    """A layer that is computed by what it keeps: its own weight, where that is kept, and its other forward."""

    module: nn.Module
    weight: nn.Parameter
    kept: Tensor
    forward: Callable[..., Tensor]


def _find_layers(model: nn.Module, masks: Sequence[Pair]) -> list[_Layer]:
    """The layers that keep little, each the only one that has its weight."""
    owners = [(id(weight), module) for module in model.modules() for weight in module.parameters(recurse=False)]
    times, by_weight, found = Counter(identity for identity, _ in owners), dict(owners), list[_Layer]()
    for weight, mask in masks:
        owner = by_weight.get(id(weight))
        forward = None if owner is None or times[id(weight)] > 1 else _forward_by_kept(owner)
        if owner is not None and forward is not None and _keeps_little(owner, weight, mask):
            assert isinstance(weight, nn.Parameter)
            found.append(_Layer(owner, weight, mask != 0, partial(forward, owner, Pattern.of(mask.flatten(1)))))
    return found


def _put_in(layers: Sequence[_Layer], pools: Sequence[nn.Module]) -> None:
    for layer in layers:
        values = layer.weight.detach()[layer.kept].unsqueeze(0)
        layer.module.register_parameter("weight", nn.Parameter(values))
        layer.module.forward = layer.forward
    for pool in pools:
        pool.forward = partial(_pool, pool)


def _take_out(layers: Sequence[_Layer], pools: Sequence[nn.Module]) -> None:
    for layer in layers:
        layer.weight.data.zero_()[layer.kept] = layer.module.get_parameter("weight").detach().view(-1)
        layer.module.register_parameter("weight", layer.weight)
    for module in [*(layer.module for layer in layers), *pools]:
        del module.forward  # its class's again


def _outputs(model: nn.Module, inputs: Tensor) -> Tensor | None:
    """What the model makes of inputs in evaluation mode; None where it fails, or makes no tensor."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng([]):
            torch.manual_seed(0)
            outputs = model(inputs)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return None  # a module of the user's that looks at a weight's shape, say
    finally:
        for module, mode in training.items():
            module.training = mode
    return outputs if isinstance(outputs, Tensor) else None


def _keep_called(model: nn.Module, layers: Sequence[_Layer], sample: Tensor) -> tuple[Tensor | None, list[_Layer]]:
    """What the model makes of a sample, and the layers that it called, without convolutions of many patches."""
    patches = dict[nn.Module, int]()

    def count(module: nn.Module, _: object, outputs: Tensor) -> None:
        size = module.get_parameter("weight")[0].numel()
        patches[module] = 0 if isinstance(module, nn.Linear) else size * outputs[0, 0].numel()

    hooks = [layer.module.register_forward_hook(count) for layer in layers]
    outputs = _outputs(model, sample)
    for hook in hooks:
        hook.remove()
    return outputs, [layer for layer in layers if patches.get(layer.module, MAX_PATCHES + 1) <= MAX_PATCHES]


@contextmanager
def sparse_layers(model: nn.Module, masks: Sequence[Pair], sample: Tensor) -> Iterator[list[Pair]]:
    """Within it, layers that keep little have their kept weights [1, kept] as their parameter, and compute by these.

    `masks` are pairs (weight, mask); yields those of the layers that stay as they are. Afterwards every weight is back
    in its layer, as it was trained, and removed ones are exactly zero. A model that does not make the same of the
    `sample`, a few inputs, stays as it is: one whose own code uses a layer's weight, for instance. On a CPU alone.
    """
    layers, expected = _find_layers(model, masks) if torch.backends.mkl.is_available() else [], None
    if layers:
        expected, layers = _keep_called(model, layers, sample)
    pools = [module for module in model.modules() if layers and type(module) in (nn.MaxPool2d, nn.AvgPool2d)]
    if layers:
        _put_in(layers, pools)
        found = _outputs(model, sample)
        if expected is None or found is None or not torch.allclose(expected, found, rtol=1e-3, atol=1e-4):
            _take_out(layers, pools)
            layers = []
    if not layers:
        yield list(masks)
        return
    computed = {id(layer.weight) for layer in layers}
    try:
        yield [pair for pair in masks if id(pair[0]) not in computed]
    finally:
        _take_out(layers, pools)
