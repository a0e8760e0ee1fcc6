"""Plans the initial trials of a search: levels of compression, spread over the layers by their loss curves.

A layer's loss curve is measured by pruning the layer alone, without retraining. Where a network begins to break, the
loss rises with the share that is kept close to a power law, and a power law is fitted there (`hpo/groups.py`). The
measured curve itself would mislead: it ends at the loss of a network that guesses at random, as if a broken layer could
as well be removed whole. Each level then takes the ratios that reach its compression at the least rise of the loss.
"""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from tune_prune.common.errors import UserError, describe_error
from tune_prune.common.typecheck import check_fields, fits_type
from tune_prune.hpo.config import Config
from tune_prune.hpo.groups import GroupedRatio, LossCurve, allocate_weights
from tune_prune.hpo.parameters import Choice, Domain, Range
from tune_prune.hpo.scheduler import InitialPoint
from tune_prune.hpo.space import Space
from tune_prune.pruning import sensitivity
from tune_prune.pruning.channels.counting import ChannelCounts
from tune_prune.pruning.sensitivity import SensitivityJob
from tune_prune.pruning.statistics import CachedStatistics
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.task import Task
from tune_prune.workflows.console import SearchConsole
from tune_prune.workflows.preparation import Prepared, cached_statistics

GRID = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)
"""The ratios at which a layer's curve is measured."""

RISES = (0.003, 1.0)
"""The rises of the loss, in nats, between which curves are fitted: above noise, and below breaking down."""

IMAGES = 1000
"""Training images on which the loss is measured, unless that would take too long."""

LEAST_IMAGES, SHARE = 100, 0.1
"""The fewest images that give a usable curve; and the most time for measuring, as a share of the training time."""

POWERS = (0.5, 6.0)
"""The bounds of a fitted power."""

UNMEASURED = 2.0
"""The power of a layer with too few ratios between the rises: a typical value of fitted ones."""


def count_images(trained_on: float, layers: int) -> int:
    """The number of images to measure `layers` layers on, for a search that trains on `trained_on` images with repeats.

    0 where it would be less than `LEAST_IMAGES`. An image costs about three times as much in training as in measuring.
    """
    images = int(SHARE * 3 * trained_on / (layers * len(GRID)))
    return min(IMAGES, images) if images >= LEAST_IMAGES else 0


def measure_curves(
    task: Task,
    ratios: Mapping[str, Domain],
    pruner: str,
    device: torch.device,
    cached: CachedStatistics | None = None,
    images: int = IMAGES,
    granularity: str = "weight",
    on_result: Callable[[], None] = lambda: None,
) -> dict[str, LossCurve]:
    """Measures and fits the curves of layers, by label. The domains of their ratios bound the shares to keep.

    `on_result` is called after each measurement.
    """
    sample = task.train.draw(images, torch.Generator().manual_seed(0))
    sampled = replace(task, validation=sample).to(device)
    dense = evaluate(sampled.dense_model(device), sampled.validation).loss
    jobs = [SensitivityJob(layer, pruner, ratio, granularity=granularity) for layer in ratios for ratio in GRID]
    rises: dict[str, list[tuple[float, float]]] = {layer: [] for layer in ratios}
    weights = {}
    for result in sensitivity.measure_without_retraining(sampled, jobs, device, cached):
        on_result()
        weights[result.job.layer] = result.total
        rises[result.job.layer].append((result.kept / result.total, result.val_loss - dense))
    return {layer: LossCurve(weights[layer], *_fit(rises[layer]), *_bounds(domain)) for layer, domain in ratios.items()}


def _fit(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Fits scale and power to pairs (kept share, rise of the loss) within `RISES`: least squares in logarithms."""
    used = [(math.log(keep), math.log(rise)) for keep, rise in points if RISES[0] < rise < RISES[1] and keep > 0]
    if not used:  # the layer loses nothing at any measured ratio, or breaks at the first
        keep, rise = min(points, key=lambda point: abs(point[1] - RISES[0]))
        return max(rise, RISES[0]) * max(keep, 1e-3) ** UNMEASURED, UNMEASURED
    x, y = [u for u, _ in used], [v for _, v in used]
    middle, height = sum(x) / len(x), sum(y) / len(y)
    spread = sum((u - middle) ** 2 for u in x)
    slope = sum((u - middle) * (v - height) for u, v in used) / spread if spread else -UNMEASURED
    power = min(max(-slope, POWERS[0]), POWERS[1])
    return math.exp(height + power * middle), power


def _bounds(domain: Domain) -> tuple[float, float]:
    """The lowest and the highest share that a layer may keep."""
    if isinstance(domain, Range):
        return 1 - domain.high, 1 - domain.low
    ratios = [float(ratio) for ratio in (domain.options if isinstance(domain, Choice) else [domain])]
    return 1 - max(ratios), 1 - min(ratios)


def compression_levels(
    curves: Mapping[str, LossCurve],
    others: int,
    factors: Sequence[float],
    channels: ChannelCounts | None = None,
) -> Iterator[dict[str, float]]:
    """Yields for each factor, ascending, the ratios of all layers that reach it at the least rise of the loss.

    `others` counts the weights of layers that are not pruned; `channels` count those of groups of channels. Where the
    bounds keep a level from its factor it comes as near as they allow; a level equal to the one before is left out. No
    ratio falls from one level to the next.
    """
    total = channels.total if channels else others + sum(curve.weights for curve in curves.values())
    before: dict[str, float] = {}
    for factor in factors:
        if channels is None:
            shares = allocate_weights(curves, total / factor - others)
        else:
            shares = allocate_weights(curves, total / factor, channels.left)
        ratios = {layer: 1 - share for layer, share in shares.items()}
        if ratios != before:
            yield ratios
        before = ratios


def space_factors(count: int, first: float, last: float) -> list[float]:
    """Spaces `count` factors evenly in their logarithm, from `first` to `last`."""
    if count == 1:
        return [first]
    return [first * (last / first) ** (i / (count - 1)) for i in range(count)]


ANY_RATIO = Range(0.0, 0.9999)
"""The bounds of a layer's ratio in a group whose layers have different ratios."""


def plan_initial_trials(space: Space, prepared: Prepared, config: Config, console: SearchConsole) -> dict[str, Any]:
    """Plans the `levels` that a search begins with, and the `curves` that its groups need by layer, as plain values."""
    curves = _measure_layers(space, prepared, config, console)
    by_sensitivity = "sensitivity" in space.groups.values()
    return {
        "curves": {layer: asdict(curve) for layer, curve in curves.items()} if by_sensitivity else {},
        "levels": _plan_levels(space, prepared, curves, config),
    }


def read_planned(planned: Mapping[str, Any]) -> tuple[list[InitialPoint], dict[str, LossCurve]]:
    """The levels, and the curves by layer, in a result of `plan_initial_trials` that the study has kept.

    Raises a TypeError, LookupError or AttributeError where it is not as that function made it.
    """
    levels, curves = planned["levels"], {layer: LossCurve(**curve) for layer, curve in planned["curves"].items()}
    for curve in curves.values():
        check_fields(curve)
    if not fits_type(levels, list[dict[str, float | str | bool]]):
        raise TypeError("the levels are no parameters")
    return levels, curves


def _measure_layers(space: Space, prepared: Prepared, config: Config, console: SearchConsole) -> dict[str, LossCurve]:
    """Measures the curves of all layers that are pruned.

    There are none where nothing uses them; nor where measuring would take long compared with the search's training,
    unless a group scales by sensitivity.
    """
    asked = "sensitivity" in space.groups.values()
    if space.parameters.get("mode") == "global":
        return {}
    open_ratios = any(isinstance(domain, Range) for _, domain in space.ratios)
    if not asked and not (space.initial.trials and open_ratios):
        return {}
    ratios = _ratio_domains(space, prepared)
    images = count_images(_count_trained_images(space, prepared, config.budget), len(ratios))
    if not images and not asked:
        console.say("no initial levels: measuring the layers would take long compared with so little training")
        return {}
    pruner = _choose_pruner(space)
    cached = cached_statistics(space.with_pruners([pruner]), prepared.task, config, console.say)
    device = torch.device(config.resources.own_device)
    granularity = space.midpoint(prepared.info.ratio_shapes).to_plan().granularity
    try:
        count = images or LEAST_IMAGES
        with console.phase("measuring layers", len(ratios) * len(GRID)) as phase:
            return measure_curves(
                prepared.task, ratios, pruner, device, cached, count, granularity, on_result=phase.advance
            )
    except Exception as error:  # a user's pruner may raise anything; trials that take it fail by themselves
        reason = f"pruner {pruner} fails on the dense model ({describe_error(error)})"
        if asked:
            raise UserError(f"{space.source}: the layers cannot be measured: {reason}") from error
        console.say(f"no initial levels: {reason}")
        return {}


def _plan_levels(
    space: Space, prepared: Prepared, curves: Mapping[str, LossCurve], config: Config
) -> list[dict[str, object]]:
    """Plans the levels as parameters of trials, each more compressed than the one before.

    There are as many as the space asks for, but at most three or a fifth of the budget, whichever is more.
    """
    pooled = space.parameters.get("mode") == "global"
    if not space.initial.trials or not (curves or pooled):
        return []
    count = space.initial.trials if config.budget is None else min(space.initial.trials, max(3, config.budget // 5))
    factors = space_factors(count, space.initial.min_factor, space.initial.max_factor)
    totals, pruned = prepared.info.totals, _ratio_domains(space, prepared).keys()
    others = sum(total for label, total in totals.items() if label not in pruned)
    levels: Iterable[Mapping[str, float]] = compression_levels(curves, others, factors, prepared.info.channels)
    if pooled:  # the scores spread the weights over the layers, and so a level is one ratio
        inside, total = sum(totals.values()) - others, sum(totals.values())
        levels = [dict.fromkeys(pruned, 1 - max(total / factor - others, 0.0) / inside) for factor in factors]
    params = [space.level_params(ratios, _choose_pruner(space), prepared.info.ratio_shapes) for ratios in levels]
    return [one for at, one in enumerate(params) if one not in params[:at]]  # a group's bounds can make two equal


def _choose_pruner(space: Space) -> str:
    """Chooses the pruner for curves and levels: `mag` where the space has it, else its first."""
    return "mag" if "mag" in space.pruners else space.pruners[0]


def _ratio_domains(space: Space, prepared: Prepared) -> dict[str, Domain]:
    """The domains of the layers' ratios, by label."""
    params = space.parameters_for(prepared.info.ratio_shapes)
    domains: dict[str, Domain] = {}
    for name, domain in params.items():
        if name.startswith("ratio/") and isinstance(domain, GroupedRatio):
            drawn = params[domain.group.name]
            assert not isinstance(drawn, GroupedRatio)
            domains[name.removeprefix("ratio/")] = drawn if domain.group.scale == "same" else ANY_RATIO
        elif name.startswith("ratio/"):
            domains[name.removeprefix("ratio/")] = domain  # type: ignore[assignment]
    return domains


def _count_trained_images(space: Space, prepared: Prepared, budget: int | None) -> float:
    """Counts the images, with repeats, that `budget` trials train on, as if none of them was a refinement."""
    plan = space.midpoint(prepared.info.ratio_shapes).to_plan()
    steps = sum(plan.recipe_at(round_).steps for round_ in range(1, plan.rounds + 1))
    return sys.maxsize if budget is None else budget * steps * plan.batch_size
