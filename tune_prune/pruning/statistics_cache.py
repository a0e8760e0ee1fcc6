"""Measures a dense model's expensive statistics once and caches them on disk.

A file's name holds a hash of everything that determines the values: the weights, the images and labels, the statistic
and the settings of its module. So a file is never out of date, and it may be deleted at any time.
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
    "l1_gate": (gates, ["STEPS", "BATCH", "STRENGTH", "L1_DISTANCE"]),
    "l2_gate": (gates, ["STEPS", "BATCH", "STRENGTH", "L2_DISTANCE"]),
    "loss_change": (loss_change, ["IMAGES"]),
}
"""Statistics that take seconds to minutes, and the constants that determine their values, with their module."""

EXPENSIVE = tuple(SETTINGS)
"""Statistics that are measured once; the others are measured again in every round."""

PER_LAYER = ("loss_change",)
"""Expensive statistics with a file for each layer, so that an interruption costs at most one layer."""


def cache_dir() -> Path:
    """The folder of the files: `tune_prune` in the user's cache directory (XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tune_prune"


def load_or_measure(names: Iterable[str], context: Context) -> dict[str, dict[str, Tensor]]:
    """Loads the expensive ones among the named statistics, by name and layer; measures those that have no file."""
    state = context.generator.get_state()
    values = {}
    for name in names:
        if name in EXPENSIVE:
            # every statistic draws the same random numbers, whether the others are loaded or measured
            generator = torch.Generator(context.generator.device)
            generator.set_state(state)
            values[name] = _load_layers(name, replace(context, generator=generator))
    return values


def measure_dense(
    names: Iterable[str], model: nn.Module, train: Split, images: int, say: Callable[[str], None] = lambda line: None
) -> dict[str, dict[str, Tensor]]:
    """Loads or measures a search's statistics of its dense model, on a sample of `images` that is always the same."""
    generator = torch.Generator().manual_seed(0)
    sample = draw_sample(train, images, generator)
    return load_or_measure(names, Context(model, sample, generator, say))


def _load_layers(name: str, context: Context) -> dict[str, Tensor]:
    """Loads or measures one statistic, by layer: of all layers in one file, or of each layer in its own."""
    if name not in PER_LAYER:
        return _load_file(name, replace(context, layers=None))
    values: dict[str, Tensor] = {}
    for label in context.select_weights():
        values |= _load_file(name, replace(context, layers=[label]))
    return values


def _load_file(name: str, context: Context) -> dict[str, Tensor]:
    """Loads a statistic's file; where it is missing, measures the statistic and writes the file."""
    path = cache_dir() / f"{name}-{_hash_inputs(name, context)}.safetensors"
    device = next(context.model.parameters()).device
    if path.is_file():
        return {label: value.to(device) for label, value in load_file(path).items()}
    layers = "" if context.layers is None else f" of layer {', '.join(context.layers)}"
    context.say(f"measuring {name}{layers} on the dense model, once: {path}")
    values = statistics.statistics[name](context)
    files.write_bytes(path, save({label: value.cpu().contiguous() for label, value in values.items()}))
    return values


def _hash_inputs(name: str, context: Context) -> str:
    """Hashes everything that determines a statistic's values."""
    digest = hashlib.sha256(repr((name, context.layers, _read_settings(name))).encode())
    for label, weight in (*context.model.state_dict().items(), *prunable(context.model).items()):
        digest.update(label.encode() + _to_bytes(weight))
    digest.update(_to_bytes(context.sample.inputs) + _to_bytes(context.sample.labels))
    return digest.hexdigest()[:32]


def _read_settings(statistic: str) -> Mapping[str, float]:
    module, names = SETTINGS[statistic]
    return {name: getattr(module, name) for name in names}


def _to_bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.dim() else b""
