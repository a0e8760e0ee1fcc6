"""The sparse format: one safetensors file that holds of each pruned layer the kept weights and their positions.

Positions are stored in the smaller of two encodings. "bits" is the mask, eight weights a byte, the first in the highest
bit. "gaps" has a byte for each kept weight: the number of removed weights since the kept one before it; 255 stands for
255 removed weights and no kept one yet (after Han et al. 2016, sec. 2).

A pruned layer's `<weight>.kept` holds the kept weights in the order of the flattened weight, `<weight>.bits` or
`<weight>.gaps` their positions. All other tensors are stored as in the model's state dict. The metadata's JSON under
`tune_prune` has the `model`'s name, the `shapes` of pruned weights and their `layers` (labels) by tensor name, and as
`tied` the name under which a tensor is stored for each other name of it. A tensor that holds several gates has the list
of their labels, of equal parts along its first axis. Channels that a norm computes over, where it leaves some
out, are stored as in a checkpoint.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from tune_prune.common.errors import UserError, describe_error
from tune_prune.pruning import checkpoint, masks
from tune_prune.pruning.channels.norms import kept_by_norm
from tune_prune.pruning.checkpoint import Checkpoint, read_tensors
from tune_prune.pruning.weights import find_weights

ENCODINGS = ("bits", "gaps")

SMALL_MODEL = 2**24
"""Weights that any file may claim."""

WEIGHTS_PER_BYTE = 1024
"""Weights that a file of a larger model may claim for each of its bytes.

A byte of gaps stands for up to 255 weights, and one of bits for 8; the rest is for layers that end in removed weights.
"""


def dumps(name: str, model: nn.Module, mask: Mapping[str, Tensor]) -> bytes:
    """The bytes of a sparse file of a model called `name`. Layers without removed weights are stored whole."""
    pruned = _find_pruned(model, mask)
    tensors: dict[str, Tensor] = {}
    shapes, tied, labels = dict[str, list[int]](), dict[str, str](), dict[str, str | list[str]]()
    stored: dict[tuple[int, ...], str] = {}
    # with the parameters themselves, not copies, so that those of the pruned layers are known by their identity
    for key, value in model.state_dict(keep_vars=True).items():
        memory = (value.data_ptr(), *value.shape, *value.stride())
        if value.numel() and memory in stored:
            tied[key] = stored[memory]
            continue
        stored[memory] = key
        if id(value) not in pruned:
            tensors[key] = value.detach().cpu().contiguous().clone()
            continue
        labels[key], whole = pruned[id(value)]
        positions = whole.cpu().flatten().nonzero().flatten()
        encoding, index = _encode(positions.numpy(), value.numel())
        tensors[f"{key}.kept"] = value.detach().cpu().flatten()[positions]
        tensors[f"{key}.{encoding}"] = torch.from_numpy(index)
        shapes[key] = list(value.shape)
    tensors |= {checkpoint.NORM + norm: kept.cpu() for norm, kept in kept_by_norm(model).items()}
    header = {"model": name, "shapes": shapes, "layers": labels} | ({"tied": tied} if tied else {})
    return save(tensors, {"tune_prune": json.dumps(header, separators=(",", ":"))})


def read(path: Path) -> Checkpoint:
    """Reads a sparse file: weights and masks bit for bit as written. Raises a `UserError` for any other file."""
    header, tensors = read_tensors(path, "tune_prune")
    if not (
        isinstance(header, dict) and isinstance(header.get("shapes"), dict) and isinstance(header.get("model"), str)
    ):
        raise UserError(f"{path}: not a sparse file of tune_prune; `tune-prune export --to sparse` writes them")
    totals = _count_claimed(header["shapes"], path)
    kept_masks: dict[str, Tensor] = {}
    try:
        for key, shape in header["shapes"].items():
            values = tensors.pop(f"{key}.kept")
            encoding = next(one for one in ENCODINGS if f"{key}.{one}" in tensors)
            kept = torch.from_numpy(_decode(encoding, tensors.pop(f"{key}.{encoding}").numpy(), totals[key]))
            weight = torch.zeros(len(kept), dtype=values.dtype)
            weight[kept] = values
            tensors[key], labels = weight.view(shape), header["layers"][key]
            if isinstance(labels, list):
                kept_masks |= dict(zip(labels, kept.view(shape).chunk(len(labels)), strict=True))
            else:
                kept_masks[labels] = kept.view(shape)
        tensors |= {key: tensors[stored] for key, stored in header.get("tied", {}).items()}
        return Checkpoint(header["model"], tensors, kept_masks, norms=checkpoint.pop_norms(tensors))
    except (KeyError, StopIteration, RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged sparse file ({describe_error(error)}); export it again") from error


def _find_pruned(model: nn.Module, mask: Mapping[str, Tensor]) -> dict[int, tuple[str | list[str], Tensor]]:
    """The labels and the whole mask of each parameter of which weights are removed, by the parameter's identity."""
    labels: dict[int, list[str]] = {}
    for label, weight in find_weights(model).items():
        labels.setdefault(id(weight.stored.parameter), []).append(label)
    joined = zip(labels.items(), masks.join(model, mask), strict=True)
    removing = [(key, found, whole) for (key, found), (_, whole) in joined if not bool(whole.all())]
    return {key: (found if len(found) > 1 else found[0], whole) for key, found, whole in removing}


def _count_claimed(shapes: Mapping[str, object], path: Path) -> dict[str, int]:
    """Counts the weights of each pruned layer by its shape; a `UserError` where a file of this size has fewer."""
    totals = {}
    for key, shape in shapes.items():
        if not isinstance(shape, list) or not all(isinstance(size, int) and size >= 0 for size in shape):
            raise UserError(f"{path}: damaged sparse file ({key} has the shape {str(shape)[:60]}); export it again")
        totals[key] = math.prod(shape)
    claimed, size = sum(totals.values()), path.stat().st_size
    if claimed > max(SMALL_MODEL, WEIGHTS_PER_BYTE * size):
        raise UserError(f"{path}: a file of {size:,} bytes that claims {claimed:,} weights; it is damaged or forged")
    return totals


def _encode(positions: np.ndarray, total: int) -> tuple[str, np.ndarray]:
    """Encodes the ascending positions of kept weights among `total`: the smaller encoding's name and its bytes."""
    gaps = _encode_gaps(positions)
    if len(gaps) < -(-total // 8):
        return "gaps", gaps
    kept = np.zeros(total, dtype=bool)
    kept[positions] = True
    return "bits", np.packbits(kept)


def _encode_gaps(positions: np.ndarray) -> np.ndarray:
    removed = np.diff(positions, prepend=-1) - 1
    skips = removed // 255
    gaps = np.full(len(removed) + int(skips.sum()), 255, dtype=np.uint8)
    gaps[np.cumsum(skips + 1) - 1] = removed % 255
    return gaps


def _decode(encoding: str, index: np.ndarray, total: int) -> np.ndarray:
    """Decodes what `_encode` made to the flat mask, bool [total]."""
    if encoding == "bits":
        if len(index) != -(-total // 8):
            raise ValueError(f"{len(index)} bytes of bits for {total} weights")
        return np.unpackbits(index, count=total).astype(bool)
    steps = np.where(index == 255, 255, index.astype(np.int64) + 1)
    kept = np.zeros(total, dtype=bool)
    kept[np.cumsum(steps)[index != 255] - 1] = True
    return kept
