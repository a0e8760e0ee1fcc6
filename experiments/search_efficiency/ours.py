"""This search on lenet_300_100, whole or with one part switched off.

    python experiments/search_efficiency/ours.py OUT_DIR VARIANT SEED [TRIALS [TRADEOFF]]

OUT_DIR/dense.safetensors is pruned, in the shipped space. VARIANT is whole, or what is switched off: rounds, stop,
prior, inherit, finish. Writes OUT_DIR/VARIANT-SEED.csv: trial, CPU seconds, compression, validation error, a row a
round, in the order in which trials ended. CPU seconds are the trial's and the driver's since the trial before; they are
on its first row, and 0 on its others. The last row, without a point, holds the driver's after the last trial.
"""

import csv
import json
import sys
import time
from pathlib import Path

from meter import Meter, charged

from tune_prune import cli, records

SWITCHES = {
    "whole": "",
    "rounds": "[economy]\nrounds = false\n",
    "stop": "[economy]\nstop = false\n",
    "inherit": "[economy]\ninherit = false\n",
}
DEFAULTS = ("150", "0.8")
"""So many trials take about as long as 100 of plain.py; points of validation error to give up."""

SPACE = Path(__file__).parents[2] / "search_spaces" / "lenet_300_100.toml"


def space(variant: str, dense: Path) -> str:
    """The text of the space, for these dense weights, with one part switched off."""
    text = SPACE.read_text(encoding="utf-8").replace("[space]", f"weights = {json.dumps(str(dense))}\n\n[space]", 1)
    if variant == "prior":
        return text.replace("levels = 16", "levels = 0")
    if variant == "finish":
        return text.replace("share = ", "share = 0 # ")
    return text + "\n" + SWITCHES[variant]


def main() -> None:
    """Search, then write what its records hold."""
    out, variant, seed = Path(sys.argv[1]).absolute(), sys.argv[2], sys.argv[3]
    run_dir, toml = out / "runs" / f"{variant}-{seed}", out / f"{variant}.toml"
    toml.write_text(space(variant, out / "dense.safetensors"), encoding="utf-8")
    flags = ["--space", str(toml), "--seed", seed, "--run-dir", str(run_dir), "--quiet"]
    trials, tradeoff = [*sys.argv[4:6], *DEFAULTS[len(sys.argv[4:6]) :]]
    flags += ["--budget", trials, "--acc-tradeoff", tradeoff]
    meter = Meter()
    sys.argv[1:] = flags
    try:
        cli.main("search")
    except SystemExit as ended:
        if ended.code:
            raise
    meter.stop()
    write(out / f"{variant}-{seed}.csv", run_dir, meter)


def write(path: Path, run_dir: Path, meter: Meter) -> None:
    """The table of a run."""
    ends = [(records.path_of(run_dir, r.trial).stat().st_mtime, r) for r in records.read_all(run_dir)]
    by_end = sorted(ends, key=lambda end: end[0])
    seconds = charged([(end, record.cpu_seconds) for end, record in by_end], meter)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trial", "cpu_seconds", "compression", "val_error"])
        for (_, record), spent in zip(by_end, seconds, strict=True):
            for i, point in enumerate(record.points):
                writer.writerow([record.trial, 0 if i else spent, point.compression, point.val_error])
        writer.writerow([-1, meter.until(time.time()) - meter.until(by_end[-1][0]), "", ""])


if __name__ == "__main__":
    main()
