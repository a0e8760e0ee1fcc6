"""Checks one architecture: its weights are counted, pruned, held at zero in training, and come back from files.

A check raises `CheckError`, which says what does not hold. It uses the functions that a round of a search uses.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tune_prune.export import sparse_format
from tune_prune.pruning import checkpoint, criteria, granularity, masks, weights
from tune_prune.pruning.coverage import measure_coverage
from tune_prune.pruning.statistics import Context
from tune_prune.tasks.splits import Split
from tune_prune.training.optim import SGD

RATIO = 0.5
AT_ONCE = 20_000_000

PRODUCTS = {
    F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
}  # fmt: skip
"""Functions whose second argument is a weight."""

LR, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 1e-2


class CheckError(Exception):
    """A check that does not hold."""


@dataclass(frozen=True)
class Counts:
    """What was found in a model: layers (labels) that can be pruned, their weights, all weights, and the others' names.

    Weights are parameters of two and more dimensions. `parameters` counts all parameters.
    """

    layers: int
    counted: int
    total: int
    parameters: int
    left_out: str


@dataclass(frozen=True)
class Sizes:
    """The compression of a pruned model, and the bytes of its checkpoint and of its sparse file."""

    compression: float
    checkpoint_bytes: int
    sparse_bytes: int


def count_weights(model: nn.Module) -> Counts:
    """Counts a model's weights, and checks that those that can be pruned and the others are all that there are."""
    coverage = measure_coverage(model)
    every = {id(parameter): parameter for parameter in model.parameters()}.values()
    total = sum(parameter.numel() for parameter in every if parameter.dim() > 1)
    left_out = sum(one.weights for one in coverage.left_out)
    shapes = masks.shapes(model)
    labelled = sum(math.prod(shape) for shape in shapes.values())
    if not shapes:
        raise CheckError("no layer can be pruned")
    if not coverage.counted + left_out == coverage.total == total:
        raise CheckError(f"{coverage.counted:,} counted and {left_out:,} left out are not the {total:,} weights")
    if labelled != coverage.counted:
        raise CheckError(f"the layers have {labelled:,} weights, and {coverage.counted:,} are counted")
    names = "; ".join(f"{one.module} ({one.type}, {one.weights:,})" for one in coverage.left_out)
    return Counts(len(shapes), coverage.counted, total, sum(parameter.numel() for parameter in every), names)


def prune(model: nn.Module) -> dict[str, Tensor]:
    """Removes half of each layer's weights, those of the smallest magnitude, and checks that exactly these are zero."""
    before = masks.dense_masks(model)
    none = Split(torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    context = Context(model, none, torch.Generator())
    found = {}
    for labels in _divide({label: mask.numel() for label, mask in before.items()}):
        for label, scores in criteria.score_layers(dict.fromkeys(labels, "mag"), context).items():
            found[label] = granularity.shrink(before[label], scores, RATIO)
            removed = int((found[label] == 0).sum())
            if removed != masks.count_removed(RATIO, scores.numel()):
                raise CheckError(f"layer {label}: {removed} of {scores.numel()} removed")
    masks.apply(model, found)
    check_zeros(model, found, "after pruning")
    return found


def _divide(sizes: dict[str, int]) -> Iterator[list[str]]:
    """Yields labels of layers, as many together as have `AT_ONCE` weights, so that scores take little memory."""
    labels: list[str] = []
    for label, size in sizes.items():
        if labels and sum(sizes[one] for one in labels) + size > AT_ONCE:
            yield labels
            labels = []
        labels.append(label)
    yield labels


def check_zeros(model: nn.Module, found: dict[str, Tensor], when: str) -> None:
    """Checks that the model computes with exactly zero, and not with negative zero, wherever a mask removes."""
    for label, weight in masks.effective(model).items():
        removed = weight[found[label] == 0]
        if bool((removed != 0).any()) or bool(removed.signbit().any()):
            raise CheckError(f"{when}, {int((removed != 0).sum())} removed weights of layer {label} are not zero")


class _Watch(TorchFunctionMode):
    """Collects the classes of layers that multiply by other numbers than zero where a mask removes weights.

    `layers` are the masks of layers, by the identity of the module; `entered` are the modules that run now.
    """

    def __init__(self, layers: dict[int, Tensor]) -> None:
        super().__init__()
        self.layers, self.entered, self.found = layers, list[nn.Module](), set[str]()

    def enter(self, module: nn.Module, args: object) -> None:
        """A hook before a layer's call."""
        self.entered.append(module)

    def leave(self, module: nn.Module, args: object, output: object) -> None:
        """A hook after a layer's call, also one that raises."""
        self.entered.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in PRODUCTS and self.entered:
            layer = self.entered[-1]
            mask, weight = self.layers[id(layer)], args[1] if len(args) > 1 else kwargs["weight"]
            with torch._C.DisableTorchFunction():
                if weight.shape == mask.shape and bool((weight[mask == 0] != 0).any()):
                    self.found.add(type(layer).__name__)
        return func(*args, **(kwargs or {}))


@contextmanager
def watch(model: nn.Module, found: dict[str, Tensor]) -> Iterator[set[str]]:
    """Yields the classes of layers that compute with other numbers than zeros, as those that change their weight do."""
    by_parameter = {id(weight.stored.parameter): label for label, weight in weights.find_weights(model).items()}
    layers, hooks = dict[int, Tensor](), []
    watching = _Watch(layers)
    for module in model.modules():
        own = [by_parameter[id(stored.parameter)] for _, stored in weights.stored_weights(module)]
        if len(own) == 1:  # of a module with several weights, which is which is not known
            layers[id(module)] = found[own[0]]
            hooks.append(module.register_forward_pre_hook(watching.enter))
            hooks.append(module.register_forward_hook(watching.leave, always_call=True))
    with watching:
        yield watching.found
    for hook in hooks:
        hook.remove()


def retrain(model: nn.Module, loss: Callable[[nn.Module], Tensor], found: dict[str, Tensor]) -> str:
    """Trains two steps as a round does, and checks that removed weights stay zero and that some others change.

    Returns the names of the classes that do not compute with zeros where the parameter has them (`watch`).
    """
    before = {label: weight.clone() for label, weight in masks.effective(model).items()}
    pairs = masks.pairs(model, found)
    optimizer = SGD(model.parameters(), MOMENTUM, WEIGHT_DECAY)
    model.train()
    for _ in range(2):  # in the second, momentum would move removed weights
        with watch(model, found) as changing:
            value = loss(model)
        if not bool(value.isfinite()):
            raise CheckError(f"the loss is {float(value)}")
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(LR)
        with torch.no_grad():
            torch._foreach_mul_([weight.data for weight, _ in pairs], [mask for _, mask in pairs])
    masks.apply(model, found)
    check_zeros(model, found, "after training")
    if all(torch.equal(weight, before[label]) for label, weight in masks.effective(model).items()):
        raise CheckError("no weight has changed in training")
    return ", ".join(sorted(changing))


def check_files(name: str, model: nn.Module, found: dict[str, Tensor], folder: Path) -> Sizes:
    """Writes a checkpoint and a sparse file, and checks that both load bit for bit into a new model."""
    path = folder / "model.safetensors"
    checkpoint.write(path, name, model, found)
    checkpoint_bytes = path.stat().st_size
    _check_loaded(checkpoint.read(path), model, found, "checkpoint")
    path.write_bytes(sparse_format.dumps(name, model, found))
    sparse_bytes = path.stat().st_size
    _check_loaded(sparse_format.read(path), model, found, "sparse file")
    path.unlink()
    return Sizes(masks.compression(found), checkpoint_bytes, sparse_bytes)


def _check_loaded(saved: checkpoint.Checkpoint, model: nn.Module, found: dict[str, Tensor], kind: str) -> None:
    loaded, kept = checkpoint.restore(saved, kind)
    state = loaded.state_dict()
    for key, value in model.state_dict().items():
        if state[key].dtype != value.dtype or not torch.equal(_bits(state[key]), _bits(value)):
            raise CheckError(f"{kind}: {key} is not what was written")
    for label, mask in found.items():
        if not torch.equal(kept[label] != 0, mask != 0):
            raise CheckError(f"{kind}: the mask of {label} is not what was written")


def _bits(value: Tensor) -> Tensor:
    """A tensor's bytes, which also tell zeros and NaN apart."""
    return value.detach().contiguous().flatten().view(torch.uint8)
