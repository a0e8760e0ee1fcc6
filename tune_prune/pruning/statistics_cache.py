"""Expensive statistics of a dense model, measured once and kept on disk by content.

The key is a hash of all that the numbers follow from: the weights, the images and labels, the statistic and the
settings of its module. So a file is never out of date, and may be deleted at any time.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from tune_prune.common import files
from tune_prune.pruning import gates, loss_change, statistics
from tune_prune.pruning.masks import prunable
from tune_prune.pruning.statistics import Context, draw_sample
from tune_prune.tasks.splits import Split

SETTINGS = {
    "hessian": (statistics, ["PROBES"]),
    "l1_gate": (gates, ["STEPS", "BATCH", "STRENGTH", "L1_WAY"]),
    "l2_gate": (gates, ["STEPS", "BATCH", "STRENGTH", "L2_WAY"]),
    "loss_change": (loss_change, ["IMAGES"]),
}
"""Statistics that take seconds to minutes, and the settings that they follow from."""

EXPENSIVE = tuple(SETTINGS)
"""They are measured once; the others are measured anew in every round."""

PER_LAYER = ("loss_change",)
"""Those of them that are measured layer by layer: a file each, so that an interruption costs one layer at most."""


def cache_dir() -> Path:
    """Where they are kept: `tune_prune` in the user's cache directory (XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tune_prune"


def load_or_measure(names: Iterable[str], context: Context) -> dict[str, dict[str, Tensor]]:
    """Those of the named statistics that are expensive, by name and layer: read from disk, or measured and kept."""
    state = context.generator.get_state()
    found = {}
    for name in names:
        if name in EXPENSIVE:  # each from the same random numbers, whichever others are measured or read
            own = torch.Generator(context.generator.device)
            own.set_state(state)
            found[name] = _all_layers(name, replace(context, generator=own))
    return found


def measure_dense(
    names: Iterable[str], model: nn.Module, train: Split, images: int, say: Callable[[str], None] = lambda line: None
) -> dict[str, dict[str, Tensor]]:
    """What a search knows of its dense model: `known` on a sample of training images that is always the same."""
    generator = torch.Generator().manual_seed(0)
    sample = draw_sample(train, images, generator)
    return load_or_measure(names, Context(model, sample, generator, say))


def _all_layers(name: str, context: Context) -> dict[str, Tensor]:
    if name not in PER_LAYER:
        return _read_or_measure(name, replace(context, only=None))
    found: dict[str, Tensor] = {}
    for label in context.wanted():
        found |= _read_or_measure(name, replace(context, only=[label]))
    return found


def _read_or_measure(name: str, context: Context) -> dict[str, Tensor]:
    path = cache_dir() / f"{name}-{_key(name, context)}.safetensors"
    device = next(context.model.parameters()).device
    if path.is_file():
        return {label: value.to(device) for label, value in load_file(path).items()}
    layers = "" if context.only is None else f" of layer {', '.join(context.only)}"
    context.say(f"measuring {name}{layers} on the dense model, once: {path}")
    values = statistics.statistics[name](context)
    files.write_bytes(path, save({label: value.cpu().contiguous() for label, value in values.items()}))
    return values


def _key(name: str, context: Context) -> str:
    digest = hashlib.sha256(repr((name, context.only, _settings(name))).encode())
    for label, weight in (*context.model.state_dict().items(), *prunable(context.model).items()):
        digest.update(label.encode() + _bytes(weight))
    digest.update(_bytes(context.sample.inputs) + _bytes(context.sample.labels))
    return digest.hexdigest()[:32]


def _settings(statistic: str) -> Mapping[str, float]:
    """What a statistic follows from beside the model and the images."""
    module, names = SETTINGS[statistic]
    return {name: getattr(module, name) for name in names}


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.dim() else b""
