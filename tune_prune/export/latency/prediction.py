"""Predicts the latency of a pruned network from a table: each operation's time is linear in what it depends on.

The networks of a table run the same operations one after the other, of other widths. So each operation is fitted by
itself: how many numbers it reads and writes, its floating-point operations, also at the widths that fill a vector, and
the size of its weight. A network's time is the sum over its operations, times what whole networks of the table take as
a share of theirs.
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tune_prune.export.compaction import shrink
from tune_prune.export.latency.programs import Cost, record_program
from tune_prune.export.latency.table import LatencyTable, TimedNetwork
from tune_prune.pruning.channels.groups import Group
from tune_prune.tasks.batches import Batch

FOLDS = 5
"""Parts of a table, of which each is predicted by the others, to tell how large errors are."""


def _features(costs: Sequence[Cost]) -> NDArray[np.float64]:
    """A row for each cost: 1 and its numbers."""
    return np.array([(1.0, *cost[1:]) for cost in costs])


def fit_nonnegative(features: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares with coefficients from 0: the one that takes most away is left out until none is negative.

    `features` [n, k], `values` [n]; returns [k].
    """
    scale = np.abs(features).max(0, initial=0.0)
    used = [at for at in range(features.shape[1]) if scale[at] > 0]
    found = np.zeros(features.shape[1])
    while used:
        scaled = features[:, used] / scale[used]
        solution = np.linalg.lstsq(scaled, values, rcond=None)[0]
        if (solution >= 0).all():
            found[used] = solution / scale[used]
            break
        used.pop(int(np.argmin(solution * scaled.mean(0))))
    return found


@dataclass(frozen=True)
class LatencyModel:
    """Predicts seconds from a table's times; `names` are the operations of its pruned networks, in order.

    `by_place` holds the coefficients of each of them. A network that runs other operations is predicted by their names,
    and one of an unknown name by all: "".
    """

    names: Sequence[str]
    by_place: Sequence[NDArray[np.float64]]
    by_name: dict[str, NDArray[np.float64]] = field(repr=False)

    def predict_seconds(self, costs: Sequence[Cost]) -> float:
        """The seconds of a network of these operations."""
        if [cost.name for cost in costs] == list(self.names):
            coefficients = self.by_place
        else:
            coefficients = [self.by_name.get(cost.name, self.by_name[""]) for cost in costs]
        return float((_features(costs) * np.stack(coefficients)).sum())


def fit_latency(networks: Sequence[TimedNetwork]) -> LatencyModel:
    """Fits the pruned networks of a table."""
    names = [cost.name for cost in networks[0].costs]
    alike = [network for network in networks if [cost.name for cost in network.costs] == names]
    seconds = np.stack([_share_out(network) for network in alike])
    by_place = [
        fit_nonnegative(_features([network.costs[at] for network in alike]), seconds[:, at]) for at in range(len(names))
    ]
    rows = defaultdict[str, list[tuple[Cost, float]]](list)
    for network in networks:
        for cost, taken in zip(network.costs, _share_out(network), strict=True):
            rows[cost.name].append((cost, taken))
            rows[""].append((cost, taken))
    by_name = {
        name: fit_nonnegative(_features([cost for cost, _ in pairs]), np.array([taken for _, taken in pairs]))
        for name, pairs in rows.items()
    }
    return LatencyModel(names, by_place, by_name)


def _share_out(network: TimedNetwork) -> NDArray[np.float64]:
    """The seconds of a network's operations, which add up to those of the network."""
    seconds: NDArray[np.float64] = np.array(network.seconds)
    shared: NDArray[np.float64] = seconds * (network.total / seconds.sum())
    return shared


def cross_validate(table: LatencyTable) -> float:
    """The median error of predictions, as a share, of networks that were left out of the fit."""
    errors = []
    for fold in range(min(FOLDS, len(table.pruned))):
        left_out = table.pruned[fold::FOLDS]
        rest = [network for at, network in enumerate(table.pruned) if at % FOLDS != fold] or left_out
        fitted = fit_latency(rest)
        errors += [abs(fitted.predict_seconds(network.costs) / network.total - 1) for network in left_out]
    return statistics.median(errors)


class LatencyPredictor:
    """Predicts the latency of pruned forms of a model; `inputs` are a batch as large as the table's."""

    def __init__(self, table: LatencyTable, inputs: Batch) -> None:
        self._dense_seconds, self._inputs, self._model = table.dense_seconds, inputs, fit_latency(table.pruned)

    def predict(self, model: nn.Module, masks: Mapping[str, Tensor], groups: Sequence[Group]) -> dict[str, float]:
        """The costs of what is left of a model: its time as a share of the dense model's, and in milliseconds."""
        network = shrink(model, masks, self._inputs, groups)
        seconds = self._model.predict_seconds(record_program(network, self._inputs).costs)
        return {"latency": seconds / self._dense_seconds, "latency_ms": 1000 * seconds}
