"""The pruners: one small function each, from a layer's weight and named statistics to scores of its shape.

The lowest scores go first. A parameter is called `weight` or after an entry of `measure.statistics`.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

import tune_prune.pruning.gates
import tune_prune.pruning.loss_change  # noqa: F401 - likewise
from tune_prune.common.entrypoints import is_address, load
from tune_prune.common.errors import UserError, format_names
from tune_prune.common.registry import Registry
from tune_prune.pruning.masks import prunable
from tune_prune.pruning.statistics import Context, statistics

Criterion = Callable[..., Tensor]
criteria: Registry[Criterion] = Registry("pruner")


class ScoreError(RuntimeError):
    """A criterion gave scores that cannot rank weights."""


def _needs(criterion: Criterion, name: str) -> list[str]:
    """The statistics a criterion asks for; a parameter that is neither those nor `weight` is refused."""
    try:
        parameters = list(inspect.signature(criterion).parameters)
    except ValueError as error:
        raise UserError(f"pruner {name!r} tells no parameter names ({error}); wrap it in a function") from error
    for parameter in parameters:
        if parameter != "weight" and parameter not in statistics:
            raise UserError(
                f"pruner {name!r} asks for {parameter!r}; known: weight, {format_names(statistics.names())}"
            )
    return [parameter for parameter in parameters if parameter != "weight"]


def criterion(function: Criterion) -> Criterion:
    """Register a pruner under its function's name; its parameters are checked here, at import."""
    name = function.__name__
    _needs(function, name)
    criteria.add(name, function)
    return function


@criterion
def mag(weight: Tensor) -> Tensor:
    """|w|: small weights go first (Han et al. 2015, sec. 3)."""
    return weight.abs()


@criterion
def taylor1(weight: Tensor, gradient: Tensor) -> Tensor:
    """|g w|: the loss's first-order change without w (LeCun et al. 1989, eq. 1, first term)."""
    return (weight * gradient).abs()


@criterion
def taylor2(weight: Tensor, hessian: Tensor) -> Tensor:
    """|h w^2 / 2|: the loss's second-order change without w (LeCun et al. 1989, eq. 3).

    The absolute value, since an estimate of h may be negative, and a weight that matters either way matters.
    """
    return (hessian * weight**2 / 2).abs()


@criterion
def taylor12(weight: Tensor, gradient: Tensor, hessian: Tensor) -> Tensor:
    """|-g w + h w^2 / 2|: both terms of the loss's change without w (LeCun et al. 1989, eq. 1)."""
    return (hessian * weight**2 / 2 - gradient * weight).abs()


@criterion
def l1(l1_gate: Tensor) -> Tensor:
    """|f|, f the weight's factor learned under an L1 penalty (torch7-pruner)."""
    return l1_gate.abs()


@criterion
def l2(l2_gate: Tensor) -> Tensor:
    """|f|, f the weight's factor learned under an L2 penalty (torch7-pruner)."""
    return l2_gate.abs()


@criterion
def emp(loss_change: Tensor) -> Tensor:
    """|the loss's exact change without w|, all else as it is (torch7-pruner).

    The absolute value: weights that the loss falls without, each by itself, pull one way, and without all of them at
    once it rises; taking them first is worse than removing weights at random (experiments/pruners).
    """
    return loss_change.abs()


@criterion
def random(noise: Tensor) -> Tensor:
    """Uniform noise: what any criterion must beat."""
    return noise


def find_criterion(name: str) -> Criterion:
    """A pruner by its name or by the `package.module:function` address of a user's own."""
    if not is_address(name):
        return criteria[name]
    found: Criterion = load(name)  # type: ignore[assignment]
    _needs(found, name)
    return found


def required_statistics(names: Iterable[str]) -> set[str]:
    """Every statistic that some of these pruners ask for."""
    return {need for name in names for need in _needs(find_criterion(name), name)}


def score_layers(pruners: Mapping[str, str], context: Context) -> dict[str, Tensor]:
    """Scores per layer by that layer's pruner; each statistic that some pruner names is measured once.

    Raises `ScoreError` where a score is of the wrong shape or not finite.
    """
    layers = prunable(context.model)
    chosen = {label: find_criterion(name) for label, name in pruners.items()}
    asked = {label: _needs(function, pruners[label]) for label, function in chosen.items()}
    measured: dict[str, Mapping[str, Tensor]] = {}
    for name in sorted(set().union(*asked.values())):
        wanted = [label for label, names in asked.items() if name in names]
        measured[name] = context.known.get(name) or statistics[name](replace(context, only=wanted))
    scores = {}
    for label, function in chosen.items():
        available = {"weight": layers[label].detach()} | {name: measured[name][label] for name in asked[label]}
        scores[label] = function(**{name: available[name] for name in inspect.signature(function).parameters})
        _check(scores[label], layers[label], label, pruners[label])
    return scores


def _check(scores: Tensor, weight: Tensor, label: str, pruner: str) -> None:
    if scores.shape != weight.shape:
        raise ScoreError(
            f"pruner {pruner} gave scores of shape {list(scores.shape)} for layer {label}; its weight has "
            f"{list(weight.shape)}"
        )
    if not torch.isfinite(scores).all():
        raise ScoreError(f"pruner {pruner} gave scores that are not finite for layer {label}")
