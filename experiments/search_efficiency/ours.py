"""This search on a model, whole or with one part switched off.

    python experiments/search_efficiency/ours.py OUT_DIR VARIANT SEED [TRIALS [TRADEOFF [MODEL]]]

MODEL is lenet_300_100 unless given, in its shipped space; its dense weights are OUT_DIR/dense.safetensors, or where
that is not there the package's. VARIANT is whole, or what is switched off: learn_from_rounds, early_stopping,
initial_trials, warm_start, refine.

Writes OUT_DIR/VARIANT-SEED.csv: trial, CPU seconds, compression, validation error, a row a round, in the order in which
trials ended. CPU seconds are the trial's and the driver's since the trial before; they are on its first row, and 0 on
its others. The last row, without a point, holds the driver's after the last trial. The front goes to
OUT_DIR/fronts/VARIANT-SEED.csv.
"""

import csv
import json
import shutil
import sys
import time
from pathlib import Path

from meter import Meter, charged

from tune_prune.cli import main as command_line
from tune_prune.results import records

FEATURES = ("learn_from_rounds", "early_stopping", "warm_start")
"""Variants that switch off the key of this name under [features]."""

DEFAULTS = ("150", "0.8", "lenet_300_100")
"""So many trials take about as long as 100 of plain.py; points of validation error to give up; the model."""

SPACES = Path(__file__).parents[2] / "search_spaces"


def space(variant: str, model: str, dense: Path) -> str:
    """The text of the model's space, for these dense weights if they are there, with one part switched off."""
    text = (SPACES / f"{model}.toml").read_text(encoding="utf-8")
    if dense.exists():
        text = text.replace("[space]", f"weights = {json.dumps(str(dense))}\n\n[space]", 1)
    if variant == "initial_trials":
        return text.replace("trials = 16", "trials = 0")
    if variant == "refine":
        return text.replace("share = ", "share = 0 # ")
    return f"{text}\n[features]\n{variant} = false\n" if variant in FEATURES else text


def main() -> None:
    """Search, then write what its records hold."""
    out, variant, seed = Path(sys.argv[1]).absolute(), sys.argv[2], sys.argv[3]
    run_dir, toml = out / "runs" / f"{variant}-{seed}", out / f"{variant}.toml"
    trials, tradeoff, model = [*sys.argv[4:7], *DEFAULTS[len(sys.argv[4:7]) :]]
    out.mkdir(parents=True, exist_ok=True)
    toml.write_text(space(variant, model, out / "dense.safetensors"), encoding="utf-8")
    flags = ["--space", str(toml), "--seed", seed, "--run-dir", str(run_dir), "--quiet"]
    flags += ["--budget", trials, "--acc-tradeoff", tradeoff]
    meter = Meter()
    sys.argv[1:] = flags
    try:
        command_line.main("search")
    except SystemExit as ended:
        if ended.code:
            raise
    meter.stop()
    write(out / f"{variant}-{seed}.csv", run_dir, meter)
    (out / "fronts").mkdir(exist_ok=True)
    shutil.copyfile(run_dir / "pareto.csv", out / "fronts" / f"{variant}-{seed}.csv")


def write(path: Path, run_dir: Path, meter: Meter) -> None:
    """The table of a run."""
    ends = [(records.record_path(run_dir, r.trial).stat().st_mtime, r) for r in records.read_all(run_dir)]
    by_end = sorted(ends, key=lambda end: end[0])
    seconds = charged([(end, record.cpu_seconds) for end, record in by_end], meter)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trial", "cpu_seconds", "compression", "val_error"])
        for (_, record), spent in zip(by_end, seconds, strict=True):
            for i, point in enumerate(record.points):
                writer.writerow([record.trial, 0 if i else spent, point.compression, point.val_metric])
        writer.writerow([-1, meter.until(time.time()) - meter.until(by_end[-1][0]), "", ""])


if __name__ == "__main__":
    main()
