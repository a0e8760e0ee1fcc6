"""Writes and reads checkpoints: weights, masks and notes in one safetensors file; nothing is ever unpickled.

Tensors are named as in the model's state dict, masks `mask/<layer>` (bool, True keeps), and channels that a norm
computes over, where it leaves some out, `norm/<its name>`. The file's metadata holds one JSON text under `tune_prune`:
the model's name, and notes on how it was made. A dense model is a checkpoint without masks.
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
from tune_prune.common.entrypoints import describe_address, is_address, is_handed_over
from tune_prune.common.errors import UserError, format_names, prefix_errors
from tune_prune.common.parsing import parse_json
from tune_prune.pruning import state_dict
from tune_prune.pruning.channels.norms import count_normalised, kept_by_norm, set_kept_by_norm
from tune_prune.pruning.masks import apply, dense_masks, find_damaged
from tune_prune.tasks.fingerprints import hash_tensors
from tune_prune.tasks.models import build, build_on_meta, pretrained_path

_MASK, NORM = "mask/", "norm/"


@dataclass(frozen=True)
class Checkpoint:
    """A file's content: the model's name, its state dict, masks by layer label (empty: dense), and notes.

    `norms` are the channels that norms compute over, bool, by the name of the norm, where some are left out.
    """

    model: str
    weights: dict[str, Tensor]
    masks: dict[str, Tensor]
    notes: dict[str, object] = field(default_factory=dict)
    norms: dict[str, Tensor] = field(default_factory=dict)


def dumps(name: str, model: nn.Module, masks: Mapping[str, Tensor], notes: Mapping[str, object]) -> bytes:
    """Makes the bytes of a checkpoint of the model called `name`; `masks` are by layer label."""
    # cloned, since safetensors refuses tensors that share memory, as tied weights do
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    tensors |= {_MASK + label: (mask != 0).cpu().contiguous() for label, mask in masks.items()}
    tensors |= {NORM + norm: kept.cpu().contiguous() for norm, kept in kept_by_norm(model).items()}
    return save(tensors, {"tune_prune": json.dumps({"model": name, "notes": dict(notes)})})


def write(
    path: Path, name: str, model: nn.Module, masks: Mapping[str, Tensor], notes: Mapping[str, object] | None = None
) -> None:
    """Writes a checkpoint, whole or not at all."""
    files.write_bytes(path, dumps(name, model, masks, notes or {}))


def read(path: Path) -> Checkpoint:
    """Reads a checkpoint; raises a `UserError` where the file is missing, damaged or no checkpoint."""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; `tune-prune train` and a search write them as .safetensors")
    header, tensors = read_tensors(path, "tune_prune")
    if not (isinstance(header, dict) and isinstance(header.get("model"), str)):
        raise UserError(f"{path}: a safetensors file, but not one that tune_prune wrote: it names no model")
    layer_masks = {key.removeprefix(_MASK): tensors.pop(key) for key in list(tensors) if key.startswith(_MASK)}
    norms, notes = pop_norms(tensors), header.get("notes")
    return Checkpoint(header["model"], tensors, layer_masks, notes if isinstance(notes, dict) else {}, norms)


def pop_norms(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Takes out of a file's tensors the channels that norms compute over, by the name of the norm."""
    return {key.removeprefix(NORM): tensors.pop(key) for key in list(tensors) if key.startswith(NORM)}


def read_tensors(path: Path, key: str) -> tuple[Any, dict[str, Tensor]]:
    """Reads a safetensors file: the JSON under a key of its metadata (None where there is none), and its tensors.

    Raises a `UserError` where the file cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = parse_json((file.metadata() or {}).get(key, "null"))
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable safetensors checkpoint ({error})") from error


def restore(checkpoint: Checkpoint, source: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """Builds a checkpoint's model with its weights, and a mask for every prunable layer.

    Raises a `UserError` that names `source` where tensors do not fit the model, or a removed weight is not zero.
    """
    with prefix_errors(source):
        on_meta = build_on_meta(checkpoint.model)
    if on_meta is not None:  # before memory is taken for a model that the file does not hold
        _check_shapes(on_meta, checkpoint, source)
    with prefix_errors(source):
        model = build(checkpoint.model)
    return model, restore_into(model, checkpoint, source)


def restore_into(model: nn.Module, checkpoint: Checkpoint, source: str) -> dict[str, Tensor]:
    """Copies a checkpoint's weights into a model of the same kind, whose removed weights become zero.

    Returns a mask for every prunable layer; raises as `restore` does.
    """
    load_weights(model, checkpoint, source)
    masks = dense_masks(model)
    for label, mask in checkpoint.masks.items():
        if label not in masks or masks[label].shape != mask.shape:
            raise UserError(f"{source}: mask of layer {label} does not fit model {describe_address(checkpoint.model)}")
        masks[label].copy_(mask)
    damaged = find_damaged(model, masks)
    if damaged is not None:
        raise UserError(f"{source}: layer {damaged} has weights that its mask removes; the file is damaged")
    apply(model, masks)
    return masks


def load_weights(model: nn.Module, checkpoint: Checkpoint, source: str) -> None:
    """Copies a checkpoint's weights into a model; a `UserError` names `source` where that goes wrong."""
    _check_shapes(model, checkpoint, source)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            value.copy_(checkpoint.weights[key])
    _check_finite(model, source)
    _load_norms(model, checkpoint, source)


def _load_norms(model: nn.Module, checkpoint: Checkpoint, source: str) -> None:
    """Makes norms leave out the channels that they have left out."""
    norms = {name: count_normalised(module) for name, module in model.named_modules()}
    for name, kept in checkpoint.norms.items():
        if name not in norms or kept.shape != (norms[name],) or kept.dtype != torch.bool or not bool(kept.any()):
            raise UserError(f"{source}: channels of norm {name} do not fit model {describe_address(checkpoint.model)}")
    set_kept_by_norm(model, checkpoint.norms)


def _check_shapes(model: nn.Module, checkpoint: Checkpoint, source: str) -> None:
    """Raises a `UserError` where model and checkpoint have other weights, or of another shape."""
    state, weights = model.state_dict(), checkpoint.weights
    different = [key for key in state | weights if not _have_same_shape(state.get(key), weights.get(key))]
    if different:
        made_for = f"made for {describe_address(checkpoint.model)!r}; " if checkpoint.model else ""
        raise UserError(f"{source}: does not fit the model; {made_for}differing: {format_names(different)}")


def load_dense_model(name: str, weights: str | None, where: str) -> nn.Module:
    """Builds a model with its dense weights: of the file `weights`, else of the package, else as its factory made them.

    The file is a checkpoint, or a state dict that `torch.save` wrote. A `UserError` names what is wrong, "model" or
    "weights", after `where`: "a.toml: task." or "--"; also where a built-in model has no weights.
    """
    torch.manual_seed(0)  # a resumed run must get the weights that the factory drew in the first one
    with prefix_errors(f"{where}model"):
        model = build(name)
    path = Path(weights) if weights else pretrained_path(name)
    if path is not None:
        with prefix_errors(f"{where}weights" if weights else ""):
            is_state_dict = path.suffix in state_dict.SUFFIXES
            saved = Checkpoint("", state_dict.read_state_dict(path), {}) if is_state_dict else read(path)
            load_weights(model, saved, str(path))
    elif ":" not in name:
        raise UserError(f"{where}model: {name!r} has no pretrained weights; give {where}weights, a checkpoint")
    else:
        _check_finite(model, f"{where}model: {name!r}")
    return model


def _check_finite(model: nn.Module, source: str) -> None:
    """Raises a `UserError` that names `source` where a weight is NaN or infinite; buffers may hold infinity."""
    wrong = [key for key, value in model.named_parameters() if not bool(value.isfinite().all())]
    wrong += [key for key, value in model.named_buffers() if bool(value.isnan().any())]
    if wrong:
        shown = format_names(wrong[:3]) + (" ..." if len(wrong) > 3 else "")
        raise UserError(f"{source}: NaN or infinity in {shown}; damaged, or trained until it diverged: train it again")


def hash_weights(model: nn.Module, masks: Mapping[str, Tensor]) -> str:
    """Hashes what a pruning starts from: weights and buffers, and the masks that remove something."""
    removing = {_MASK + label: mask != 0 for label, mask in masks.items() if not bool(mask.all())}
    return hash_tensors(model.state_dict() | removing)


def check_trusted(path: Path, model: str | None, data: str | None = "") -> None:
    """Raises a `UserError` where a file's model is code that the user has not named: it may be a stranger's file.

    `data` is what the user named for it, "" where none is needed; where it is missing as well, the message says so.
    """
    saved = read(path)
    named = saved.model
    if is_handed_over(named):
        save = "tune_prune.save(model, tune_prune.masks(model), FILE, name='package.module:function')"
        advice = f"load it there, front.best.load_into(model), and save it under a name, {save}"
        raise UserError(f"{path}: its model is {describe_address(named)} as an object; {advice}")
    if model is not None and model != named:
        raise UserError(f"{path}: holds model {named!r}, not {model!r}; leave out --model, or name it as the file does")
    if model is None and is_address(named) and not named.startswith("torchvision:"):
        advice = f"if you trust it, add --model {shlex.quote(named)}"
        if data is None:
            noted = saved.notes.get("data")
            is_known = isinstance(noted, str) and not is_handed_over(noted)
            advice += f" --data {shlex.quote(str(noted))}" if is_known else " --data and what it is for"
        raise UserError(f"{path}: its model is code, {named!r}; {advice}")


def _have_same_shape(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and one.shape == other.shape
