"""Warm starts: trials start from checkpoints whose masks contain theirs, and the whole way can be run again."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from tune_prune.common.seeding import derive_seed
from tune_prune.pruning import iterative
from tune_prune.pruning.iterative import State
from tune_prune.pruning.statistics import CachedStatistics
from tune_prune.results.records import PointRecord, TrialRecord, lineage
from tune_prune.results.trial_params import TrialParams
from tune_prune.tasks.metrics import ERROR, Metric
from tune_prune.tasks.task import Task


@dataclass(frozen=True)
class WarmStart:
    """A recorded round to start from: its trial, its file relative to the run directory, and the ratios it reached."""

    trial: int
    round: int
    checkpoint: str
    ratios: Mapping[str, float]

    @classmethod
    def from_point(cls, trial: int, point: PointRecord) -> "WarmStart":
        """The start at a round of a trial whose weights were kept."""
        assert point.checkpoint is not None
        return cls(trial, point.round, point.checkpoint, point.reached)


def find_warm_start(
    rounds: Iterable[tuple[int, PointRecord]],
    ratios: Mapping[str, float],
    max_cost: float,
    max_compression: float = 1.0,
    metric: Metric = ERROR,
) -> WarmStart | None:
    """The recorded round from which to prune to these ratios; None means the dense model.

    `rounds` are given with their trials. It is the most compressed of those whose ratios are nowhere above `ratios`,
    with a metric of at most `max_cost` as a cost, and at most `max_compression`: least is left to prune and to retrain.
    Of equally compressed rounds it is the one with the best metric, of equal ones the first.
    """
    cost = metric.cost
    allowed = [(t, p) for t, p in rounds if cost(p.val_metric) <= max_cost and p.compression <= max_compression]
    contained = [(trial, point) for trial, point in allowed if _nested(point.reached, ratios)]
    rank = [(point.compression, -cost(point.val_metric), -trial, -point.round) for trial, point in contained]
    return WarmStart.from_point(*contained[rank.index(max(rank))]) if contained else None


def _nested(inner: Mapping[str, float], outer: Mapping[str, float]) -> bool:
    return all(ratio <= outer.get(label, 0.0) for label, ratio in inner.items())


@dataclass(frozen=True)
class Stage:
    """One trial on the way to a round: its number, the last of its rounds that counts, and its parameters."""

    trial: int
    round: int
    params: TrialParams


def list_stages(record: TrialRecord, round_: int, by_trial: Mapping[int, TrialRecord]) -> list[Stage]:
    """Lists the stages up to a round of a trial: the trials that it started from, the earliest first, and itself.

    Raises `KeyError` where one of those is not among `by_trial`.
    """
    stages = [*lineage(record, by_trial), (record, round_)]
    return [Stage(trial.trial, last_round, trial.params) for trial, last_round in stages]


def retrace(
    task: Task, stages: Sequence[Stage], seed: int, device: torch.device, cached: CachedStatistics | None = None
) -> State:
    """Prunes and retrains along the stages, from the dense model; returns the weights and masks after the last one.

    `task` is on the device. `cached` are the expensive statistics of the dense model, as the search has them. A stage
    draws from `derive_seed(seed, its trial)`, as its trial did: with the search's seed, device and number of threads
    the result is that of the search bit for bit, with any other seed an independent repetition. Raises
    `DivergedError`.
    """
    state, reached = iterative.initial_state(task.dense_model(device)), dict[str, float]()
    for stage in stages:
        plan = stage.params.to_plan()
        state.rounds_done = plan.rounds_within(reached)
        trial_seed = derive_seed(seed, stage.trial)
        teacher = task.make_teacher(plan.distill)
        for point in iterative.prune(state, plan, task.train, task.validation, trial_seed, teacher, cached):
            reached = point.reached
            if point.round == stage.round:
                break
    return state
