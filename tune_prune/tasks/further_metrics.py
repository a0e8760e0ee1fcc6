"""Measures the metrics that a task has beside the one that models are judged by."""

import torch
from torch import nn

from tune_prune.tasks import in_memory
from tune_prune.tasks.batch_split import EVALUATION_BATCH
from tune_prune.tasks.metric_functions import call_metric
from tune_prune.tasks.precision import use_precision
from tune_prune.tasks.random_states import seeded_generators
from tune_prune.tasks.splits import AnySplit


@torch.no_grad()
def measure_further(model: nn.Module, split: AnySplit, part: str) -> dict[str, float]:
    """Measures every further metric over a whole split, in evaluation mode, by its column: `val_f1` of the part "val".

    Random numbers that a metric draws are always the same, and no others are used up.
    """
    objective = split.objective
    if not objective.further:
        return {}
    model.eval()
    with use_precision(objective.settings.precision, split.device), seeded_generators(0, split.device):
        return {
            f"{part}_{one.metric.name}": call_metric(
                one.function, in_memory.describe(one.address), model, split.batches(EVALUATION_BATCH)
            )
            for one in objective.further
        }
