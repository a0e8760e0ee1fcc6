"""The pruners: each is a function from a layer's weight and named statistics to scores of the weight's shape.

The weights with the lowest scores are removed first. A pruner's parameters are `weight` and names of the registry
`statistics.statistics`.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

import tune_prune.pruning.gates
import tune_prune.pruning.loss_change  # noqa: F401 - these two modules register their statistics
from tune_prune.common.entrypoints import check_address, is_address, load
from tune_prune.common.errors import UserError, format_names
from tune_prune.common.registry import Registry
from tune_prune.pruning.statistics import Context, statistics
from tune_prune.pruning.weights import find_weights
from tune_prune.tasks.fingerprints import hash_function

Criterion = Callable[..., Tensor]
criteria: Registry[Criterion] = Registry("pruner")


class ScoreError(RuntimeError):
    """A criterion returned scores that cannot rank weights."""


def criterion(function: Criterion) -> Criterion:
    """Registers a pruner under its function's name; its parameters are checked here, at import."""
    name = function.__name__
    _list_statistics(function, name)
    criteria.add(name, function)
    return function


def _list_statistics(function: Criterion, name: str) -> list[str]:
    """Lists the statistics among a pruner's parameters; refuses a parameter that is neither one nor `weight`."""
    try:
        parameters = list(inspect.signature(function).parameters)
    except ValueError as error:
        raise UserError(f"pruner {name!r} has no readable signature ({error}); wrap it in a function") from error
    for parameter in parameters:
        if parameter != "weight" and parameter not in statistics:
            raise UserError(
                f"pruner {name!r} asks for {parameter!r}; known: weight, {format_names(statistics.names())}"
            )
    return [parameter for parameter in parameters if parameter != "weight"]


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

    The absolute value is taken since an estimate of h may be negative: a large change counts in either direction.
    """
    return (hessian * weight**2 / 2).abs()


@criterion
def taylor12(weight: Tensor, gradient: Tensor, hessian: Tensor) -> Tensor:
    """|-g w + h w^2 / 2|: both terms of the loss's change without w (LeCun et al. 1989, eq. 1)."""
    return (hessian * weight**2 / 2 - gradient * weight).abs()


@criterion
def l1(l1_gate: Tensor) -> Tensor:
    """|f|, where f is the weight's factor, learned under an L1 penalty (torch7-pruner)."""
    return l1_gate.abs()


@criterion
def l2(l2_gate: Tensor) -> Tensor:
    """|f|, where f is the weight's factor, learned under an L2 penalty (torch7-pruner)."""
    return l2_gate.abs()


@criterion
def emp(loss_change: Tensor) -> Tensor:
    """|d|, where d is the loss's exact change without w, all other weights as they are (torch7-pruner).

    The absolute value is taken since the loss may fall without each of some weights and still rise without all of them:
    to remove those first is worse than to remove weights at random (experiments/pruners).
    """
    return loss_change.abs()


@criterion
def random(noise: Tensor) -> Tensor:
    """Uniform noise: the baseline that any criterion must beat."""
    return noise


def check_name(name: str) -> None:
    """Raises a `UserError` where a pruner's name is neither known nor an address; nothing is imported."""
    if is_address(name):
        check_address(name)
    else:
        criteria[name]


def find_criterion(name: str) -> Criterion:
    """Finds a pruner by its name, or a user's own by its address `package.module:function`."""
    if not is_address(name):
        return criteria[name]
    function: Criterion = load(name)  # type: ignore[assignment]
    _list_statistics(function, name)
    return function


def hash_pruners(names: Iterable[str]) -> dict[str, str]:
    """Hashes the code of those among these pruners that are a user's own, by name."""
    return {name: hash_function(name) for name in names if is_address(name)}


def required_statistics(names: Iterable[str]) -> set[str]:
    """Collects the statistics that these pruners need."""
    return {statistic for name in names for statistic in _list_statistics(find_criterion(name), name)}


def score_layers(pruners: Mapping[str, str], context: Context) -> dict[str, Tensor]:
    """Scores each layer by its own pruner; `pruners` and the result are by layer label.

    Each statistic that some pruner needs is measured once, unless the context has it cached. Weights in half precision
    are scored in float32. Of a weight that the model computes (`parametrized`), a pruner that needs no statistic scores
    what is computed; statistics are of the parameter that is set to zero, and go with that. The padding row of an
    embedding gets infinite scores: it stays as long as others do. Raises `ScoreError` where scores have the wrong shape
    or are not finite.
    """
    layers = find_weights(context.model)
    functions = {label: find_criterion(name) for label, name in pruners.items()}
    required = {label: _list_statistics(function, pruners[label]) for label, function in functions.items()}
    measured: dict[str, Mapping[str, Tensor]] = {}
    for name in sorted(set().union(*required.values())):
        labels = [label for label, names in required.items() if name in names]
        measured[name] = context.cached.get(name) or statistics[name](replace(context, layers=labels))
    scores = {}
    for label, function in functions.items():
        layer = layers[label]
        weight = layer.tensor.detach() if required[label] else layer.select(layer.stored.weight())
        values = {"weight": _widen(weight)} | {name: _widen(measured[name][label]) for name in required[label]}
        scores[label] = function(**{name: values[name] for name in inspect.signature(function).parameters})
        _check_scores(scores[label], weight, label, pruners[label])
        if layer.weight.last is not None:
            row = torch.tensor([layer.weight.last], device=scores[label].device)
            scores[label] = scores[label].double().index_fill(layer.weight.outputs_axis or 0, row, torch.inf)
    return scores


def _widen(values: Tensor) -> Tensor:
    """Converts values in half precision, whose products vanish or become equal, to float32."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _check_scores(scores: Tensor, weight: Tensor, label: str, pruner: str) -> None:
    if scores.shape != weight.shape:
        raise ScoreError(
            f"pruner {pruner} gave scores of shape {list(scores.shape)} for layer {label}; its weight has "
            f"{list(weight.shape)}"
        )
    if not torch.isfinite(scores).all():
        raise ScoreError(f"pruner {pruner} gave scores that are not finite for layer {label}")
