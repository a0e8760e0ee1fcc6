"""Prune one model by hand, or test one: what `tune-prune prune` and `tune-prune test` do.

What to prune one model to: layers and ratios by hand, a .conf file, or the conf that comes with the model.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tune_prune.common.errors import UserError, format_names
from tune_prune.pruning import checkpoint, criteria, iterative, masks
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.pruning.granularity import granularities
from tune_prune.pruning.iterative import State
from tune_prune.pruning.layerwise import PruneStep, prune_layerwise
from tune_prune.pruning.plan import MODES, Plan, schedules
from tune_prune.results import conf
from tune_prune.results.conf import Conf
from tune_prune.tasks.metrics import evaluate, logits
from tune_prune.tasks.models import WEIGHTS, build, to_device
from tune_prune.tasks.splits import Data
from tune_prune.training.loop import steps_for, steps_per_epoch

PRUNED_LENET5 = WEIGHTS / "lenet5-pruned.safetensors"
"""lenet5 pruned with torch7-pruner's ratios (experiments/lenet5/shipped.conf): what `tune-prune test` shows."""


@dataclass(frozen=True)
class PruneOptions:
    """How to prune one model: one-shot or in `iterations` rounds, each retrained for `epochs` (0: not at all).

    `acc_tradeoff` in percentage points prunes a layer at a time and takes back what costs more; `l1` and `l2` are
    penalties on the weights while they are retrained, `distill` the dense model's share of the loss; for the rest see
    `plan.Plan`.
    """

    iterations: int = 1
    epochs: float = 0.0
    pruner: str = "mag"
    mode: str = "layer"
    granularity: str = "weight"
    schedule: str = "linear"
    lr: float = 0.01
    l1: float = 0.0
    l2: float = 0.0
    distill: float = 0.0
    scale_dropout: bool = False
    reload: bool = False
    acc_tradeoff: float | None = None
    allow_empty: bool = False
    seed: int = 0


def make_plan(wanted: Conf, settings: PruneOptions, epoch_steps: int) -> Plan:
    """The plan that reaches a conf; its third line, where it has one, names the pruners."""
    steps = steps_for(settings.epochs, epoch_steps)
    pruners = wanted.pruners or dict.fromkeys(wanted.ratios, settings.pruner)
    return Plan(
        wanted.ratios,
        pruners,
        rounds=settings.iterations,
        mode=settings.mode,
        granularity=settings.granularity,
        schedule=settings.schedule,
        steps=steps,
        final_steps=steps,
        lr=settings.lr,
        l1=settings.l1,
        weight_decay=settings.l2,
        reload=settings.reload,
        distill=settings.distill,
        scale_dropout=settings.scale_dropout,
    )


def open_model(name: str, path: Path | None) -> tuple[nn.Module, dict[str, Tensor]]:
    """A model and its masks: a checkpoint's, which must be of model `name`, or the dense model."""
    if path is None:
        model = load_dense_model(name, None, "--model")
        return model, masks.dense_masks(model)
    saved = checkpoint.read(path)
    if saved.model != name:
        raise UserError(f"--checkpoint {path}: holds model {saved.model!r}, not {name!r}; name it with --model")
    return checkpoint.restore(saved, str(path))


def prune(
    name: str,
    start: Path | None,
    data: Data,
    wanted: Conf,
    settings: PruneOptions,
    device: torch.device,
    source: str,
    resumed: Callable[[nn.Module], tuple[State, list[PruneStep]]] | None = None,
) -> tuple[State, Plan, Iterator[PruneStep]]:
    """A state, and the points that it goes through as they are drawn: pruned, retrained, measured on validation.

    `resumed` says of a copy of the model how far it had come, by which points, where the way is gone on with.
    """
    model, mask = open_model(name, start)
    masks.require_layers(model, wanted.ratios, source)
    _check_names(wanted, settings, source)
    if not settings.allow_empty:
        _check_left(wanted, model, source)
    model = to_device(model, device)
    state = State(model, {label: kept.to(device) for label, kept in mask.items()})
    plan = make_plan(wanted, settings, steps_per_epoch(len(data.train.labels), Plan.batch_size))
    train, validation = data.train.to(device), data.validation.to(device)
    teacher = logits(model, train.inputs).clone() if settings.distill else None
    onward, done = (None, []) if resumed is None else resumed(copy.deepcopy(model))
    if settings.acc_tradeoff is None:
        points = iterative.prune(state, plan, train, validation, settings.seed, teacher, onward=onward)
        return state, plan, (PruneStep(point) for point in points)
    steps = prune_layerwise(state, plan, train, validation, settings.seed, settings.acc_tradeoff, teacher, onward, done)
    return state, plan, steps


def _check_names(wanted: Conf, settings: PruneOptions, source: str) -> None:
    """Raise a `UserError` for a pruner, schedule or mode that there is not; pruning would meet it late, or never."""
    schedules[settings.schedule], granularities[settings.granularity]
    if settings.mode not in MODES:
        raise UserError(f"--mode must be one of {format_names(MODES)}, got {settings.mode!r}")
    if settings.mode == "global" and len(set(wanted.ratios.values())) > 1:
        raise UserError(f"{source}: --mode global takes one ratio for all layers together, got several")
    if settings.mode == "global" and settings.acc_tradeoff is not None:
        raise UserError("--acc-tradeoff prunes layer by layer; leave out --mode global")
    if settings.mode == "global" and len(set((wanted.pruners or {}).values())) > 1:
        raise UserError(f"{source}: --mode global compares the scores of all layers; take one pruner, not several")
    for name in (wanted.pruners or {"": settings.pruner}).values():
        try:
            criteria.find_criterion(name)
        except UserError as error:
            raise UserError(f"{source if wanted.pruners else '--pruner'}: {error}") from error


def _check_left(wanted: Conf, model: nn.Module, source: str) -> None:
    """Raise a `UserError` for a ratio that leaves a layer no weight at all: nothing gets through it any more."""
    for label, weight in masks.prunable(model).items():
        total = weight.numel()
        if label in wanted.ratios and masks.count_removed(wanted.ratios[label], total) == total:
            rule = f"ratio {wanted.ratios[label]:g} leaves none of the {total:,} weights of layer {label}"
            raise UserError(f"{source}: {rule}; lower it, or add --allow-empty")


def count_layers(mask: dict[str, Tensor]) -> dict[str, dict[str, int]]:
    """Per layer: weights in all, and kept."""
    return {label: {"total": total, "kept": kept} for label, (kept, total) in masks.kept_counts(mask).items()}


def test_checkpoint(path: Path, data: Data, device: torch.device, say: Callable[[str], None]) -> dict[str, object]:
    """Test error in percent, compression, and per layer what is kept, of a checkpoint file."""
    model, mask = checkpoint.restore(checkpoint.read(path), str(path))
    error = evaluate(to_device(model, device), data.load_test().to(device)).error
    for line in describe_layers(mask):
        say(line)
    return {"compression": masks.compression(mask), "test_error": error, "layers": count_layers(mask)}


def describe_layers(mask: dict[str, Tensor]) -> list[str]:
    """Per layer what is retained, and the total compression with 14 digits, as torch7-pruner printed it."""
    lines = [
        f"layer {label}: retained {kept:,} of {total:,} ({100 * kept / total:.2f} %)"
        for label, (kept, total) in masks.kept_counts(mask).items()
    ]
    compressed = masks.compression(mask)
    return [*lines, f"total compression {compressed:.14f} ({masks.factor(compressed):.1f}x)"]


CONFS = Path(__file__).parent / "confs"
"""The built-in models' own configurations, one `<model>.conf` each."""


def model_conf(model: str) -> Path:
    """The conf that comes with a built-in model."""
    path = CONFS / f"{model}.conf"
    if not path.is_file():
        raise UserError(f"model {model!r} has no conf of its own; give --conf FILE, or --layer and --ratio")
    return path


def choose_target(layers: list[str], ratios: list[float], path: Path | None, model: str, mode: str) -> tuple[Conf, str]:
    """What to prune, and what messages call it: layers by hand, else a conf file, else the model's own conf.

    In mode "global" one ratio without layers is that of all of them.
    """
    if not layers and len(ratios) == 1 and mode == "global" and path is None:
        labels = masks.prunable(build(model))
        return Conf(dict.fromkeys(labels, _check_ratio(ratios[0], "all layers"))), "--ratio"
    if not layers and not ratios:
        path = path or model_conf(model)
        return conf.read(path), str(path)
    if path is not None:
        raise UserError("--conf and --layer exclude each other; leave one out")
    if len(layers) != len(ratios):
        raise UserError(f"--layer and --ratio go in pairs, got {len(layers)} and {len(ratios)}")
    for label, ratio in zip(layers, ratios, strict=True):
        if layers.count(label) > 1:
            raise UserError(f"--layer {label} is named {layers.count(label)} times; name each layer once")
        _check_ratio(ratio, f"layer {label}")
    return Conf(dict(zip(layers, ratios, strict=True))), "--layer"


def _check_ratio(ratio: float, of: str) -> float:
    if not 0 <= ratio < 1:
        raise UserError(f"--ratio must be in [0, 1), got {ratio:g} for {of}")
    return ratio
