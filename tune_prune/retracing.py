"""The way that a trial's weights came, run again: from the search's own seed, or from another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tune_prune.common.seeding import derive_seed
from tune_prune.pruning import iterative
from tune_prune.pruning.iterative import State
from tune_prune.pruning.statistics import CachedStatistics
from tune_prune.results.records import TrialRecord, lineage
from tune_prune.space import to_plan
from tune_prune.tasks.task import Task


@dataclass(frozen=True)
class Stage:
    """A trial's part of the way: its number, the round at which it was left, and its parameters (`records.py`)."""

    trial: int
    round: int
    params: Mapping[str, Any]


def stages_of(record: TrialRecord, round_: int, by_trial: Mapping[int, TrialRecord]) -> list[Stage]:
    """The way to a round of a trial: the trials that it went on from, the earliest first, and itself.

    Raises `KeyError` where one of those is not among `by_trial`.
    """
    way = [*lineage(record, by_trial), (record, round_)]
    return [Stage(trial.trial, upto, trial.params) for trial, upto in way]


def retrace(
    task: Task, stages: Sequence[Stage], seed: int, device: torch.device, known: CachedStatistics | None = None
) -> State:
    """Prune and retrain along the stages, from the dense model: the weights and masks at the end of the last one.

    `task` is on the device. `known` are the expensive statistics of the dense model, as a search has them. A stage
    draws from `derive_seed(seed, its trial)`, as its trial did: with the search's seed, device and number of threads
    the result is that of the search bit for bit, and with any other seed an independent repetition. Raises
    `DivergedError`.
    """
    state, reached = iterative.initial_state(task.dense_model(device)), dict[str, float]()
    for stage in stages:
        plan = to_plan(stage.params)
        state.rounds_done = plan.rounds_within(reached)
        own = derive_seed(seed, stage.trial)
        for point in iterative.prune(state, plan, task.train, task.validation, own, task.teacher, known):
            reached = point.reached
            if point.round == stage.round:
                break
    return state
