"""Gives a model weights of other sizes than its own, as files of smaller networks hold them."""

from collections.abc import Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from tune_prune.common.errors import UserError, format_names
from tune_prune.pruning.channels import blocks
from tune_prune.pruning.channels.slicing import list_numbers, set_numbers, set_tensor
from tune_prune.pruning.layers import TRANSPOSED

RESIZABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
"""Layers whose channels can be removed; recurrent layers, embeddings and users' own layers keep theirs."""


def is_resizable(module: nn.Module) -> bool:
    """Whether a module's channels can be removed: not where its weight is computed from other tensors."""
    return isinstance(module, RESIZABLE) and "weight" in module._parameters


def _is_by_group(module: nn.Module, name: str) -> bool:
    """Whether a tensor is the weight of a convolution whose groups have an input each."""
    is_grouped = name == "weight" and getattr(module, "groups", 1) != 1 and not isinstance(module, TRANSPOSED)
    return is_grouped and module.get_parameter("weight").shape[1] == 1


def skip_blocks(model: nn.Module, skipped: Any, source: str) -> None:
    """Makes modules return their input, of each name in a tuple of so many items, as `skipped_blocks` lists them.

    Files of earlier versions list the names alone. A `UserError` names `source` where the model has no such block.
    """
    names = dict.fromkeys(map(str, skipped), 0) if isinstance(skipped, list) else skipped
    known = {name for name, _ in model.named_modules() if name}
    if not (isinstance(names, dict) and known.issuperset(names) and all(map(_is_size, names.values()))):
        raise UserError(f"{source}: the model has no blocks {skipped!r}; the file is damaged, or another model's")
    for name, items in names.items():
        blocks.skip_block(model.get_submodule(name), items)


def find_changed_numbers(model: nn.Module, smaller: nn.Module) -> dict[str, dict[str, int]]:
    """The numbers that the modules of a smaller model hold, where they are not the model's, by module and attribute."""
    found: dict[str, dict[str, int]] = {}
    for name, module in smaller.named_modules():
        before = list_numbers(model.get_submodule(name))
        if changed := {key: value for key, value in list_numbers(module).items() if before.get(key, value) != value}:
            found[name] = changed
    return found


def set_changed_numbers(model: nn.Module, numbers: Any, source: str) -> None:
    """Sets what `find_changed_numbers` has found; a `UserError` names `source` where the model has no such number."""
    known = {name: list_numbers(module) for name, module in model.named_modules()}
    fits = isinstance(numbers, dict) and all(
        name in known and isinstance(held, dict) and all(key in known[name] and _is_count(held[key]) for key in held)
        for name, held in numbers.items()
    )
    if not fits:
        raise UserError(f"{source}: the model holds no numbers {numbers!r}; the file is damaged, or another model's")
    set_numbers(model, numbers)


def _is_size(value: object) -> bool:
    """Whether a value is the size of a tuple that a function may return: a file can name any number."""
    return _is_count(value) and value < 1000


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and value >= 0


@torch.no_grad()
def load_resized(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Gives a model other weights, and its modules the sizes of these weights; `weights` are as in `own_state`.

    Parameters that can be trained stay so. Raises a `UserError` that names `source` where weights are missing or have
    another number of axes, or the model has no tensor of their name.
    """
    first_names = _first_names(model)
    given = {name: nn.Parameter(value, requires_grad=False) for name, value in weights.items()}
    placed = set()
    for name, module in model.named_modules(remove_duplicate=False):
        for key in [*module._parameters, *module._buffers]:
            full, before = f"{name}.{key}" if name else key, getattr(module, key)
            first = first_names.get(full, full)
            if first in given:
                if before is not None and before.dim() != given[first].dim():
                    raise UserError(f"{source}: {first} has {given[first].dim()} axes, the model's {before.dim()}")
                if isinstance(before, nn.Parameter):
                    given[first].requires_grad_(before.requires_grad)
                set_tensor(module, key, given[first], by_group=_is_by_group(module, key))
                placed.add(first)
            elif before is not None and full in first_names:
                raise UserError(f"{source}: {first} is missing; the file is damaged, or another model's")
    if set(weights) - placed:
        raise UserError(f"{source}: the model has no place for {format_names(sorted(set(weights) - placed))}")


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's state dict with each tensor once: of names that share one, as tied weights do, the first."""
    first_names = _first_names(model)
    return {name: value for name, value in model.state_dict().items() if first_names[name] == name}


def _first_names(model: nn.Module) -> dict[str, str]:
    """By each name of the state dict, the first name of the same tensor."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(value), name) for name, value in model.state_dict(keep_vars=True).items()}
