"""What a pruning by hand is to reach, and by which options; both are checked before anything is pruned.

The target, ratios by layer, comes from the command line, from a .conf file, or from the conf of a built-in model.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from tune_prune.common.errors import UserError, describe_choice
from tune_prune.pruning import criteria, masks
from tune_prune.pruning.granularity import BLOCK, GROUPED, MIXTURES, check_layers, check_name
from tune_prune.pruning.plan import MODES, WEIGHTS, Plan, schedules
from tune_prune.results import conf
from tune_prune.results.conf import Conf
from tune_prune.tasks.models import build
from tune_prune.tasks.splits import AnySplit
from tune_prune.workflows.space_checks import check_group, check_width, count_removable

CONFS = Path(__file__).parent / "confs"
"""The confs of the built-in models, one `<model>.conf` each."""


def model_conf(model: str) -> Path:
    """The conf of a built-in model; a `UserError` where it has none."""
    path = CONFS / f"{model}.conf"
    if not path.is_file():
        raise UserError(f"model {model!r} has no conf of its own; give --conf FILE, or --layer and --ratio")
    return path


def choose_target(
    layers: list[str], ratios: list[float], path: Path | None, model: str, mode: str | None
) -> tuple[Conf, str]:
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
    multiple_of: int = 1
    min_width: int = 1
    schedule: str = "linear"
    lr: float = 0.01
    l1: float = 0.0
    l2: float = 0.0
    distill: float = 0.0
    batch_size: int = Plan.batch_size
    sample: int = Plan.sample
    scale_dropout: bool = False
    reload: bool = False
    acc_tradeoff: float | None = None
    allow_empty: bool = False
    force: bool = False
    seed: int = 0


def check_target(target: Conf, options: PruneOptions, model: nn.Module, source: str) -> None:
    """Raises a `UserError` that names `source` for unknown names, bad combinations, and layers left without weights."""
    schedules[options.schedule]
    check_name(options.granularity)
    grouped = options.granularity in GROUPED
    if grouped and options.mode == "global":
        which = f"--mode global and --granularity {options.granularity}"
        raise UserError(f"{which} exclude each other: each group has its own ratio")
    for flag, least in (("--multiple-of", options.multiple_of), ("--min-width", options.min_width)):
        if (not grouped or options.granularity == BLOCK) and least != 1:
            raise UserError(f"{flag} is of channels; add --granularity channel")
    if options.mode not in MODES:
        raise UserError(f"--mode {describe_choice(options.mode, MODES)}")
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
    check_layers(model, target.ratios, options.granularity, source)
    if not options.allow_empty and not grouped:
        _check_not_emptied(target, model, options.mode, source)


def check_no_mixture(target: Conf, source: str) -> None:
    """Raises a `UserError` that names `source` for a ratio of weights that channels leave, where no channels go."""
    for label in target.ratios:
        if label.startswith(WEIGHTS):
            known = " or ".join(MIXTURES)
            raise UserError(f"{source}: {label} are weights that channels leave; add --granularity {known}")


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


def check_channels(target: Conf, options: PruneOptions, model: nn.Module, train: AnySplit, source: str) -> None:
    """Raises a `UserError` that names `source` for a layer that names no group of channels, or a group left without."""
    channels = count_removable(model, train, source, options.granularity)
    for label, ratio in target.ratios.items():
        check_group(label, channels, source)
        count = channels.groups.get(label)  # of a layer's weights, every channel that stays keeps one
        if count is not None and round(ratio * count) == count and label not in channels.blocks:
            raise UserError(f"{source}: ratio {ratio:g} leaves none of the {count} channels of group {label}; lower it")
    check_width(channels, target.ratios, options.multiple_of, "--multiple-of")
    check_width(channels, target.ratios, options.min_width, "--min-width")
