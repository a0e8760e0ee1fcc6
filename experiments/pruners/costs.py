"""Measures how long each pruner takes to score a network.

    OMP_NUM_THREADS=2 python experiments/pruners/costs.py > experiments/pruners/costs.txt

Seconds to score all layers of the dense model once, without the cache; median and range of five runs (emp: one).
"""

import statistics
import time

import torch

from tune_prune.pruning import criteria
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.pruning.masks import prunable
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.statistics import Context
from tune_prune.tasks import task

CPU = torch.device("cpu")


def make_context(prepared: task.Task, seed: int) -> Context:
    """Makes a dense model with the sample and the random source of a seed."""
    sample = prepared.train.draw(Plan.sample, torch.Generator().manual_seed(seed))
    return Context(prepared.dense_model(CPU), sample, torch.Generator().manual_seed(seed))


def measure_seconds(prepared: task.Task, pruner: str, runs: int) -> list[float]:
    """Measures the seconds that scoring takes, run by run."""
    seconds = []
    for seed in range(runs):
        context = make_context(prepared, seed)
        began = time.perf_counter()
        criteria.score_layers(dict.fromkeys(prunable(context.model), pruner), context)
        seconds.append(time.perf_counter() - began)
    return seconds


def main() -> None:
    """Prints the costs on two models."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for model in ("lenet_300_100", "lenet5"):
        prepared, _ = task.prepare_task(model, load_dense_model(model, None, ""), "mnist", CPU)
        print(f"{model}: seconds to score every layer")
        for pruner in criteria.criteria.names():
            seconds = measure_seconds(prepared, pruner, 1 if pruner == "emp" else 5)
            print(f"  {pruner}: {statistics.median(seconds):.3f} ({min(seconds):.3f}-{max(seconds):.3f})", flush=True)


if __name__ == "__main__":
    main()
