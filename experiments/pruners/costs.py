"""What the scores of each pruner cost.

    OMP_NUM_THREADS=2 python experiments/pruners/costs.py > experiments/pruners/costs.txt

Seconds to score all layers of the dense model once, nothing from the cache; five runs (emp: one), median and range.
"""

import statistics
import time

import torch

from tune_prune.pruning import criteria
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.pruning.masks import prunable
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.statistics import Context, draw_sample
from tune_prune.tasks import task

CPU = torch.device("cpu")


def context(made: task.Task, seed: int) -> Context:
    """A sample and a source of its own for each seed."""
    sample = draw_sample(made.train, Plan.sample, torch.Generator().manual_seed(seed))
    return Context(made.dense_model(CPU), sample, torch.Generator().manual_seed(seed))


def seconds(made: task.Task, pruner: str, runs: int) -> list[float]:
    """How long a scoring takes, run by run."""
    found = []
    for seed in range(runs):
        ready = context(made, seed)
        began = time.perf_counter()
        criteria.score_layers(dict.fromkeys(prunable(ready.model), pruner), ready)
        found.append(time.perf_counter() - began)
    return found


def main() -> None:
    """Costs on two models."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for model in ("lenet_300_100", "lenet5"):
        made, _ = task.prepare_task(model, load_dense_model(model, None, "costs.py"), "mnist", CPU)
        print(f"{model}: seconds to score every layer")
        for pruner in criteria.criteria.names():
            found = seconds(made, pruner, 1 if pruner == "emp" else 5)
            print(f"  {pruner}: {statistics.median(found):.3f} ({min(found):.3f}-{max(found):.3f})", flush=True)


if __name__ == "__main__":
    main()
