"""What a user does who knows pruning and searches nothing: one rule for the layers, a few long gradual trajectories.

    OMP_NUM_THREADS=1 python experiments/search_efficiency/gradual.py OUT_DIR MODEL RULE SEED [SHARE [DEVICE]]
    python experiments/search_efficiency/gradual.py OUT_DIR MODEL search RUN_DIR
    python experiments/search_efficiency/gradual.py OUT_DIR MODEL table

MODEL is lenet_300_100, lenet5, or resnet20 (on Fashion-MNIST); the dense weights of the first two are
OUT_DIR/dense.safetensors, or where that is not there the package's. Each trajectory goes from the dense model to a
factor of its own in sixteen rounds, each of which leaves the same share of the weights; the last trains three times as
long, and of ResNet-20 for half of the steps. Every round is a point, and learning rate, distillation and pruner are
those of the refinements of the space. SHARE, 1 unless given, is the share of the steps that are spent; DEVICE is
cpu or cuda. With `long_` before its name, all steps of a rule are spent on one trajectory, to 160x or 200x (ResNet-20:
16x), whose rounds train alike. RULE is

- uniform, erk: ratios by layer, as in baselines.py; of ResNet-20 the first layer stays whole in the first of them;
- global: one threshold for all layers, found again in every round;
- lamp: the same with scores that are relative to the layer's larger weights (Lee et al. 2021, eq. 3);
- curves: the ratios that raise the loss least, by the layers' loss curves (`workflows/loss_curves.py`).

Writes OUT_DIR/gradual/RULE-SEED.csv: trial, CPU seconds, steps, compression and validation error, a row a round; and
the test error where a round is on the front of all of them, which validation images chose: nothing is chosen by it. The
second command adds the front of a search, judged by estimates. The third reads these tables. "As chosen" takes for each
factor the member that validation says; a hypervolume of test errors takes the best of all, which flatters large fronts.
"""

import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from baselines import CPU, RULES
from fashion import dense_task, even_ratios
from matplotlib.figure import Figure
from plain import dense
from table import read_rows, write_rows
from torch import Tensor

from tune_prune.common.seeding import derive_seed
from tune_prune.hpo.parameters import Range
from tune_prune.pruning import criteria, iterative, masks
from tune_prune.pruning.plan import Plan
from tune_prune.results import records
from tune_prune.results.pareto import front, hypervolume
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.splits import AnySplit
from tune_prune.tasks.task import Task
from tune_prune.workflows.initial_trials import compression_levels
from tune_prune.workflows.loss_curves import measure_curves

COLUMNS = ["trial", "cpu_seconds", "steps", "compression", "val_error", "test_error"]
LONG = "long_"
"""How the name of a rule begins whose steps are spent on one trajectory."""


@dataclass(frozen=True)
class Way:
    """The factors at which trajectories end, their rounds, and how many times as long the last of these trains."""

    factors: tuple[float, ...]
    rounds: int = 16
    last: int = 3


@dataclass(frozen=True)
class Case:
    """Several trajectories, or one long one; the steps of all of them together, and the limits in percent.

    `test_limit` is that of test errors, where it differs: the dense model's test error and the tradeoff.
    """

    several: Way
    long: Way
    steps: int
    limit: float
    lr: float = 0.1
    distill: float = 0.7
    weight_decay: float = 0.0
    test_limit: float = 0.0

    @property
    def limits(self) -> tuple[float, float]:
        """The limits of validation and of test errors."""
        return self.limit, self.test_limit or self.limit


CASES = {
    "lenet_300_100": Case(Way((12, 25, 50, 100, 200)), Way((200,), 20, 1), 150_000, 2.25),
    "lenet5": Case(Way((40, 110)), Way((160,), 16, 1), 21_300, 1.04),
    "resnet20": Case(Way((4, 6, 8, 10, 14), last=15), Way((16,), 10, 1), 12_700, 5.82, 0.05, 0.5, 1e-4, 6.21),
}


@criteria.criterion
def lamp(weight: Tensor) -> Tensor:
    """w^2 / the sum of all u^2 >= w^2 of the layer (Lee et al. 2021, eq. 3)."""
    squares, order = weight.flatten().double().square().sort(stable=True)
    larger = squares.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    scores[order] = squares / larger.clamp(min=1e-300)
    return scores.view_as(weight)


def load(out: Path, model: str) -> tuple[Task, Callable[[], AnySplit]]:
    """The model that every method prunes with its data, and the function that loads its test split."""
    return dense_task() if model == "resnet20" else (dense(out, model), load_data("mnist").load_test)


def make_plan(rule: str, model: str, way: Way, factor: float, task: Task, steps: int) -> Plan:
    """The trajectory that ends at a factor."""
    case = CASES[model]
    weights = {label: weight.detach() for label, weight in masks.prunable(task.dense_model(CPU)).items()}
    if rule == "curves":
        curves = measure_curves(task, dict.fromkeys(weights, Range(0.0, 0.9999)), "mag", CPU)
        (ratios,) = compression_levels(curves, 0, [factor])
    elif rule == "uniform" and model == "resnet20":
        ratios = even_ratios(weights, factor)
    else:
        ratios = RULES["uniform" if rule in ("global", "lamp") else rule](weights, factor)
    step = steps // (way.rounds - 1 + way.last)
    return Plan(
        ratios, dict.fromkeys(ratios, "lamp" if rule == "lamp" else "mag"), rounds=way.rounds, schedule="geometric",
        steps=step, final_steps=step * way.last, lr=case.lr, distill=case.distill, temperature=2,
        weight_decay=case.weight_decay, mode="global" if rule in ("global", "lamp") else "layer",
    )  # fmt: skip


def add(out: Path, run_dir: Path) -> None:
    """Writes the front of a search that has ended as a table: of each member the estimate, and the test error."""
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    found = records.read_all(run_dir)
    steps = sum(record.params.to_plan().recipe_at(point.round).steps for record in found for point in record.points)
    chosen = ("compression", "val_error_estimate", "test_error")
    members = read_rows(run_dir / "pareto.csv")
    rows: list[list[Any]] = [[row["trial"], 0, 0, *(row[column] for column in chosen)] for row in members]
    rows[0][1:3] = [f"{summary['cpu_seconds']:.1f}", steps]
    write_rows(out / "gradual" / f"search-{summary['seed']}.csv", COLUMNS, rows)


NAMES = {
    "search": "this search",
    "thirty_refinements": "this search, as it was before",
    "levels_to_100": "this search, levels up to 100x",
    "twenty_long_refinements": "this search, twice as many refinements",
    "erk": "ERK",
    "curves": "curves of layers pruned alone",
    "global": "one global threshold",
    "lamp": "LAMP",
    "long_global": "one global threshold, one trajectory",
    "longer_global": "one global threshold, one trajectory, 2.2 times as long",
    "longer_lamp": "LAMP, one trajectory, 2.2 times as long",
    "long_erk": "ERK, one trajectory",
    "grown": "this search, gradual pruning in rounds that grow",
    "equal_rounds": "this search, gradual pruning in rounds that train alike",
    "ten_refinements": "this search, without gradual pruning",
    "uniform": "one ratio for all layers",
}
"""The methods in words."""


@dataclass(frozen=True)
class Row:
    """A run: its CPU seconds and steps, its front as validation chose it, and that front's three hypervolumes."""

    seconds: float
    steps: float
    front: list[dict[str, float]]
    validation: float
    test: float
    as_chosen: float


def read(path: Path, limits: tuple[float, float]) -> Row:
    """Reads the table of a run."""
    rows = read_rows(path)
    seconds, steps = (sum(float(row[name]) for row in rows) for name in ("cpu_seconds", "steps"))
    members = [{key: float(value) for key, value in row.items()} for row in rows if row["test_error"]]
    members.sort(key=lambda row: row["compression"])
    chosen, tested = (
        hypervolume([(row["compression"], row[name]) for row in members], limit)
        for name, limit in zip(("val_error", "test_error"), limits, strict=True)
    )
    # what somebody gets who takes the member that validation says, for each factor from 1 to 1,000 alike
    logs = [0.0, *(math.log10(1 / (1 - row["compression"])) for row in members)]
    strips = [
        (right - left) * max(0.0, limits[1] - row["test_error"])
        for left, right, row in zip(logs, logs[1:], members, strict=False)
    ]
    return Row(seconds, steps, members, chosen, tested, sum(strips) / (3 * limits[1]))


def table(out: Path, limits: tuple[float, float]) -> None:
    """Prints each run's CPU seconds and hypervolumes, and the medians of each method; draws gradual.png."""
    print("| rule | seed | CPU seconds | steps | hypervolume, validation | test | as chosen | furthest: both errors |")
    print("|---|---|---|---|---|---|---|---|")
    found = dict[str, list[Row]]()
    for path in sorted((out / "gradual").glob("*-*.csv")):
        rule, _, seed = path.stem.rpartition("-")
        row = read(path, limits)
        found.setdefault(rule, []).append(row)
        last = row.front[-1]
        end = f"{1 / (1 - last['compression']):.1f}x: {last['val_error']:.2f} %, {last['test_error']:.2f} %"
        three = f"{row.validation:.4f} | {row.test:.4f} | {row.as_chosen:.4f}"
        print(f"| {rule} | {seed} | {row.seconds:.0f} | {row.steps:.0f} | {three} | {end} |")
    print("\n| rule | seeds | CPU seconds | test: median (range) | as chosen: median (range) |\n|---|---|---|---|---|")
    for rule, rows in found.items():
        seconds = statistics.median(row.seconds for row in rows)
        both = " | ".join(
            f"{statistics.median(values):.4f} ({min(values):.4f}-{max(values):.4f})"
            for values in ([row.test for row in rows], [row.as_chosen for row in rows])
        )
        print(f"| {rule} | {len(rows)} | {seconds:.0f} | {both} |")
    draw(out, found)


def draw(out: Path, found: dict[str, list[Row]]) -> None:
    """Draws each run's hypervolume on test images as it was chosen, a row a method, the best median on top."""
    figure = Figure(figsize=(9, 4), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    medians = {rule: statistics.median(row.as_chosen for row in rows) for rule, rows in found.items()}
    for place, rule in enumerate(sorted(found, key=medians.__getitem__)):
        rows, colour = found[rule], "#0072B2" if rule == "search" else "#8A8A8A"
        axes.plot([row.as_chosen for row in rows], [place] * len(rows), "o", color=colour, alpha=0.8, ms=6)
        axes.plot(medians[rule], place, "|", color=colour, ms=22, mew=2.5)
        seconds = statistics.median(row.seconds for row in rows)
        axes.text(1.01, place, f"{seconds:.0f} s", transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    axes.set_yticks(range(len(found)), [NAMES[rule] for rule in sorted(found, key=medians.__getitem__)])
    axes.set(
        xlabel="hypervolume on test images, as chosen: a dot a seed, a bar the median", ylim=(-0.6, len(found) - 0.2)
    )
    axes.text(1.01, len(found) - 0.45, "CPU", transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    axes.grid(axis="x", color="#E6E6E6", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    title = f"Ahead by the median: {NAMES[max(medians, key=medians.__getitem__)]}"
    figure.suptitle(title, x=0.01, ha="left")  # over the names as well, which leave it too little room
    figure.savefig(out / "gradual" / "gradual.png")


def main() -> None:
    """See the top of the file."""
    out, model = Path(sys.argv[1]).absolute(), sys.argv[2]
    if sys.argv[3] == "table":
        table(out, CASES[model].limits)
    elif sys.argv[3] == "search":
        add(out, Path(sys.argv[4]))
    else:
        share = float(sys.argv[5]) if len(sys.argv) > 5 else 1.0
        device = torch.device(sys.argv[6] if len(sys.argv) > 6 else "cpu")
        run(out, model, sys.argv[3], int(sys.argv[4]), share, device)


def run(out: Path, model: str, rule: str, seed: int, share: float, device: torch.device) -> None:
    """Runs the trajectories of a rule."""
    case = CASES[model]
    torch.set_num_threads(1)
    (task, load_test), rows, states = load(out, model), list[list[Any]](), list[dict[str, Tensor]]()
    on_device, used = task.to(device), time.process_time()
    way = case.long if rule.startswith(LONG) else case.several
    for number, factor in enumerate(way.factors):
        steps = int(case.steps * share / len(way.factors))
        plan = make_plan(rule.removeprefix(LONG), model, way, factor, task, steps)
        state, teacher = iterative.initial_state(task.dense_model(device)), on_device.make_teacher(plan.distill)
        trial_seed = derive_seed(seed, number)
        for point in iterative.prune(state, plan, on_device.train, on_device.validation, trial_seed, teacher):
            before, used = used, time.process_time()
            rows.append(
                [number, f"{used - before:.2f}", plan.recipe_at(point.round).steps, point.compression, point.metric, ""]
            )
            states.append({name: value.clone() for name, value in state.model.state_dict().items()})
            print(
                f"{rule} {seed}: {factor:g}x, round {point.round}, {point.factor:.1f}x, {point.metric:.2f} %",
                flush=True,
            )
    test, tested = load_test(), task.dense_model(CPU)
    for at in front([(row[3], row[4] if row[4] <= case.limit else math.inf) for row in rows]):
        tested.load_state_dict(states[at])
        rows[at][-1] = evaluate(tested, test).metric
    write_rows(out / "gradual" / f"{rule}-{seed}.csv", COLUMNS, rows)


if __name__ == "__main__":
    main()
