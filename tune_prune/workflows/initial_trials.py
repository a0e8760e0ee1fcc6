"""Plans the initial trials of a search: levels of compression, spread over the layers by their loss curves.

Each level takes the ratios that reach its compression at the least rise of the loss, by the curves of `loss_curves`.
"""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from tune_prune.common.errors import UserError, describe_error
from tune_prune.common.typecheck import check_fields, fits_type
from tune_prune.hpo.config import Config
from tune_prune.hpo.groups import GroupedRatio, LossCurve, allocate_weights
from tune_prune.hpo.parameters import Domain, Range
from tune_prune.hpo.search_settings import InitialPoint
from tune_prune.hpo.space import Space
from tune_prune.workflows.console import SearchConsole
from tune_prune.workflows.loss_curves import GRID, LEAST_IMAGES, count_images, measure_curves
from tune_prune.workflows.preparation import Prepared, cached_statistics


def compression_levels(
    curves: Mapping[str, LossCurve],
    others: int,
    factors: Sequence[float],
    count_left: Callable[[Mapping[str, float]], float] | None = None,
) -> Iterator[dict[str, float]]:
    """Yields for each factor, ascending, the ratios of all layers that reach it at the least rise of the loss.

    `others` counts the weights of layers that are not pruned. Of groups of channels, `count_left` counts the weights
    that their ratios leave in all. Where the bounds keep a level from its factor it comes as near as they allow; a
    level equal to the one before is left out. No ratio falls from one level to the next.
    """
    total = count_left({}) if count_left else others + sum(curve.weights for curve in curves.values())
    before: dict[str, float] = {}
    for factor in factors:
        if count_left is None:
            shares = allocate_weights(curves, total / factor - others)
        else:
            shares = allocate_weights(curves, total / factor, lambda kept: count_left(_to_ratios(kept)))
        ratios = _to_ratios(shares)
        if ratios != before:
            yield ratios
        before = ratios


def _to_ratios(shares: Mapping[str, float]) -> dict[str, float]:
    return {layer: 1 - share for layer, share in shares.items()}


def space_factors(count: int, first: float, last: float) -> list[float]:
    """Spaces `count` factors evenly in their logarithm, from `first` to `last`."""
    if count == 1:
        return [first]
    return [first * (last / first) ** (i / (count - 1)) for i in range(count)]


ANY_RATIO = Range(0.0, 0.9999)
"""The bounds of a layer's ratio in a group whose layers have different ratios."""


def plan_initial_trials(
    space: Space, prepared: Prepared, config: Config, console: SearchConsole, steps: float = math.inf
) -> dict[str, Any]:
    """Plans the `levels` that a search begins with, and the `curves` that its groups need by layer, as plain values.

    The search has time for so many training `steps` in all.
    """
    curves = _measure_layers(space, prepared, config, console, steps)
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


def _measure_layers(
    space: Space, prepared: Prepared, config: Config, console: SearchConsole, steps: float
) -> dict[str, LossCurve]:
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
    trained_on = _count_trained_images(space, prepared, config.budget, steps)
    images = count_images(trained_on, len(ratios), prepared.task.dense_model(torch.device("cpu")))
    if not images and not asked:
        console.say("no initial levels: measuring the layers would take long compared with so little training")
        return {}
    pruner = choose_pruner(space)
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
    plan, channels = space.midpoint(prepared.info.ratio_shapes).to_plan(), prepared.info.channels
    left = partial(channels.left, multiple_of=plan.multiple_of, min_width=plan.min_width) if channels else None
    levels: Iterable[Mapping[str, float]] = compression_levels(curves, others, factors, left)
    if pooled:  # the scores spread the weights over the layers, and so a level is one ratio
        inside, total = sum(totals.values()) - others, sum(totals.values())
        levels = [dict.fromkeys(pruned, 1 - max(total / factor - others, 0.0) / inside) for factor in factors]
    params = [space.level_params(ratios, choose_pruner(space), prepared.info.ratio_shapes) for ratios in levels]
    return [one for at, one in enumerate(params) if one not in params[:at]]  # a group's bounds can make two equal


def choose_pruner(space: Space) -> str:
    """Chooses the pruner for curves, levels and gradual pruning: `mag` where the space has it, else its first."""
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


def _count_trained_images(space: Space, prepared: Prepared, budget: int | None, most: float) -> float:
    """Counts the images, with repeats, that `budget` trials train on, as if none of them was a refinement.

    They are those of at most so many steps.
    """
    plan = space.midpoint(prepared.info.ratio_shapes).to_plan()
    steps = sum(plan.recipe_at(round_).steps for round_ in range(1, plan.rounds + 1))
    return min(sys.maxsize, (most if budget is None else min(most, budget * steps)) * plan.batch_size)
