"""Searches a case twice for as long: in its tuned space, and without a file, in the space that is proposed.

    python experiments/proposals/compare.py OUT CASE SECONDS      # lenet5, resnet20 or gpt2; both searches side by side
    python experiments/proposals/compare.py OUT table

Each search has one core, one trial at a time, and the tradeoff and [task] of the tuned space. Runs and their logs are
written to OUT; one that is there already is left out.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas

ROOT = Path(__file__).parents[2]
TASKS = ROOT / "experiments" / "tasks"


@dataclass(frozen=True)
class Case:
    """A model with its data, by flags, and its tuned space; `path` are the folders of their code, the first the own."""

    space: Path
    tradeoff: float
    flags: tuple[str, ...]
    path: tuple[Path, ...] = (ROOT,)


CASES = {
    "lenet5": Case(ROOT / "search_spaces" / "lenet5.toml", 0.5, ("--model", "lenet5", "--data", "mnist")),
    "resnet20": Case(
        TASKS / "resnet20_fashion" / "space.toml",
        0.5,
        ("--model", "resnet20:resnet20(channels=1)", "--data", "resnet20_fashion:data", "--weights",
         "dense.safetensors", "--precision", "bf16"),
        (TASKS / "resnet20_fashion", ROOT / "experiments" / "resnet20"),
    ),
    "gpt2": Case(
        TASKS / "language_model" / "space.toml",
        0.3,
        ("--model", "language_model:gpt", "--data", "language_model:data", "--weights", "gpt.pth",
         "--metric", "language_model:perplexity", "--optimizer", "torch.optim:AdamW(weight_decay=0.01)"),
        (TASKS / "language_model",),
    ),
}  # fmt: skip
WAYS = ("tuned", "proposed")


def start(out: Path, name: str, way: str, seconds: float) -> subprocess.Popen[bytes] | None:
    """Starts a search of a case for so many seconds, unless its run directory is there."""
    case, run_dir = CASES[name], (out / f"{name}-{way}").absolute()
    if run_dir.exists():
        return None
    what = ("--space", str(case.space)) if way == "tuned" else case.flags
    limits = ("--time-budget", f"{seconds:g}", "--acc-tradeoff", f"{case.tradeoff:g}", "--max-concurrent", "1")
    command = [sys.executable, "-m", "tune_prune", "search", *what, *limits, "--seed", "0", "--run-dir", str(run_dir)]
    path = os.pathsep.join(map(str, (*case.path, ROOT)))
    with (out / f"{name}-{way}.log").open("wb") as log:
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, cwd=case.path[0], env=environment, stdout=log, stderr=subprocess.STDOUT)


def write_table(out: Path) -> None:
    """Prints a row for each case of which both searches have ended."""
    columns = ["case", "minutes", "limit", "tuned: hypervolume", "trials", "furthest", "proposed: hypervolume",
               "trials", "furthest", "share"]  # fmt: skip
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for name in CASES:
        files = [out / f"{name}-{way}" / "summary.json" for way in WAYS]
        if not all(file.is_file() for file in files):
            continue
        tuned, proposed = (json.loads(file.read_text()) for file in files)
        cells = [name, f"{tuned['wall_seconds'] / 60:.0f}", f"{tuned['limit']:.2f}"]
        for way, found in zip(WAYS, (tuned, proposed), strict=True):
            furthest = pandas.read_csv(out / f"{name}-{way}" / "pareto.csv")["factor"].max()
            cells += [f"{found['hypervolume']:.4f}", f"{found['trials']['completed']}", f"{furthest:.1f}x"]
        print("| " + " | ".join([*cells, f"{proposed['hypervolume'] / tuned['hypervolume']:.2f}"]) + " |")


if __name__ == "__main__":
    folder, command = Path(sys.argv[1]), sys.argv[2]
    if command == "table":
        write_table(folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        running = [start(folder, command, way, float(sys.argv[3])) for way in WAYS]
        sys.exit(max((process.wait() for process in running if process), default=0))
