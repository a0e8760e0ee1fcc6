"""A pruned model in few bytes: of each layer the weights that are kept, and where they are, in one safetensors file.

Where they are takes the smaller of two forms. "bits" is the mask, eight weights a byte, the first in the highest bit.
"gaps" is a byte for each kept weight: how many were removed before it since the last; 255 stands for 255 removed ones
and none kept yet (after Han et al. 2016, sec. 2). A layer's `<weight>.kept` holds the kept weights in the order of the
flattened weight, `<weight>.bits` or `<weight>.gaps` where they are; everything else is as in the model's state dict.
The metadata's JSON under `tune_prune` names the model, each such weight's shape, and names that share a tensor.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from tune_prune.common.errors import UserError
from tune_prune.pruning import masks
from tune_prune.pruning.checkpoint import Checkpoint, read_tensors

FORMS = ("bits", "gaps")


def dumps(name: str, model: nn.Module, mask: Mapping[str, Tensor]) -> bytes:
    """The bytes of a sparse file of a model called `name`. Layers that lost nothing stay as they are."""
    counts, layers = masks.kept_counts(mask), masks.prunable(model)
    pruned = {id(layers[label]): (label, layers[label]) for label, (kept, total) in counts.items() if kept < total}
    tensors: dict[str, Tensor] = {}
    shapes, same, labels = dict[str, list[int]](), dict[str, str](), dict[str, str]()
    first: dict[tuple[int, ...], str] = {}
    # with the parameters themselves, not copies, so that those of the layers can be told
    for key, value in model.state_dict(keep_vars=True).items():
        place = (value.data_ptr(), *value.shape, *value.stride())
        if value.numel() and place in first:
            same[key] = first[place]
            continue
        first[place] = key
        if id(value) not in pruned:
            tensors[key] = value.detach().cpu().contiguous().clone()
            continue
        label, weight = pruned[id(value)]
        places = mask[label].cpu().flatten().nonzero().flatten()
        form, index = _smaller(places.numpy(), weight.numel())
        tensors[f"{key}.kept"] = weight.detach().cpu().flatten()[places]
        tensors[f"{key}.{form}"] = torch.from_numpy(index)
        shapes[key], labels[key] = list(weight.shape), label
    facts = {"model": name, "shapes": shapes, "layers": labels} | ({"same": same} if same else {})
    return save(tensors, {"tune_prune": json.dumps(facts, separators=(",", ":"))})


def read(path: Path) -> Checkpoint:
    """Read a sparse file: weights and masks bit for bit as they were; a `UserError` where it is none or damaged."""
    facts, tensors = read_tensors(path, "tune_prune")
    if not (isinstance(facts, dict) and isinstance(facts.get("shapes"), dict)):
        raise UserError(f"{path}: no sparse file of tune_prune; `tune-prune export --to sparse` writes them")
    found: dict[str, Tensor] = {}
    try:
        for key, shape in facts["shapes"].items():
            values = tensors.pop(f"{key}.kept")
            form = next(form for form in FORMS if f"{key}.{form}" in tensors)
            kept = torch.from_numpy(_kept(form, tensors.pop(f"{key}.{form}").numpy(), int(np.prod(shape))))
            weight = torch.zeros(len(kept), dtype=values.dtype)
            weight[kept] = values
            tensors[key], found[facts["layers"][key]] = weight.view(shape), kept.view(shape)
        tensors |= {key: tensors[other] for key, other in facts.get("same", {}).items()}
        return Checkpoint(facts["model"], tensors, found)
    except (KeyError, StopIteration, RuntimeError, ValueError, IndexError, TypeError) as error:
        raise UserError(f"{path}: damaged sparse file ({type(error).__name__}: {error}); export it again") from error


def _smaller(places: np.ndarray, total: int) -> tuple[str, np.ndarray]:
    """The form that takes fewer bytes for these places, ascending, of kept weights among so many; and its bytes."""
    gaps = _gaps(places)
    if len(gaps) < -(-total // 8):
        return "gaps", gaps
    kept = np.zeros(total, dtype=bool)
    kept[places] = True
    return "bits", np.packbits(kept)


def _gaps(places: np.ndarray) -> np.ndarray:
    removed = np.diff(places, prepend=-1) - 1
    skips = removed // 255
    found = np.full(len(removed) + int(skips.sum()), 255, dtype=np.uint8)
    found[np.cumsum(skips + 1) - 1] = removed % 255
    return found


def _kept(form: str, index: np.ndarray, total: int) -> np.ndarray:
    """The flat mask again, from what `_smaller` made of it."""
    if form == "bits":
        return np.unpackbits(index, count=total).astype(bool)
    steps = np.where(index == 255, 255, index.astype(np.int64) + 1)
    kept = np.zeros(total, dtype=bool)
    kept[np.cumsum(steps)[index != 255] - 1] = True
    return kept
