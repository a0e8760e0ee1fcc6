"""Prunes one model by hand (`tune-prune prune`) and tests a pruned one (`tune-prune test`)."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tune_prune.common.errors import UserError
from tune_prune.pruning import checkpoint, iterative, masks
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.pruning.coverage import measure_coverage
from tune_prune.pruning.granularity import GROUPED
from tune_prune.pruning.iterative import State
from tune_prune.pruning.layerwise import PruneStep, prune_layerwise
from tune_prune.pruning.plan import Plan
from tune_prune.results.conf import Conf, check_label
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.models import WEIGHTS, to_device
from tune_prune.tasks.splits import Data, Split
from tune_prune.tasks.task import check_compatible, check_trained
from tune_prune.training.loop import Teacher, check_training, steps_for
from tune_prune.workflows.prune_target import PruneOptions, check_channels, check_no_mixture, check_target

PRUNED_LENET5 = WEIGHTS / "lenet5-pruned.safetensors"
"""lenet5 pruned with torch7-pruner's ratios (experiments/lenet5/shipped.conf): what `tune-prune test` shows."""


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
    if options.granularity not in GROUPED:
        check_no_mixture(target, source)
        masks.require_layers(model, target.ratios, source)
    for label in target.ratios:
        check_label(label, f"model {name!r}")
    check_target(target, options, model, source)
    model = to_device(model, device)
    check_compatible(name, model, data, device, check_test=True)
    if options.granularity in GROUPED:
        check_channels(target, options, model, data.train.to(device), source)
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
        model = load_dense_model(name, None, "--")
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
        multiple_of=options.multiple_of,
        min_width=options.min_width,
        schedule=options.schedule,
        steps=steps,
        final_steps=steps,
        lr=options.lr,
        l1=options.l1,
        weight_decay=options.l2,
        batch_size=options.batch_size,
        sample=options.sample,
        reload=options.reload,
        distill=options.distill,
        scale_dropout=options.scale_dropout,
        allow_empty=options.allow_empty,
    )


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
