"""Measures a dense model's expensive statistics once and caches them on disk.

A file's name holds a hash of everything that determines the values: the weights, the model's code, the sample, a loss
of the user's, the statistic and the settings of its module. So a file is never out of date, and it may be deleted at
any time. A file holds a hash of its values as well: one that is damaged, or has another's content, is measured again.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from tune_prune.common import files
from tune_prune.common.errors import UserError
from tune_prune.pruning import checkpoint, gates, loss_change, statistics
from tune_prune.pruning.masks import prunable
from tune_prune.pruning.statistics import Context
from tune_prune.tasks.fingerprints import hash_code, hash_function, hash_tensors, hash_texts
from tune_prune.tasks.splits import AnySplit

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


METADATA = "statistic"
"""The key of a file's metadata: the hashes of what its values were measured on, and of the values."""


def cache_dir() -> Path:
    """The folder of the files: `tune_prune` in the user's cache directory (XDG_CACHE_HOME, else ~/.cache).

    Raises OSError where the user has no home directory.
    """
    chosen = os.environ.get("XDG_CACHE_HOME")
    if not chosen and os.path.expanduser("~") == "~":
        raise OSError("the user has no home directory")
    return Path(chosen or Path.home() / ".cache") / "tune_prune"


def load_or_measure(names: Iterable[str], context: Context) -> dict[str, dict[str, Tensor]]:
    """Loads the expensive ones among the named statistics, by name and layer; measures those that have no file.

    Where files cannot be read or written, the statistics are measured all the same, and one line says so.
    """
    state = context.generator.get_state()
    values, failures = {}, list[str]()
    for name in names:
        if name in EXPENSIVE:
            # every statistic draws the same random numbers, whether the others are loaded or measured
            generator = torch.Generator(context.generator.device)
            generator.set_state(state)
            values[name] = _load_layers(name, replace(context, generator=generator), failures)
    if failures:
        context.say(f"{failures[0]}; they are measured again next time (XDG_CACHE_HOME names another folder for them)")
    return values


def measure_dense(
    names: Iterable[str], model: nn.Module, train: AnySplit, images: int, say: Callable[[str], None] = lambda line: None
) -> dict[str, dict[str, Tensor]]:
    """Loads or measures a search's statistics of its dense model, on a sample of `images` that is always the same."""
    generator = torch.Generator().manual_seed(0)
    sample = train.draw(images, generator)
    return load_or_measure(names, Context(model, sample, generator, say))


def _load_layers(name: str, context: Context, failures: list[str]) -> dict[str, Tensor]:
    """Loads or measures one statistic, by layer: of all layers in one file, or of each layer in its own."""
    if name not in PER_LAYER:
        return _load_file(name, replace(context, layers=None), failures)
    values: dict[str, Tensor] = {}
    for label in context.select_weights():
        values |= _load_file(name, replace(context, layers=[label]), failures)
    return values


def _load_file(name: str, context: Context, failures: list[str]) -> dict[str, Tensor]:
    """Loads a statistic's file; where it is missing or damaged, measures the statistic and writes the file.

    Where the file cannot be read or written, the reason is added to `failures`.
    """
    key = _hash_inputs(name, context)
    try:
        path = cache_dir() / f"{name}-{key}.safetensors"
        kept = _read_values(path, key, context.say)
    except OSError as error:
        path, kept = None, None
        failures.append(f"statistics cannot be kept on disk ({error})")
    if kept is not None:
        device = next(context.model.parameters()).device
        return {label: value.to(device) for label, value in kept.items()}
    layers = "" if context.layers is None else f" of layer {', '.join(context.layers)}"
    context.say(f"measuring {name}{layers} on the dense model{f', once: {path}' if path else ''}")
    values = statistics.statistics[name](context)
    if path is not None:
        stored = {label: value.cpu().contiguous() for label, value in values.items()}
        metadata = {METADATA: json.dumps({"inputs": key, "values": hash_tensors(dict(sorted(stored.items())))})}
        try:
            files.write_bytes(path, save(stored, metadata))
        except OSError as error:
            failures.append(f"statistics cannot be kept on disk ({error})")
    return values


def _read_values(path: Path, key: str, say: Callable[[str], None]) -> dict[str, Tensor] | None:
    """Reads a statistic's file; None where it is missing, and where its content is not what was written.

    The latter is said, and the file is removed. Raises OSError where it cannot be read.
    """
    try:
        path.stat()
    except FileNotFoundError:
        return None
    try:
        header, values = checkpoint.read_tensors(path, METADATA)
        if header == {"inputs": key, "values": hash_tensors(dict(sorted(values.items())))}:
            return values
        reason = "its values are not those that were measured"
    except UserError:
        reason = "it cannot be read"
    path.unlink()
    say(f"{path}: damaged, {reason}; removed, and measured again")
    return None


def _hash_inputs(name: str, context: Context) -> str:
    """Hashes everything that determines a statistic's values."""
    settings = repr((name, context.layers, _read_settings(name)))
    weights = context.model.state_dict() | {f"layer {label}": w for label, w in prunable(context.model).items()}
    sample, loss = repr(context.sample.fingerprint()), context.sample.objective.settings.loss
    functions = [hash_function(loss)] if loss else []
    return hash_texts([settings, hash_code(context.model), hash_tensors(weights), sample, *functions])


def _read_settings(statistic: str) -> Mapping[str, float]:
    module, names = SETTINGS[statistic]
    return {name: getattr(module, name) for name in names}
