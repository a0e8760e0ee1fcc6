"""Every pruner at every ratio, each layer alone and all together, without and with an epoch of retraining.

    python experiments/pruners/measure.py points.csv                      # goes on where it stopped
    python experiments/pruners/measure.py points.csv lenet5 1 0.9 0.99    # a part: model, epochs, ratios of one layer

One row a measurement: error in percent and loss on the 10,000 validation images; `seconds` to score, prune, retrain
and evaluate, without the expensive scores, which are measured once
(`tune_prune/pruning/statistics_cache.py`). Two processes.
"""

import csv
import multiprocessing
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from tune_prune.pruning import checkpoint, criteria, iterative, statistics_cache
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.pruning.iterative import round_generator
from tune_prune.pruning.masks import prunable
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.statistics import Context, draw_sample
from tune_prune.tasks import task

MODELS = ("lenet_300_100", "lenet5")
RATIOS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
SEEDS = (0, 1, 2)
STEPS_OF_AN_EPOCH = 390
CPU = torch.device("cpu")
COLUMNS = ["model", "layer", "pruner", "ratio", "epochs", "seed", "val_error", "val_loss", "seconds"]


class Cell(NamedTuple):
    """One measurement; layer "all" prunes every layer by the ratio."""

    model: str
    layer: str
    pruner: str
    ratio: float
    epochs: int
    seed: int


def cells(only: list[str]) -> Iterator[Cell]:
    """All of them, the cheap ones first; or the model, epochs and ratios of single layers that were asked for."""
    models, epochs = (only[:1], [int(only[1])]) if only else (MODELS, [0, 1])
    alone = [float(ratio) for ratio in only[2:]] or RATIOS
    for model in models:
        labels = list(prunable(checkpoint.load_dense_model(model, None, "measure.py")))
        for count in epochs:
            for layer in ("all", *labels):
                for ratio in RATIOS if layer == "all" else alone:
                    for seed in SEEDS:
                        for pruner in criteria.criteria.names():
                            yield Cell(model, layer, pruner, ratio, count, seed)


def measure(cell: Cell) -> list[object]:
    """A row: prune the dense model as the cell says, retrain, evaluate."""
    torch.set_num_threads(1)
    made, _ = prepared(cell.model)
    labels = list(prunable(made.dense_model(CPU))) if cell.layer == "all" else [cell.layer]
    sample = draw_sample(made.train, Plan.sample, round_generator(cell.seed, 1))
    context = Context(made.dense_model(CPU), sample, round_generator(cell.seed, 1), only=labels)
    known = statistics_cache.load_or_measure(sorted(criteria.required_statistics([cell.pruner])), context)
    plan = Plan(
        dict.fromkeys(labels, cell.ratio),
        dict.fromkeys(labels, cell.pruner),
        final_steps=cell.epochs * STEPS_OF_AN_EPOCH,
    )
    state = iterative.initial_state(made.dense_model(CPU))
    point = next(iterative.prune(state, plan, made.train, made.validation, cell.seed, known=known))
    return [*cell, point.error, point.loss, round(point.seconds, 3)]


_PREPARED: dict[str, tuple[task.Task, object]] = {}


def prepared(model: str) -> tuple[task.Task, object]:
    """A model's task, made once a process."""
    if model not in _PREPARED:
        _PREPARED[model] = task.prepare_task(model, load_dense_model(model, None, "measure.py"), "mnist", CPU)
    return _PREPARED[model]


def main() -> None:
    """Measure what the file does not hold yet, and append it row by row."""
    path = Path(sys.argv[1])
    if not path.exists():
        path.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    with path.open(newline="", encoding="utf-8") as file:
        done = {tuple(row[:6]) for row in csv.reader(file)}
    todo = [cell for cell in cells(sys.argv[2:]) if tuple(map(str, cell)) not in done]
    print(f"{len(todo)} to measure, {len(done) - 1} there", flush=True)
    with multiprocessing.get_context("spawn").Pool(2) as pool, path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in pool.imap_unordered(measure, todo):
            writer.writerow(row)
            file.flush()


if __name__ == "__main__":
    main()
