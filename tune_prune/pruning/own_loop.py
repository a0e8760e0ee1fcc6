"""Masks for a training loop of one's own: read off a pruned model, held after every step, saved with the model."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tune_prune.common import files
from tune_prune.common.errors import UserError, describe_error, format_names
from tune_prune.pruning import checkpoint
from tune_prune.pruning import masks as layer_masks
from tune_prune.tasks import in_memory

ADVICE = "give name='package.module:function', of a function without arguments that makes the model"


def masks(model: nn.Module) -> dict[str, Tensor]:
    """Reads the masks off a model, by layer label: 0 where a weight is exactly zero, else 1; of the weight's shape.

    They are those of a model that `tune_prune.prune` or a search has pruned; of a dense model they keep every weight.

        kept = {layer: int(mask.sum()) for layer, mask in tune_prune.masks(model).items()}
    """
    dense = layer_masks.dense_masks(model)
    weights = layer_masks.prunable(model)
    return {label: mask * (weights[label].detach() != 0) for label, mask in dense.items()}


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Sets removed weights to exactly zero, in place: to be called after every step of an optimizer.

    `masks` are by layer label, 0 where a weight is removed; layers that are left out are not pruned. Raises a
    `UserError` where one does not fit the model.

        optimizer.step()
        tune_prune.apply_masks(model, masks)
    """
    layer_masks.apply(model, _complete(model, masks))


def save(
    model: nn.Module, masks: Mapping[str, Tensor], path: str | Path, *, name: str | None = None, data: str | None = None
) -> None:
    """Writes a checkpoint of a pruned model, which `tune-prune test`, `prune` and `export` read.

    `masks` are as those of `apply_masks`. `name` is a built-in model or the address of a function that makes the model,
    `package.module:function`; without it, the model's class is taken, which then has to need no arguments. `data`
    is the name of its data. Raises a `UserError` where the model that is made by that name has other weights, a removed
    weight is not zero, or a weight is not finite; nothing is written then.

        tune_prune.save(model, tune_prune.masks(model), "small.safetensors", name="mine:Net")
    """
    source, chosen = f"save to {path}", name or _find_name(model)
    if chosen.startswith(in_memory.__name__):
        raise UserError(f"{source}: model {chosen!r} is an object of this process; {ADVICE}")
    complete = _complete(model, masks)
    damaged = layer_masks.find_damaged(model, complete)
    if damaged is not None:
        rule = "call tune_prune.apply_masks after every step of the optimizer"
        raise UserError(f"{source}: layer {damaged} has weights that its mask removes and that are not zero; {rule}")
    weights = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    kept = {label: mask.cpu() != 0 for label, mask in complete.items()}
    try:
        checkpoint.restore(checkpoint.Checkpoint(chosen, weights, kept), source)
    except UserError as error:
        raise error if name else UserError(f"{describe_error(error)}; {ADVICE}") from error
    notes = {} if data is None else {"data": data}
    files.write_bytes(Path(path), checkpoint.dumps(chosen, model, complete, notes))


def _complete(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks of all layers, as numbers, on the devices of their weights."""
    complete = layer_masks.dense_masks(model)
    for label, mask in masks.items():
        if label not in complete:
            raise UserError(f"masks: {label!r} is no layer that can be pruned; layers: {format_names(complete)}")
        if complete[label].shape != mask.shape:
            shapes = f"{list(mask.shape)}, its weight {list(complete[label].shape)}"
            raise UserError(f"masks: the mask of layer {label} is {shapes}; give one of the weight's shape")
        complete[label] *= (mask != 0).to(complete[label].device)
    return complete


def _find_name(model: nn.Module) -> str:
    """The address of a model's class."""
    kind = type(model)
    if kind.__module__ == "__main__" or "." in kind.__qualname__:
        raise UserError(f"save: the class {kind.__qualname__} cannot be imported in another process; {ADVICE}")
    return f"{kind.__module__}:{kind.__name__}"
