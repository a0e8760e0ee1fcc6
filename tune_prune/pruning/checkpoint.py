"""Weights, masks and how they came about, in one safetensors file: nothing is ever unpickled.

Tensors are named as in the model's state dict, masks `mask/<layer>` (bool, True keeps). The file's metadata holds
one JSON text under `tune_prune`: the model's name and notes. A dense model is a checkpoint without masks.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tune_prune.common import files
from tune_prune.common.entrypoints import is_address
from tune_prune.common.errors import UserError, format_names
from tune_prune.pruning import masks
from tune_prune.tasks.models import build, pretrained_path


def load_dense_model(name: str, weights: str | None, source: str) -> nn.Module:
    """A model with its dense weights: from a checkpoint file, else from the package, else as its factory made it.

    `source` is what a `UserError` names when a built-in model has no weights.
    """
    torch.manual_seed(0)  # weights that a factory draws are drawn again where a run is resumed
    model = build(name)
    path = Path(weights) if weights else pretrained_path(name)
    if path is not None:
        load_weights(model, read(path), str(path))
    elif ":" not in name:
        raise UserError(f"{source}: model {name!r} has no pretrained weights; give task.weights, a checkpoint")
    return model


_MASK = "mask/"


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: the model's name, its state dict, masks by layer label (empty: dense), and notes."""

    model: str
    weights: dict[str, Tensor]
    masks: dict[str, Tensor]
    notes: dict[str, object] = field(default_factory=dict)


def dumps(name: str, model: nn.Module, mask: Mapping[str, Tensor], notes: Mapping[str, object]) -> bytes:
    """The bytes of a checkpoint file of a model called `name`."""
    # cloned, since safetensors refuses tensors that share memory, as tied weights do
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    tensors |= {_MASK + label: (kept != 0).cpu().contiguous() for label, kept in mask.items()}
    return save(tensors, {"tune_prune": json.dumps({"model": name, "notes": dict(notes)})})


def write(
    path: Path, name: str, model: nn.Module, mask: Mapping[str, Tensor], notes: Mapping[str, object] | None = None
) -> None:
    """Write a checkpoint, whole or not at all."""
    files.write_bytes(path, dumps(name, model, mask, notes or {}))


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; a `UserError` says what is wrong with a file that is not one."""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; `tune-prune train` and a search write them as .safetensors")
    header, tensors = read_tensors(path, "tune_prune")
    if not (isinstance(header, dict) and isinstance(header.get("model"), str)):
        raise UserError(f"{path}: a safetensors file, but not one that tune_prune wrote: it names no model")
    kept = {key.removeprefix(_MASK): tensors.pop(key) for key in list(tensors) if key.startswith(_MASK)}
    notes = header.get("notes")
    return Checkpoint(header["model"], tensors, kept, notes if isinstance(notes, dict) else {})


def read_tensors(path: Path, key: str) -> tuple[Any, dict[str, Tensor]]:
    """The JSON under a key of a safetensors file's metadata (None where there is none), and its tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(key, "null"))
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not a readable safetensors checkpoint ({error})") from error


def restore(checkpoint: Checkpoint, source: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """The checkpoint's model with its weights, and a mask for every prunable layer.

    Raises a `UserError` that names `source` where tensors do not fit the model, or a removed weight is not zero.
    """
    try:
        model = build(checkpoint.model)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    load_weights(model, checkpoint, source)
    full = masks.dense_masks(model)
    for label, kept in checkpoint.masks.items():
        if label not in full or full[label].shape != kept.shape:
            raise UserError(f"{source}: mask of layer {label} does not fit model {checkpoint.model}")
        full[label].copy_(kept)
    for label, weight in masks.prunable(model).items():
        if bool((weight[full[label] == 0] != 0).any()):
            raise UserError(f"{source}: layer {label} has weights that its mask removes; the file is damaged")
    return model, full


def load_weights(model: nn.Module, checkpoint: Checkpoint, source: str) -> None:
    """Copy a checkpoint's weights into a model of the same architecture."""
    state = model.state_dict()
    wrong = [key for key in state | checkpoint.weights if not _fits(state.get(key), checkpoint.weights.get(key))]
    if wrong:
        raise UserError(
            f"{source}: does not fit the model; made for {checkpoint.model!r}; differing: {format_names(wrong)}"
        )
    with torch.no_grad():
        for key, value in state.items():
            value.copy_(checkpoint.weights[key])


def _fits(ours: Tensor | None, theirs: Tensor | None) -> bool:
    return ours is not None and theirs is not None and ours.shape == theirs.shape


def check_trusted(path: Path, model: str | None) -> None:
    """A `UserError` where a checkpoint names code that the user has not named as well: it may be a stranger's file."""
    named = read(path).model
    if model is not None and model != named:
        raise UserError(f"{path}: holds model {named!r}, not {model!r}; leave out --model, or name it as the file does")
    if model is None and is_address(named) and not named.startswith("torchvision:"):
        raise UserError(f"{path}: its model is code, {named!r}; if you trust it, add --model {shlex.quote(named)}")
