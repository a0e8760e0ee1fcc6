"""What a user does who knows pruning and searches nothing: one rule for the layers, a few long gradual trajectories.

    OMP_NUM_THREADS=1 python experiments/search_efficiency/gradual.py OUT_DIR MODEL RULE SEED [SHARE]
    python experiments/search_efficiency/gradual.py OUT_DIR MODEL table

MODEL is lenet_300_100 or lenet5; its dense weights are OUT_DIR/dense.safetensors, or where that is not there the
package's. Each trajectory goes from the dense model to a factor of its own in sixteen rounds, each of which leaves the
same share of the weights; the last trains three times as long. Every round is a point, and learning rate, distillation
and pruner are those of the shipped space. SHARE, 1 unless given, is the share of the steps that are spent. RULE is

- uniform, erk: ratios by layer, as in baselines.py;
- global: one threshold for all layers, found again in every round;
- lamp: the same with scores that are relative to the layer's larger weights (Lee et al. 2021, eq. 3);
- curves: the ratios that raise the loss least, by the layers' loss curves (`workflows/initial_trials.py`).

Writes OUT_DIR/gradual/RULE-SEED.csv: trial, CPU seconds, steps, compression and validation error, a row a round; and
the test error where a round is on the front of all of them, which validation images chose: nothing is chosen by it. The
second command reads these tables.
"""

import csv
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from baselines import CPU, RULES
from plain import dense
from torch import Tensor

from tune_prune.common.seeding import derive_seed
from tune_prune.hpo.parameters import Range
from tune_prune.pruning import criteria, iterative, masks
from tune_prune.pruning.plan import Plan
from tune_prune.results.pareto import front, hypervolume
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.task import Task
from tune_prune.workflows.initial_trials import compression_levels, measure_curves

ROUNDS, LAST = 16, 3
"""The rounds of a trajectory, and how many times as long the last one trains."""


@dataclass(frozen=True)
class Case:
    """The factors at which trajectories end, the steps of all of them together, and the limit in percent."""

    factors: tuple[float, ...]
    steps: int
    limit: float


CASES = {
    "lenet_300_100": Case((12, 25, 50, 100, 200), 150_000, 2.25),
    "lenet5": Case((40, 110), 21_300, 1.04),
}


@criteria.criterion
def lamp(weight: Tensor) -> Tensor:
    """w^2 / the sum of all u^2 >= w^2 of the layer (Lee et al. 2021, eq. 3)."""
    squares, order = weight.flatten().double().square().sort(stable=True)
    larger = squares.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    scores[order] = squares / larger.clamp(min=1e-300)
    return scores.view_as(weight)


def make_plan(rule: str, factor: float, task: Task, steps: int) -> Plan:
    """The trajectory that ends at a factor."""
    weights = {label: weight.detach() for label, weight in masks.prunable(task.dense_model(CPU)).items()}
    if rule == "curves":
        curves = measure_curves(task, dict.fromkeys(weights, Range(0.0, 0.9999)), "mag", CPU)
        (ratios,) = compression_levels(curves, 0, [factor])
    else:
        ratios = RULES["uniform" if rule in ("global", "lamp") else rule](weights, factor)
    step = steps // (ROUNDS - 1 + LAST)
    return Plan(
        ratios, dict.fromkeys(ratios, "lamp" if rule == "lamp" else "mag"), rounds=ROUNDS, schedule="geometric",
        steps=step, final_steps=step * LAST, lr=0.1, distill=0.7, temperature=2,
        mode="global" if rule in ("global", "lamp") else "layer",
    )  # fmt: skip


def table(out: Path, limit: float) -> None:
    """Prints each rule's CPU seconds, and the hypervolume of its front as it was chosen and on test images."""
    print("| rule | seed | CPU seconds | hypervolume, validation | on test images | most compressed: both errors |")
    print("|---|---|---|---|---|---|")
    for path in sorted((out / "gradual").glob("*-*.csv")):
        rule, _, seed = path.stem.rpartition("-")
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        seconds = sum(float(row["cpu_seconds"]) for row in rows)
        members = [{key: float(value) for key, value in row.items()} for row in rows if row["test_error"]]
        chosen, tested = (
            hypervolume([(row["compression"], row[name]) for row in members], limit)
            for name in ("val_error", "test_error")
        )
        last = max(members, key=lambda row: row["compression"])
        errors = f"{last['val_error']:.2f} %, {last['test_error']:.2f} %"
        end = f"{1 / (1 - last['compression']):.1f}x: {errors}"
        print(f"| {rule} | {seed} | {seconds:.0f} | {chosen:.4f} | {tested:.4f} | {end} |")


def main() -> None:
    """See the top of the file."""
    out, model = Path(sys.argv[1]).absolute(), sys.argv[2]
    if sys.argv[3] == "table":
        table(out, CASES[model].limit)
    else:
        run(out, model, sys.argv[3], int(sys.argv[4]), float(sys.argv[5]) if len(sys.argv) > 5 else 1.0)


def run(out: Path, model: str, rule: str, seed: int, share: float) -> None:
    """Runs the trajectories of a rule."""
    case = CASES[model]
    torch.set_num_threads(1)
    task, rows, states = dense(out, model), list[list[Any]](), list[dict[str, Tensor]]()
    used = time.process_time()
    for number, factor in enumerate(case.factors):
        plan = make_plan(rule, factor, task, int(case.steps * share / len(case.factors)))
        state, teacher = iterative.initial_state(task.dense_model(CPU)), task.make_teacher(plan.distill)
        trial_seed = derive_seed(seed, number)
        for point in iterative.prune(state, plan, task.train, task.validation, trial_seed, teacher):
            before, used = used, time.process_time()
            steps = plan.recipe_at(point.round).steps
            rows.append([number, f"{used - before:.2f}", steps, point.compression, point.metric, ""])
            states.append({name: value.clone() for name, value in state.model.state_dict().items()})
            print(
                f"{rule} {seed}: {factor:g}x, round {point.round}, {point.factor:.1f}x, {point.metric:.2f} %",
                flush=True,
            )
    test, tested = load_data("mnist").load_test(), task.dense_model(CPU)
    for at in front([(row[3], row[4] if row[4] <= case.limit else math.inf) for row in rows]):
        tested.load_state_dict(states[at])
        rows[at][-1] = evaluate(tested, test).metric
    (out / "gradual").mkdir(parents=True, exist_ok=True)
    path = out / "gradual" / f"{rule}-{seed}.csv"
    with path.with_suffix(".part").open("w", newline="", encoding="utf-8") as file:
        columns = ["trial", "cpu_seconds", "steps", "compression", "val_error", "test_error"]
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
    path.with_suffix(".part").rename(path)


if __name__ == "__main__":
    main()
