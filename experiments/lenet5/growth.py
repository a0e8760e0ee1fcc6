"""How much longer should the last round of gradual pruning train than the first? The rounds of runs, compared.

    python experiments/lenet5/growth.py OUT.csv GROWTH RUN_DIR ...    # adds runs whose space has this growth
    python experiments/lenet5/growth.py OUT.csv table

A row is a round: the run's growth and seed, the factor, steps, CPU seconds, validation error and loss.
The table has the error and the loss at some factors, with the steps and CPU seconds until the last of them.
"""

import csv
import json
import sys
from pathlib import Path

from tune_prune.results import records

COLUMNS = ["growth", "seed", "factor", "steps", "cpu_seconds", "val_error", "val_loss"]
SHOWN = (47, 84, 113, 152)
"""The factors of rounds that the table shows."""


def read_run(growth: str, run_dir: Path) -> list[list[object]]:
    """The rounds of gradual pruning of a run."""
    seed = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))["seed"]
    rows = list[list[object]]()
    for record in records.read_all(run_dir):
        if record.kind == "gradual" and record.points:
            point, steps = record.last, record.params.to_plan().recipe_at(1).steps
            rows.append([growth, seed, point.factor, steps, record.cpu_seconds, point.val_metric, point.val_loss])
    return rows


def table(path: Path) -> None:
    """Prints each run's errors at some of its rounds."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    shown = " | ".join(f"error (loss) at {factor}x" for factor in SHOWN)
    print(f"| growth | seed | {shown} | steps to {SHOWN[-1]}x | CPU seconds |\n" + "|---" * (len(SHOWN) + 4) + "|")
    for growth, seed in sorted({(row["growth"], row["seed"]) for row in rows}):
        own = [row for row in rows if (row["growth"], row["seed"]) == (growth, seed)]
        cells = list[str]()
        for factor in SHOWN:
            near = [row for row in own if abs(row["factor"] / factor - 1) < 0.02]
            cells += [f"{near[0]['val_error']:.2f} % ({near[0]['val_loss']:.4f})" if near else "-"]
        until = [row for row in own if row["factor"] < 1.02 * SHOWN[-1]]
        steps, seconds = (sum(row[name] for row in until) for name in ("steps", "cpu_seconds"))
        print(f"| {growth:g} | {seed:g} | {' | '.join(cells)} | {steps:,.0f} | {seconds:.0f} |")


def main() -> None:
    """See the top of the file."""
    path = Path(sys.argv[1])
    if sys.argv[2] == "table":
        table(path)
        return
    begun = path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not begun:
            writer.writerow(COLUMNS)
        for name in sys.argv[3:]:
            writer.writerows(read_run(sys.argv[2], Path(name)))


if __name__ == "__main__":
    main()
