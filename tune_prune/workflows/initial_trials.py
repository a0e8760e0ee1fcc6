"""First guesses: each layer pruned alone, without retraining, tells how to spend a loss best over the layers.

Where networks begin to break, the rise of the loss over the share that a layer keeps is close to a power law, and so
one is fitted there (`curves.py`): a measured curve ends at the loss of a network that guesses, and would say that a
broken layer can as well be removed whole. A few levels of what the curves say make the guesses.

What a search knows before its first trial: the layers' curves where they are wanted, and first levels.
"""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from tune_prune.common.errors import UserError
from tune_prune.hpo.config import Config
from tune_prune.hpo.groups import GroupedRatio, LossCurve, allocate_weights
from tune_prune.hpo.parameters import Choice, Domain, Range
from tune_prune.hpo.space import Space, to_plan
from tune_prune.pruning import sensitivity
from tune_prune.pruning.sensitivity import SensitivityJob
from tune_prune.pruning.statistics import CachedStatistics, draw_sample
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.task import Task
from tune_prune.workflows.preparation import Prepared, cached_statistics

GRID = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)
RISES = (0.003, 1.0)
"""The rises of the loss, in nats, between which curves are fitted: above noise, and below breaking down."""

IMAGES = 1000
"""Training images that the loss is measured on, where that is little beside what the search will train on."""

LEAST_IMAGES, SHARE = 100, 0.1
"""Fewer tell nothing, and measuring takes no more than this share of what training will take."""

POWERS = (0.5, 6.0)
"""What a fitted power is kept within."""

UNMEASURED = 2.0
"""The power where too few ratios of a layer lie between the rises: what is typical of those that can be fitted."""


def count_images(trained_on: float, layers: int) -> int:
    """How many images to measure so many layers on, where a search will train on `trained_on` images, repeats counted.

    None where that would be too few. A step of training costs about three times as much an image as measuring.
    """
    images = int(SHARE * 3 * trained_on / (layers * len(GRID)))
    return min(IMAGES, images) if images >= LEAST_IMAGES else 0


def measure_curves(
    task: Task,
    ratios: Mapping[str, Domain],
    pruner: str,
    device: torch.device,
    known: CachedStatistics | None = None,
    images: int = IMAGES,
    granularity: str = "weight",
) -> dict[str, LossCurve]:
    """The curves of the layers with these ratios, by label: fixed numbers, or ranges that bound what is kept."""
    sample = draw_sample(task.train, images, torch.Generator().manual_seed(0))
    on = replace(task, validation=sample).to(device)
    dense = evaluate(on.dense_model(device), on.validation).loss
    cells = [SensitivityJob(layer, pruner, ratio, granularity=granularity) for layer in ratios for ratio in GRID]
    found: dict[str, list[tuple[float, float]]] = {layer: [] for layer in ratios}
    weights = {}
    for sensed in sensitivity.measure_without_retraining(on, cells, device, known):
        weights[sensed.cell.layer] = sensed.total
        found[sensed.cell.layer].append((sensed.kept / sensed.total, sensed.val_loss - dense))
    return {layer: LossCurve(weights[layer], *_fit(found[layer]), *_bounds(domain)) for layer, domain in ratios.items()}


def _fit(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Scale and power by least squares in logarithms, over the (keep, rise) between the rises that count."""
    used = [(math.log(keep), math.log(rise)) for keep, rise in points if RISES[0] < rise < RISES[1] and keep > 0]
    if not used:  # all or nothing: the layer is safe as far as it is measured, or breaks at once
        keep, rise = min(points, key=lambda point: abs(point[1] - RISES[0]))
        return max(rise, RISES[0]) * max(keep, 1e-3) ** UNMEASURED, UNMEASURED
    x, y = [u for u, _ in used], [v for _, v in used]
    middle, height = sum(x) / len(x), sum(y) / len(y)
    spread = sum((u - middle) ** 2 for u in x)
    slope = sum((u - middle) * (v - height) for u, v in used) / spread if spread else -UNMEASURED
    power = min(max(-slope, POWERS[0]), POWERS[1])
    return math.exp(height + power * middle), power


def _bounds(domain: Domain) -> tuple[float, float]:
    if isinstance(domain, Range):
        return 1 - domain.high, 1 - domain.low
    ratios = [float(ratio) for ratio in (domain.options if isinstance(domain, Choice) else [domain])]
    return 1 - max(ratios), 1 - min(ratios)


def compression_levels(
    curves: Mapping[str, LossCurve], others: int, factors: Sequence[float]
) -> Iterator[dict[str, float]]:
    """For each factor, ascending, the ratios of all layers that reach it at the least rise of the loss.

    `others` are the weights of layers that are not pruned. What the bounds do not allow comes as near as they do; a
    level that is no further than the one before is left out. No ratio falls from one level to the next.
    """
    total = others + sum(curve.weights for curve in curves.values())
    before: dict[str, float] = {}
    for factor in factors:
        ratios = {layer: 1 - share for layer, share in allocate_weights(curves, total / factor - others).items()}
        if ratios != before:
            yield ratios
        before = ratios


def space_factors(count: int, first: float, last: float) -> list[float]:
    """So many factors, evenly spaced in their logarithm."""
    if count == 1:
        return [first]
    return [first * (last / first) ** (i / (count - 1)) for i in range(count)]


ANY_RATIO = Range(0.0, 0.9999)
"""What a layer's ratio may be where its group's is spread unevenly."""


def plan_initial_trials(space: Space, prepared: Prepared, config: Config, say: Callable[[str], None]) -> dict[str, Any]:
    """`curves` by layer where a group goes by them, and the `levels` that a search begins with; plain values."""
    found = _layer_curves(space, prepared, config, say)
    by_sensitivity = "sensitivity" in space.groups.values()
    return {
        "curves": {layer: asdict(curve) for layer, curve in found.items()} if by_sensitivity else {},
        "levels": _initial_levels(space, prepared, found, config),
    }


def stored_curves(first: Mapping[str, Any]) -> dict[str, LossCurve]:
    """The curves that `first` found."""
    return {layer: LossCurve(**curve) for layer, curve in first["curves"].items()}


def _layer_curves(space: Space, prepared: Prepared, config: Config, say: Callable[[str], None]) -> dict[str, LossCurve]:
    """The curves of all layers that are pruned.

    None where nothing goes by them, or where measuring them would take long beside what the search itself will train
    and no group asks for them by name.
    """
    asked = "sensitivity" in space.groups.values()
    if space.parameters.get("mode") == "global":
        return {}
    open_ratios = any(isinstance(domain, Range) for _, domain in space.ratios)
    if not asked and not (space.initial.trials and open_ratios):
        return {}
    made, ratios = prepared.task, _ratio_domains(space, prepared)
    images = count_images(_images_trained_on(space, prepared, config.budget), len(ratios))
    if not images and not asked:
        say("no first levels: measuring each layer alone would take long beside so little training")
        return {}
    known = cached_statistics(space.with_pruners([_pruner(space)]), made, config, say)
    device = torch.device(config.own_device)
    as_one = to_plan(space.midpoint(prepared.info.shapes)).granularity
    try:
        return measure_curves(made, ratios, _pruner(space), device, known, images or LEAST_IMAGES, as_one)
    except Exception as error:  # a user's pruner may raise anything; trials that take it fail by themselves
        told = f"pruner {_pruner(space)} fails on the dense model ({type(error).__name__}: {error})"
        if asked:
            raise UserError(f"{space.source}: the layers cannot be measured: {told}") from error
        say(f"no first levels: {told}")
        return {}


def _initial_levels(
    space: Space, prepared: Prepared, curves: Mapping[str, LossCurve], config: Config
) -> list[dict[str, object]]:
    """The guesses that the curves make: level by level more compressed, as many as the budget has room for."""
    pooled = space.parameters.get("mode") == "global"
    if not space.initial.trials or not (curves or pooled):
        return []
    count = space.initial.trials if config.budget is None else min(space.initial.trials, max(3, config.budget // 5))
    factors = space_factors(count, space.initial.min_factor, space.initial.max_factor)
    totals, pruned = prepared.info.totals, _ratio_domains(space, prepared).keys()
    others = sum(total for label, total in totals.items() if label not in pruned)
    levels: Iterable[Mapping[str, float]] = compression_levels(curves, others, factors)
    if pooled:  # the scores say what goes from where; only how much is left to guess
        inside, total = sum(totals.values()) - others, sum(totals.values())
        levels = [dict.fromkeys(pruned, 1 - max(total / factor - others, 0.0) / inside) for factor in factors]
    found = [space.level_params(one, _pruner(space), prepared.info.shapes) for one in levels]
    return [one for at, one in enumerate(found) if one not in found[:at]]  # a group's bounds can make two the same


def _pruner(space: Space) -> str:
    """With what curves are measured and levels pruned."""
    return "mag" if "mag" in space.pruners else space.pruners[0]


def _ratio_domains(space: Space, prepared: Prepared) -> dict[str, Domain]:
    """What each layer's ratio is drawn from, by layer."""
    params = space.parameters_for(prepared.info.shapes)
    own: dict[str, Domain] = {}
    for name, domain in params.items():
        if name.startswith("ratio/") and isinstance(domain, GroupedRatio):
            drawn = params[domain.group.name]
            assert not isinstance(drawn, GroupedRatio)
            own[name.removeprefix("ratio/")] = drawn if domain.group.scale == "same" else ANY_RATIO
        elif name.startswith("ratio/"):
            own[name.removeprefix("ratio/")] = domain  # type: ignore[assignment]
    return own


def _images_trained_on(space: Space, prepared: Prepared, budget: int | None) -> float:
    """How many images so many trials train on, repeats counted, without those that finish others."""
    plan = to_plan(space.midpoint(prepared.info.shapes))
    steps = sum(plan.recipe_at(round_).steps for round_ in range(1, plan.rounds + 1))
    return sys.maxsize if budget is None else budget * steps * plan.batch_size
