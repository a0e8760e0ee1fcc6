"""What a search knows before its first trial: the layers' curves where they are wanted, and first levels."""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

import torch

from tune_prune import prior
from tune_prune.common.errors import UserError
from tune_prune.hpo.config import Config
from tune_prune.hpo.groups import GroupedRatio, LossCurve
from tune_prune.hpo.parameters import Domain, Range
from tune_prune.hpo.space import Space, to_plan
from tune_prune.preparation import Prepared, known_statistics

WHOLE = Range(0.0, 0.9999)
"""What a layer's ratio may be where its group's is spread unevenly."""


def first(space: Space, prepared: Prepared, config: Config, say: Callable[[str], None]) -> dict[str, Any]:
    """`curves` by layer where a group goes by them, and the `levels` that a search begins with; plain values."""
    found = _curves(space, prepared, config, say)
    by_sensitivity = "sensitivity" in space.together.values()
    return {
        "curves": {layer: asdict(curve) for layer, curve in found.items()} if by_sensitivity else {},
        "levels": _levels(space, prepared, found, config),
    }


def curves_in(first: Mapping[str, Any]) -> dict[str, LossCurve]:
    """The curves that `first` found."""
    return {layer: LossCurve(**curve) for layer, curve in first["curves"].items()}


def _curves(space: Space, prepared: Prepared, config: Config, say: Callable[[str], None]) -> dict[str, LossCurve]:
    """The curves of all layers that are pruned.

    None where nothing goes by them, or where measuring them would take long beside what the search itself will train
    and no group asks for them by name.
    """
    asked = "sensitivity" in space.together.values()
    if space.knobs.get("mode") == "global":
        return {}
    open_ratios = any(isinstance(knob, Range) for _, knob in space.ratios)
    if not asked and not (space.prior.levels and open_ratios):
        return {}
    made, ratios = prepared.task, _own_ratios(space, prepared)
    images = prior.images_for(_trained_on(space, prepared, config.budget), len(ratios))
    if not images and not asked:
        say("no first levels: measuring each layer alone would take long beside so little training")
        return {}
    known = known_statistics(space.with_pruners([_pruner(space)]), made, config, say)
    device = torch.device(config.own_device)
    as_one = to_plan(space.middle(prepared.info.shapes)).granularity
    try:
        return prior.measure(made, ratios, _pruner(space), device, known, images or prior.LEAST_IMAGES, as_one)
    except Exception as error:  # a user's pruner may raise anything; trials that take it fail by themselves
        told = f"pruner {_pruner(space)} fails on the dense model ({type(error).__name__}: {error})"
        if asked:
            raise UserError(f"{space.source}: the layers cannot be measured: {told}") from error
        say(f"no first levels: {told}")
        return {}


def _levels(
    space: Space, prepared: Prepared, curves: Mapping[str, LossCurve], config: Config
) -> list[dict[str, object]]:
    """The guesses that the curves make: level by level more compressed, as many as the budget has room for."""
    pooled = space.knobs.get("mode") == "global"
    if not space.prior.levels or not (curves or pooled):
        return []
    count = space.prior.levels if config.budget is None else min(space.prior.levels, max(3, config.budget // 5))
    factors = prior.spaced(count, space.prior.first, space.prior.farthest)
    totals, pruned = prepared.info.totals, _own_ratios(space, prepared).keys()
    others = sum(total for label, total in totals.items() if label not in pruned)
    levels: Iterable[Mapping[str, float]] = prior.levels(curves, others, factors)
    if pooled:  # the scores say what goes from where; only how much is left to guess
        inside, total = sum(totals.values()) - others, sum(totals.values())
        levels = [dict.fromkeys(pruned, 1 - max(total / factor - others, 0.0) / inside) for factor in factors]
    found = [space.level(one, _pruner(space), prepared.info.shapes) for one in levels]
    return [one for at, one in enumerate(found) if one not in found[:at]]  # a group's bounds can make two the same


def _pruner(space: Space) -> str:
    """With what curves are measured and levels pruned."""
    return "mag" if "mag" in space.pruners else space.pruners[0]


def _own_ratios(space: Space, prepared: Prepared) -> dict[str, Domain]:
    """What each layer's ratio is drawn from, by layer."""
    params = space.params(prepared.info.shapes)
    own: dict[str, Domain] = {}
    for name, knob in params.items():
        if name.startswith("ratio/") and isinstance(knob, GroupedRatio):
            drawn = params[knob.group.name]
            assert not isinstance(drawn, GroupedRatio)
            own[name.removeprefix("ratio/")] = drawn if knob.group.scale == "same" else WHOLE
        elif name.startswith("ratio/"):
            own[name.removeprefix("ratio/")] = knob  # type: ignore[assignment]
    return own


def _trained_on(space: Space, prepared: Prepared, budget: int | None) -> float:
    """How many images so many trials train on, repeats counted, without those that finish others."""
    plan = to_plan(space.middle(prepared.info.shapes))
    steps = sum(plan.recipe_at(round_).steps for round_ in range(1, plan.rounds + 1))
    return sys.maxsize if budget is None else budget * steps * plan.batch_size
