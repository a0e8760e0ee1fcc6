"""What the scores of each pruner cost, and how the learned factors depend on the penalty's strength.

    OMP_NUM_THREADS=2 python experiments/pruners/costs.py > experiments/pruners/costs.txt

Seconds to score all layers of the dense model once, nothing from the cache; five runs (emp: one), median and range.
"""

import statistics
import time

import torch

from tune_prune import criteria, gates, masks, task
from tune_prune.masks import prunable
from tune_prune.measure import Context, draw_sample
from tune_prune.pruning import Plan
from tune_prune.training import evaluate

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
        criteria.score(dict.fromkeys(prunable(ready.model), pruner), ready)
        found.append(time.perf_counter() - began)
    return found


def strengths(made: task.Task) -> None:
    """The factors at three strengths of the penalty: their spread, and the error of all layers pruned by them."""
    for strength in (3e-5, 3e-4, 3e-3):
        gates.STRENGTH = strength
        for name in ("l1", "l2"):
            ready = context(made, 0)
            scores = criteria.score(dict.fromkeys(prunable(ready.model), name), ready)
            every = torch.cat([value.flatten() for value in scores.values()])
            errors = []
            for ratio in (0.5, 0.7, 0.9):
                model = made.dense_model(CPU)
                dense = masks.dense(model)
                masks.apply(model, {label: masks.shrink(dense[label], scores[label], ratio) for label in dense})
                errors.append(f"{evaluate(model, made.validation).error:.2f} %")
            spread = f"|f| median {every.median():.3f}, sd {every.std():.3f}, largest {every.max():.1f}"
            print(f"  {name} at {strength:g}: {spread}; error at 0.5, 0.7, 0.9: {', '.join(errors)}", flush=True)


def main() -> None:
    """Costs on two models, then strengths on lenet5."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for model in ("lenet_300_100", "lenet5"):
        made, _ = task.prepare(model, "mnist", None, CPU, "costs.py")
        print(f"{model}: seconds to score every layer")
        for pruner in criteria.criteria.names():
            found = seconds(made, pruner, 1 if pruner == "emp" else 5)
            print(f"  {pruner}: {statistics.median(found):.3f} ({min(found):.3f}-{max(found):.3f})", flush=True)
    print("lenet5: the strength of the penalty on the factors")
    strengths(made)


if __name__ == "__main__":
    main()
