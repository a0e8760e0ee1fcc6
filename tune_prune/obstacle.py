"""Which layer stands most in the way, where no point keeps the tradeoff."""

import torch

from tune_prune.hpo.space import to_plan
from tune_prune.pruning import criteria, sensitivity, statistics_cache
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.sensitivity import SensitivityJob, SensitivityResult
from tune_prune.results.front import Member
from tune_prune.tasks.task import Task


def hardest(task: Task, member: Member, device: torch.device) -> SensitivityResult | None:
    """Of the layers of a point, pruned each alone as there and not retrained, the one with the highest loss.

    None where the point prunes nothing. Validation error in percent, loss in nats.
    """
    pruners = member.record.pruners
    as_one = to_plan(member.record.params).granularity
    pruned = {label: ratio for label, ratio in member.point.ratios.items() if ratio > 0}
    cells = [SensitivityJob(label, pruners[label], ratio, granularity=as_one) for label, ratio in pruned.items()]
    names = sorted(criteria.required_statistics({cell.pruner for cell in cells}))
    known = statistics_cache.measure_dense(names, task.dense_model(device), task.train.to(device), Plan.sample)
    found = sensitivity.measure_without_retraining(task.to(device), cells, device, known)
    return max(found, key=lambda sensed: sensed.val_loss, default=None)
