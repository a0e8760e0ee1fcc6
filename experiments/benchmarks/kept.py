"""A step of retraining by the share of weights that are kept: how much faster than dense products it is.

    OMP_NUM_THREADS=1 python experiments/benchmarks/kept.py [REPEATS]

Every layer of at least 10,000 weights keeps its largest ones, the same share in each; smaller layers stay whole. Trains
each model on MNIST as a trial does, in turn by dense products alone and by kept weights where the product chooses to
(`training/sparse_layers.py`), in processor time. Writes kept.json; prints a table of medians and ranges.
"""

import sys
import time

import torch
from common import spread, write

from tune_prune.pruning import masks
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.tasks.task import Task, prepare_task
from tune_prune.training import sparse_layers
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe

CPU = torch.device("cpu")
SHARES = (0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
STEPS = {"lenet_300_100": 200, "lenet5": 20}
LARGE = 10_000
CHOSEN = sparse_layers.MAX_KEPT


def milliseconds(task: Task, share: float, steps: int, by_kept: bool) -> float:
    """A step's processor time."""
    sparse_layers.MAX_KEPT = CHOSEN if by_kept else 0.0
    model = task.dense_model(CPU)
    pairs = []
    for weight in masks.prunable(model).values():
        large = weight.numel() >= LARGE
        removed = round(weight.numel() * (1 - share)) if large else 0
        mask = torch.ones(weight.numel())
        mask[weight.detach().abs().flatten().argsort()[:removed]] = 0
        mask = mask.view(weight.shape)
        weight.data *= mask
        pairs.append((weight, mask))
    recipe = Recipe(steps, 0.01, distill=0.7, temperature=2)
    began = time.process_time()
    fit(model, task.train, recipe, torch.Generator().manual_seed(0), masks=pairs, teacher=task.teacher)
    return 1000 * (time.process_time() - began) / steps


def main() -> None:
    """Measure both models at all shares."""
    torch.set_num_threads(1)
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print("| model | kept, % | dense, ms | by kept weights, ms | times faster |\n|---|---|---|---|---|")
    found = {}
    for name, steps in STEPS.items():
        task = prepare_task(name, load_dense_model(name, None, ""), "mnist", CPU)[0]
        for share in SHARES:
            times = [[milliseconds(task, share, steps, by_kept) for by_kept in (False, True)] for _ in range(repeats)]
            dense, kept = ([pair[i] for pair in times] for i in (0, 1))
            ratios = [pair[0] / pair[1] for pair in times]
            found[f"{name} {share:g}"] = times
            columns = " | ".join(spread(values) for values in (dense, kept, ratios))
            print(f"| {name} | {100 * share:g} | {columns} |", flush=True)
    write("kept", {"milliseconds of a step, dense and by kept weights": found})


if __name__ == "__main__":
    main()
