"""Measures every pruner at every ratio, on single layers and on all layers, without and with an epoch of retraining.

    python experiments/pruners/measure.py points.csv                      # goes on where it stopped
    python experiments/pruners/measure.py points.csv lenet5 1 0.9 0.99    # a part: model, epochs, ratios of one layer

Writes one row a measurement: error in percent and loss on the 10,000 validation images; `seconds` to score, prune,
retrain and evaluate, without the expensive statistics, which are measured once
(`tune_prune/pruning/statistics_cache.py`). Runs two processes.
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
from tune_prune.pruning.statistics import Context
from tune_prune.tasks import task

MODELS = ("lenet_300_100", "lenet5")
RATIOS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
SEEDS = (0, 1, 2)
STEPS_OF_AN_EPOCH = 390
CPU = torch.device("cpu")
COLUMNS = ["model", "layer", "pruner", "ratio", "epochs", "seed", "val_error", "val_loss", "seconds"]


class Job(NamedTuple):
    """One measurement; layer "all" prunes every layer by the ratio."""

    model: str
    layer: str
    pruner: str
    ratio: float
    epochs: int
    seed: int


def list_jobs(chosen: list[str]) -> Iterator[Job]:
    """Lists all jobs, the cheap ones first; or those of the chosen model, epochs and ratios of single layers."""
    models, epochs = (chosen[:1], [int(chosen[1])]) if chosen else (MODELS, [0, 1])
    layer_ratios = [float(ratio) for ratio in chosen[2:]] or RATIOS
    for model in models:
        labels = list(prunable(checkpoint.load_dense_model(model, None, "")))
        for count in epochs:
            for layer in ("all", *labels):
                for ratio in RATIOS if layer == "all" else layer_ratios:
                    for seed in SEEDS:
                        for pruner in criteria.criteria.names():
                            yield Job(model, layer, pruner, ratio, count, seed)


def measure(job: Job) -> list[object]:
    """Prunes the dense model, retrains and evaluates it; returns the row."""
    torch.set_num_threads(1)
    prepared = prepare_once(job.model)
    labels = list(prunable(prepared.dense_model(CPU))) if job.layer == "all" else [job.layer]
    sample = prepared.train.draw(Plan.sample, round_generator(job.seed, 1))
    context = Context(prepared.dense_model(CPU), sample, round_generator(job.seed, 1), layers=labels)
    cached = statistics_cache.load_or_measure(sorted(criteria.required_statistics([job.pruner])), context)
    plan = Plan(
        dict.fromkeys(labels, job.ratio),
        dict.fromkeys(labels, job.pruner),
        final_steps=job.epochs * STEPS_OF_AN_EPOCH,
    )
    state = iterative.initial_state(prepared.dense_model(CPU))
    point = next(iterative.prune(state, plan, prepared.train, prepared.validation, job.seed, cached=cached))
    return [*job, point.metric, point.loss, round(point.seconds, 3)]


_PREPARED: dict[str, task.Task] = {}


def prepare_once(model: str) -> task.Task:
    """Prepares a model's task, once a process."""
    if model not in _PREPARED:
        _PREPARED[model] = task.prepare_task(model, load_dense_model(model, None, ""), "mnist", CPU)[0]
    return _PREPARED[model]


def main() -> None:
    """Does the jobs that have no row in the file, and appends their rows one by one."""
    path = Path(sys.argv[1])
    if not path.exists():
        path.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    with path.open(newline="", encoding="utf-8") as file:
        done = {tuple(row[:6]) for row in csv.reader(file)}
    todo = [job for job in list_jobs(sys.argv[2:]) if tuple(map(str, job)) not in done]
    print(f"{len(todo)} to measure, {len(done) - 1} measured already", flush=True)
    with multiprocessing.get_context("spawn").Pool(2) as pool, path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in pool.imap_unordered(measure, todo):
            writer.writerow(row)
            file.flush()


if __name__ == "__main__":
    main()
