"""ResNet-20 on Fashion-MNIST: the search's front beside those of rules, at an equal number of training steps.

    python experiments/search_efficiency/fashion.py OUT_DIR search|longer RUN_DIR
    python experiments/search_efficiency/fashion.py OUT_DIR METHOD FACTOR LR STEPS
    python experiments/search_efficiency/fashion.py OUT_DIR table
    python experiments/search_efficiency/fashion.py OUT_DIR picture LIMIT

The last draws fronts.png alone, for which neither model nor data is needed.
The first writes OUT_DIR/search.csv from a run directory of the search, which may still go on; longer.csv from one by
longer.toml, of fewer and longer trials. The second prunes the
dense model of experiments/tasks/resnet20_fashion to FACTOR times fewer weights, with STEPS steps in all:

- uniform: one ratio for all layers but the first, in three rounds like those of a trial, the last with half the steps;
- erk: the same with the ratios of Evci et al. 2020;
- gradual: one ratio, in twenty small rounds over half of the steps (Zhu and Gupta 2017), then the other half.

Each round's learning rate begins at LR again and falls along a cosine, as in the search; pruner, distillation and
weight decay are the search's too. Writes OUT_DIR/METHOD-FACTOR-LR.csv. Rows are trial, round, training steps and
wall-clock seconds since the row before, compression, validation error, and of a last round the test error, which
nothing is chosen by. fashion.sh runs everything; the table takes what is there.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from baselines import RULES
from matplotlib.figure import Figure
from table import COLOURS, read_rows, write_rows
from torch import Tensor

from tune_prune.pruning import iterative, masks
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.pruning.plan import Plan
from tune_prune.results import records
from tune_prune.results.pareto import front, hypervolume
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.splits import AnySplit
from tune_prune.tasks.task import Task, prepare_task

CASE = Path(__file__).parents[1] / "tasks" / "resnet20_fashion"
COLUMNS = ["trial", "round", "steps", "seconds", "compression", "val_error", "test_error"]
TRADEOFF = 0.5
NAMES = {
    "search": "this search",
    "longer": "this search, fewer and longer trials",
    "gradual": "gradual pruning, one ratio",
    "erk": "ERK",
    "uniform": "one ratio for all layers",
}
"""The methods in words, in the order of the table."""

SEARCHES = ("search", "longer")
CPU = torch.device("cpu")

Row = Sequence[object]


def read_search(run_dir: Path) -> list[Row]:
    """Every round of a search that has ended, in the order in which trials ended; test errors of its front."""
    tested: dict[tuple[int, float], str] = {}
    if (run_dir / "pareto.csv").exists():
        members = read_rows(run_dir / "pareto.csv")
        tested = {(int(row["trial"]), float(row["compression"])): row["test_error"] for row in members}
    found = sorted(records.read_all(run_dir), key=lambda r: records.record_path(run_dir, r.trial).stat().st_mtime)
    rows = list[Row]()
    for record in found:
        plan = record.params.to_plan()
        for point in record.points:
            spent = plan.recipe_at(point.round).steps, f"{point.seconds:.1f}"
            test = tested.get((record.trial, point.compression), "")
            rows.append([record.trial, point.round, *spent, point.compression, point.val_metric, test])
    return rows


def dense_task() -> tuple[Task, Callable[[], AnySplit]]:
    """The model that every method prunes, and the function that loads its test split."""
    sys.path[:0] = [str(CASE), str(CASE.parents[1] / "resnet20")]
    name = "resnet20:resnet20(channels=1)"
    dense = load_dense_model(name, str(CASE / "dense.safetensors"), "")
    return prepare_task(name, dense, "resnet20_fashion:data", CPU, settings=TaskSettings(precision="bf16"))


def even_ratios(weights: Mapping[str, Tensor], factor: float) -> dict[str, float]:
    """The same ratio in every layer but the first, which stays whole."""
    inner = {label: weight.numel() for label, weight in weights.items() if label != "conv1"}
    kept = (sum(inner.values()) + weights["conv1"].numel()) / factor - weights["conv1"].numel()
    return dict.fromkeys(inner, 1 - kept / sum(inner.values()))


def make_plan(method: str, task: Task, factor: float, lr: float, steps: int) -> Plan:
    """What a rule does."""
    weights = {label: weight.detach() for label, weight in masks.prunable(task.dense_model(CPU)).items()}
    ratios = RULES["erk"](weights, factor) if method == "erk" else even_ratios(weights, factor)
    rounds = 20 if method == "gradual" else 3
    step = steps // 2 // (rounds - 1)
    return Plan(
        ratios, dict.fromkeys(ratios, "mag"), rounds=rounds, steps=step, final_steps=steps - step * (rounds - 1),
        lr=lr, distill=0.5, temperature=2, weight_decay=1e-4,
    )  # fmt: skip


def run(method: str, factor: float, lr: float, steps: int) -> list[Row]:
    """Prunes once; a row a round."""
    torch.set_num_threads(1)
    task, load_test = dense_task()
    plan, state = make_plan(method, task, factor, lr, steps), iterative.initial_state(task.dense_model(CPU))
    rows = list[list[object]]()
    for point in iterative.prune(state, plan, task.train, task.validation, 0, task.make_teacher(plan.distill)):
        spent = plan.recipe_at(point.round).steps, f"{point.seconds:.1f}"
        rows.append([0, point.round, *spent, point.compression, point.metric, ""])
        print(f"{method} {factor:g} {lr:g}: round {point.round}, {point.factor:.1f}x, {point.metric:.2f} %", flush=True)
    rows[-1][-1] = evaluate(state.model, load_test()).metric
    return [*rows]


def table(out: Path) -> None:
    """Prints each method's steps, minutes, hypervolume and furthest point below the limit; draws fronts.png."""
    limit = evaluate((task := dense_task()[0]).dense_model(CPU), task.validation).metric + TRADEOFF
    budget = sum(float(row["steps"]) for row in read_rows(out / "search.csv"))
    print(f"limit {limit:.2f} %, {budget:.0f} training steps in the search\n")
    print(
        "| method | runs | steps | minutes of training | hypervolume | furthest point | its validation and test error |"
    )
    print("|---|---|---|---|---|---|---|")
    for method in NAMES:
        paths, rows = read_method(out, method)
        points, best = find_front(rows, limit)
        steps, minutes = (sum(float(row[key]) for row in rows) for key in ("steps", "seconds"))
        said = f"| {method} | {len(paths)} | {steps:.0f} | {minutes / 60:.0f} | {hypervolume(points, limit):.4f} |"
        last = best[-1] if best else None
        tested = f"{float(last['test_error']):.2f} %" if last and last["test_error"] else "not measured"
        at = f"{masks.factor(float(last['compression'])):.1f}x" if last else "none"
        print(f"{said} {at} | {float(last['val_error']):.2f} %, {tested} |" if last else f"{said} none | |")
    draw(out, limit)


def read_method(out: Path, method: str) -> tuple[list[Path], list[dict[str, str]]]:
    """The tables of a method, and all of their rows."""
    paths = sorted(out.glob(f"{method}.csv" if method in SEARCHES else f"{method}-*.csv"))
    return paths, [row for path in paths for row in read_rows(path)]


def find_front(rows: list[dict[str, str]], limit: float) -> tuple[list[tuple[float, float]], list[dict[str, str]]]:
    """The points within the limit, and the rows that no other dominates."""
    within = [row for row in rows if float(row["val_error"]) <= limit]
    points = [(float(row["compression"]), float(row["val_error"])) for row in within]
    return points, [within[i] for i in front(points)]


def draw(out: Path, limit: float) -> None:
    """Draws the front of each method."""
    figure = Figure(figsize=(9, 4.5), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    for colour, method in zip(COLOURS, NAMES, strict=False):
        _, best = find_front(read_method(out, method)[1], limit)
        x, y = [masks.factor(float(row["compression"])) for row in best], [float(row["val_error"]) for row in best]
        axes.step(x, y, "o-", where="pre", color=colour, label=NAMES[method])
    axes.axhline(limit, color="#1A1A1A", linewidth=1)
    axes.text(1.01, limit, f"limit {limit:.2f} %", transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    axes.set(xscale="log", xlabel="times fewer weights", ylabel="validation error, %")
    ticks = (2, 3, 4, 5, 6, 8, 10, 12)
    axes.set_xticks(ticks, [f"{factor:g}x" for factor in ticks])
    axes.minorticks_off()
    axes.grid(color="#E6E6E6", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Gradual pruning is ahead up to 6x; the search with longer trials goes furthest", loc="left")
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    figure.savefig(out / "fronts.png")


def main() -> None:
    """See the top of the file."""
    out = Path(sys.argv[1]).absolute()
    out.mkdir(parents=True, exist_ok=True)
    if sys.argv[2] == "table":
        table(out)
    elif sys.argv[2] == "picture":
        draw(out, float(sys.argv[3]))
    elif sys.argv[2] in SEARCHES:
        write_rows(out / f"{sys.argv[2]}.csv", COLUMNS, read_search(Path(sys.argv[3])))
    else:
        method, factor, lr, steps = sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
        write_rows(out / f"{method}-{factor:g}-{lr:g}.csv", COLUMNS, run(method, factor, lr, steps))


if __name__ == "__main__":
    main()
