"""Prunes one model by hand (`tune-prune prune`) and tests a pruned one (`tune-prune test`).

The target, ratios by layer, comes from the command line, from a .conf file, or from the conf of a built-in model.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tune_prune.common.errors import UserError, format_names
from tune_prune.pruning import checkpoint, criteria, iterative, masks
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.pruning.coverage import measure_coverage
from tune_prune.pruning.granularity import check_layers, granularities
from tune_prune.pruning.iterative import State
from tune_prune.pruning.layerwise import PruneStep, prune_layerwise
from tune_prune.pruning.plan import MODES, Plan, schedules
from tune_prune.results import conf
from tune_prune.results.conf import Conf, check_label
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.models import WEIGHTS, build, to_device
from tune_prune.tasks.splits import Data, Split
from tune_prune.tasks.task import check_compatible, check_trained
from tune_prune.training.loop import Teacher, check_training, steps_for

PRUNED_LENET5 = WEIGHTS / "lenet5-pruned.safetensors"
"""lenet5 pruned with torch7-pruner's ratios (experiments/lenet5/shipped.conf): what `tune-prune test` shows."""

CONFS = Path(__file__).parent / "confs"
"""The confs of the built-in models, one `<model>.conf` each."""


def model_conf(model: str) -> Path:
    """The conf of a built-in model; a `UserError` where it has none."""
    path = CONFS / f"{model}.conf"
    if not path.is_file():
        raise UserError(f"model {model!r} has no conf of its own; give --conf FILE, or --layer and --ratio")
    return path


def choose_target(layers: list[str], ratios: list[float], path: Path | None, model: str, mode: str) -> tuple[Conf, str]:
    """Chooses the target, and what messages call it: layers given by hand, else a conf file, else the model's own conf.

    In mode "global" a single ratio without layers is the ratio of all layers together.
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


def _check_ratio(ratio: float, owner: str) -> float:
    if not 0 <= ratio < 1:
        raise UserError(f"--ratio must be in [0, 1), got {ratio:g} for {owner}")
    return ratio


@dataclass(frozen=True)
class PruneOptions:
    """How to prune one model: one-shot or in `iterations` rounds, each retrained for `epochs` (0: not at all).

    With `acc_tradeoff`, in the metric's unit, layers are pruned one at a time, and a step that costs more is taken
    back. `l1` and `l2` are penalties on the weights during retraining, `distill` is the dense model's share of the
    loss; for the rest see `plan.Plan`. `force` also prunes a model that is near chance.
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
    batch_size: int = Plan.batch_size
    scale_dropout: bool = False
    reload: bool = False
    acc_tradeoff: float | None = None
    allow_empty: bool = False
    force: bool = False
    seed: int = 0


def prune(
    name: str,
    start: Path | None,
    data: Data,
    target: Conf,
    options: PruneOptions,
    device: torch.device,
    source: str,
    load_progress: Callable[[nn.Module], tuple[State, list[PruneStep]]] | None = None,
) -> tuple[State, Plan, Iterator[PruneStep]]:
    """Prepares the pruning of one model: its state, its plan, and an iterator that runs one step at a time.

    A step prunes, retrains and measures on validation images; it changes the state in place. `start` is a checkpoint
    to begin at instead of the dense model, and messages call the target `source`. To continue a pruning that was cut
    off, `load_progress` takes a copy of the model and returns the state that was reached and the steps that led there.
    """
    model, mask = open_model(name, start)
    masks.require_layers(model, target.ratios, source)
    for label in target.ratios:
        check_label(label, f"model {name!r}")
    _check_options(target, options, source)
    check_layers(model, target.ratios, options.granularity, source)
    if not options.allow_empty:
        _check_not_emptied(target, model, options.mode, source)
    model = to_device(model, device)
    check_compatible(name, model, data, device, check_test=True)
    state = State(model, {label: kept.to(device) for label, kept in mask.items()})
    plan = make_plan(target, options, data.train.steps(options.batch_size))
    train, validation = data.train.to(device), data.validation.to(device)
    check_trained(name, evaluate(model, validation), data.validation, options.force)
    if options.epochs:
        check_training(model, train, options.distill)
    teacher: Teacher | None = None
    if options.distill:
        teacher = copy.deepcopy(model)
        if isinstance(train, Split) and train.objective.fit_function is None:
            teacher = train.scores(model).clone()
    reached, done = (None, []) if load_progress is None else load_progress(copy.deepcopy(model))
    if options.acc_tradeoff is None:
        points = iterative.prune(state, plan, train, validation, options.seed, teacher, resume_from=reached)
        return state, plan, (PruneStep(point) for point in points)
    steps = prune_layerwise(state, plan, train, validation, options.seed, options.acc_tradeoff, teacher, reached, done)
    return state, plan, steps


def open_model(name: str, path: Path | None) -> tuple[nn.Module, dict[str, Tensor]]:
    """Loads a model and its masks from a checkpoint, which must be of model `name`, or else the dense model."""
    if path is None:
        model = load_dense_model(name, None, "--model")
        return model, masks.dense_masks(model)
    saved = checkpoint.read(path)
    if saved.model != name:
        raise UserError(f"--checkpoint {path}: holds model {saved.model!r}, not {name!r}; name it with --model")
    return checkpoint.restore(saved, str(path))


def make_plan(target: Conf, options: PruneOptions, epoch_steps: int) -> Plan:
    """The plan that reaches a target; pruners that the target names go before the options' pruner."""
    steps = steps_for(options.epochs, epoch_steps)
    pruners = target.pruners or dict.fromkeys(target.ratios, options.pruner)
    return Plan(
        target.ratios,
        pruners,
        rounds=options.iterations,
        mode=options.mode,
        granularity=options.granularity,
        schedule=options.schedule,
        steps=steps,
        final_steps=steps,
        lr=options.lr,
        l1=options.l1,
        weight_decay=options.l2,
        batch_size=options.batch_size,
        reload=options.reload,
        distill=options.distill,
        scale_dropout=options.scale_dropout,
        allow_empty=options.allow_empty,
    )


def _check_options(target: Conf, options: PruneOptions, source: str) -> None:
    """Raises a `UserError` for an unknown name or a bad combination, before anything is pruned."""
    schedules[options.schedule], granularities[options.granularity]
    if options.mode not in MODES:
        raise UserError(f"--mode must be one of {format_names(MODES)}, got {options.mode!r}")
    if options.mode == "global" and len(set(target.ratios.values())) > 1:
        raise UserError(f"{source}: --mode global takes one ratio for all layers together, got several")
    if options.mode == "global" and options.acc_tradeoff is not None:
        raise UserError("--acc-tradeoff prunes layer by layer; leave out --mode global")
    if options.mode == "global" and len(set((target.pruners or {}).values())) > 1:
        raise UserError(f"{source}: --mode global compares the scores of all layers; take one pruner, not several")
    for name in (target.pruners or {"": options.pruner}).values():
        try:
            criteria.find_criterion(name)
        except UserError as error:
            raise UserError(f"{source if target.pruners else '--pruner'}: {error}") from error


def _check_not_emptied(target: Conf, model: nn.Module, mode: str, source: str) -> None:
    """Raises a `UserError` for a ratio that leaves a layer no weight at all: no signal would pass it."""
    totals = {label: weight.numel() for label, weight in masks.prunable(model).items() if label in target.ratios}
    advice = "lower it, or add --allow-empty"
    if mode == "global" and totals:  # scores decide how much each layer loses, and each keeps a weight
        total, ratio = sum(totals.values()), next(iter(target.ratios.values()))
        left = total - masks.count_removed(ratio, total)
        if left < len(totals):
            rule = f"ratio {ratio:g} leaves {left} of the {total:,} weights of {len(totals)} layers"
            raise UserError(f"{source}: {rule}; {advice}")
        return
    for label, total in totals.items():
        if masks.count_removed(target.ratios[label], total) == total:
            rule = f"ratio {target.ratios[label]:g} leaves none of the {total:,} weights of layer {label}"
            raise UserError(f"{source}: {rule}; {advice}")


def test_checkpoint(path: Path, data: Data, device: torch.device, say: Callable[[str], None]) -> dict[str, Any]:
    """Measures a checkpoint file: compression, the metric on test images, and the weights that each layer keeps."""
    saved = checkpoint.read(path)
    model, mask = checkpoint.restore(saved, str(path))
    model = to_device(model, device)
    check_compatible(saved.model, model, data, device, check_test=True)
    test = data.load_test().to(device)
    value = evaluate(model, test).metric
    for line in describe_layers(model, mask):
        say(line)
    return {"compression": masks.compression(mask), test.objective.metric.test: value, "layers": count_layers(mask)} | {
        "coverage": measure_coverage(model).to_dict()
    }


def count_layers(mask: dict[str, Tensor]) -> dict[str, dict[str, int]]:
    """Counts the weights of each layer: all of them, and those that are kept."""
    return {label: {"total": total, "kept": kept} for label, (kept, total) in masks.kept_counts(mask).items()}


def describe_layers(model: nn.Module, mask: dict[str, Tensor]) -> list[str]:
    """A line for each layer with the weights it retains, the compression with 14 digits, and what that counts."""
    lines = [
        f"layer {label}: retained {kept:,} of {total:,} ({100 * kept / total:.2f} %)"
        for label, (kept, total) in masks.kept_counts(mask).items()
    ]
    compressed = masks.compression(mask)
    total = f"total compression {compressed:.14f} ({masks.factor(compressed):.1f}x)"
    return [*lines, total, measure_coverage(model).describe()]
