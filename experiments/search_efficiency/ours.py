"""This search on lenet_300_100, whole or with one part switched off.

    python experiments/search_efficiency/ours.py OUT_DIR VARIANT SEED [TRIALS]

VARIANT is whole, or what is switched off: rounds, stop, prior, inherit, finish. Writes OUT_DIR/VARIANT-SEED.csv: trial,
CPU seconds, compression, validation error, a row a round. CPU seconds are the trial's on its first row and 0 on others;
the first row of all, without a point, holds the driver's, its start and the layers' curves included.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path

from tune_prune import records

SWITCHES = {
    "whole": "",
    "rounds": "[economy]\nrounds = false\n",
    "stop": "[economy]\nstop = false\n",
    "inherit": "[economy]\ninherit = false\n",
}
SPACE = Path(__file__).parents[2] / "search_spaces" / "lenet_300_100.toml"


def space(variant: str) -> str:
    """The text of the space, with one part switched off."""
    text = SPACE.read_text(encoding="utf-8")
    if variant == "prior":
        return text.replace("levels = 16", "levels = 0")
    if variant == "finish":
        return text.replace("share = ", "share = 0 # ")
    return text + "\n" + SWITCHES[variant]


def main() -> None:
    """Search, then write what its records hold."""
    out, variant, seed = Path(sys.argv[1]).absolute(), sys.argv[2], sys.argv[3]
    run_dir, toml = out / "runs" / f"{variant}-{seed}", out / f"{variant}.toml"
    out.mkdir(parents=True, exist_ok=True)
    toml.write_text(space(variant), encoding="utf-8")
    budget = ["--budget", sys.argv[4]] if len(sys.argv) > 4 else []
    flags = ["--space", str(toml), "--seed", seed, "--run-dir", str(run_dir), "--quiet", *budget]
    subprocess.run([sys.executable, "-m", "tune_prune", "search", *flags], check=True)
    found = records.read_all(run_dir)
    total = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))["cpu_seconds"]
    with (out / f"{variant}-{seed}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trial", "cpu_seconds", "compression", "val_error"])
        writer.writerow([-1, total - sum(record.cpu_seconds for record in found), "", ""])
        for record in found:
            for i, point in enumerate(record.points):
                writer.writerow([record.trial, 0 if i else record.cpu_seconds, point.compression, point.val_error])


if __name__ == "__main__":
    main()
