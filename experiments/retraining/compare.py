"""How should a pruned lenet5 be retrained? One configuration (66.5x, ratios by hand), 1,900 steps each, one core.

    OMP_NUM_THREADS=1 python experiments/retraining/compare.py > experiments/retraining/results.txt

Every variant is one run from one seed; the error is on the 10,000 validation images (standard error 0.10 points).
"""

import time
from collections.abc import Mapping

import torch

from tune_prune.pruning import iterative
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.pruning.plan import Plan
from tune_prune.tasks import task

RATIOS = {"1": 0.5, "4": 0.95, "8": 0.99, "10": 0.93, "12": 0.6}
CPU = torch.device("cpu")

VARIANTS: Mapping[str, Mapping[str, float | int | str]] = {
    "8 rounds": {},
    "one-shot": {"rounds": 1, "final_steps": 1800},
    "5 short rounds": {"rounds": 5, "steps": 40, "final_steps": 1640},
    "12 rounds": {"rounds": 12, "steps": 60, "final_steps": 1140},
    "one-shot, 120 steps": {"rounds": 1, "final_steps": 120},
    "lr 0.03": {"lr": 0.03},
    "lr 0.1": {"lr": 0.1},
    "no distillation": {"distill": 0.0},
    "distillation only": {"distill": 1.0},
    "temperature 2": {"temperature": 2.0},
    "taylor1": {"pruner": "taylor1"},
}


def run(made: task.Task, name: str, change: Mapping[str, float | int | str]) -> None:
    """One variant; prints its points."""
    settings = {"rounds": 8, "steps": 100, "final_steps": 1100, "lr": 0.05, "distill": 0.7} | dict(change)
    pruner = str(settings.pop("pruner", "mag"))
    plan = Plan(RATIOS, dict.fromkeys(RATIOS, pruner), **settings)  # type: ignore[arg-type]
    began = time.perf_counter()
    state = iterative.initial_state(made.dense_model(CPU))
    points = list(iterative.prune(state, plan, made.train, made.validation, 1, made.teacher))
    seconds = time.perf_counter() - began
    rounds = "  ".join(f"{point.factor:.1f}x {point.metric:.2f}" for point in points[:-1])
    last = points[-1]
    print(
        f"{name:20} {last.metric:5.2f} %  loss {last.loss:.4f}  {seconds:4.0f} s   rounds before: {rounds}", flush=True
    )


def main() -> None:
    """Every variant in turn."""
    made, _ = task.prepare_task("lenet5", load_dense_model("lenet5", None, ""), "mnist", CPU)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread; dense {made.dense.metric:.2f} %")
    for name, change in VARIANTS.items():
        run(made, name, change)


if __name__ == "__main__":
    main()
