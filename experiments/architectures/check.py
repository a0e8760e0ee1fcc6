"""Checks one architecture: its weights are counted, pruned, held at zero in training, and come back from files.

A check raises `CheckError`, which says what does not hold. It uses the functions that a round of a search uses.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tune_prune.export import sparse_format
from tune_prune.pruning import checkpoint, criteria, granularity, masks
from tune_prune.pruning.coverage import measure_coverage
from tune_prune.pruning.statistics import Context
from tune_prune.tasks.splits import Split
from tune_prune.training.optim import SGD

RATIO = 0.5
AT_ONCE = 20_000_000
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


def retrain(model: nn.Module, loss: Callable[[nn.Module], Tensor], found: dict[str, Tensor]) -> None:
    """Trains two steps as a round does, and checks that removed weights stay zero and that some others change."""
    before = {label: weight.clone() for label, weight in masks.effective(model).items()}
    pairs = masks.pairs(model, found)
    optimizer = SGD(model.parameters(), MOMENTUM, WEIGHT_DECAY)
    model.train()
    for _ in range(2):  # in the second, momentum would move removed weights
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
