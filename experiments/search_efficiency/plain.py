"""Plain Ray Tune and Optuna, as their own documentation puts them together: nothing of this search.

    python experiments/search_efficiency/plain.py OUT_DIR SEED [TRIALS [MODEL]]

100 trials of lenet_300_100 unless given; the dense weights are OUT_DIR/dense.safetensors, or where that is not there
the package's. FIFO, two metrics, every trial from the dense model, 4 rounds of an epoch, ratios uniform in [0, 0.995];
a trial's result is its last round. Writes OUT_DIR/plain-SEED.csv: trial, CPU seconds of the trial and of the driver
since the trial before, compression, validation error; the last row, without a point, holds the driver's after the
last trial.
"""

import csv
import logging
import sys
import time
from pathlib import Path
from typing import Any

import ray
import torch
from meter import Meter, charged
from optuna.samplers import TPESampler
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from tune_prune.pruning import iterative, masks
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.pruning.plan import Plan
from tune_prune.tasks import task

PROTOCOL: dict[str, Any] = {"rounds": 4, "steps": 390, "final_steps": 390, "lr": 0.067}
"""Rounds of one epoch; the learning rate is near the middle of the search space's range."""


def plan(ratios: dict[str, float], pruner: str = "mag") -> Plan:
    """The trial that every baseline runs."""
    return Plan(ratios, dict.fromkeys(ratios, pruner), **PROTOCOL)


def dense(out: Path, model: str = "lenet_300_100") -> task.Task:
    """The model that every method prunes."""
    weights = out / "dense.safetensors"
    there = str(weights) if weights.exists() else None
    return task.prepare_task(model, load_dense_model(model, there, ""), "mnist", torch.device("cpu"))[0]


def layers(made: task.Task) -> list[str]:
    """The labels of its layers."""
    return list(masks.prunable(made.dense_model(torch.device("cpu"))))


def objective(config: dict[str, float], made: task.Task) -> None:
    """One trial, in a process of its own, as Ray runs functions: what it took to start is the trial's."""
    torch.set_num_threads(1)
    state = iterative.initial_state(made.dense_model(torch.device("cpu")))
    chosen = plan({name.removeprefix("ratio_"): ratio for name, ratio in config.items()})
    for point in iterative.prune(state, chosen, made.train, made.validation, 0):
        tune.report({"compression": point.compression, "val_error": point.metric, "cpu": time.process_time()})


def main() -> None:
    """Run the trials and write their last points in the order in which they ended."""
    out, seed = Path(sys.argv[1]).absolute(), int(sys.argv[2])
    trials = int(sys.argv[3]) if len(sys.argv) > 3 else 100
    meter = Meter()
    made = dense(out, *sys.argv[4:5])
    ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_parameters(objective, made=made),
        param_space={f"ratio_{layer}": tune.uniform(0, 0.995) for layer in layers(made)},
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(
                metric=["compression", "val_error"], mode=["max", "min"], sampler=TPESampler(seed=seed)
            ),
            num_samples=trials,
        ),
        run_config=tune.RunConfig(storage_path=str(out / "ray"), name=f"plain-{seed}", verbose=0),
    )
    grid = tuner.fit()
    ended = (grid[i].metrics for i in range(len(grid)))
    results = sorted((metrics for metrics in ended if metrics), key=lambda m: m["timestamp"])
    meter.stop()
    seconds = charged([(m["timestamp"], m["cpu"]) for m in results], meter)
    with (out / f"plain-{seed}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trial", "cpu_seconds", "compression", "val_error"])
        found = zip(results, seconds, strict=True)
        writer.writerows([i, spent, m["compression"], m["val_error"]] for i, (m, spent) in enumerate(found))
        writer.writerow([-1, meter.until(time.time()) - meter.until(results[-1]["timestamp"]), "", ""])


if __name__ == "__main__":
    main()
