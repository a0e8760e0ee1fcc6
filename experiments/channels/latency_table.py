"""Predicts the latency of pruned networks from a table, and compares it with what is measured.

    OMP_NUM_THREADS=1 python experiments/channels/latency_table.py MODEL... [--batch N]
    python experiments/channels/latency_table.py table

Of each model of torchvision a table is measured, as a search does: the dense model and 30 networks whose groups keep a
random share of their channels, from 0.1 to 1. Then 50 others are predicted, and measured in turn with the dense model.
"""

import argparse
import csv
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from tune_prune.export.compaction import find_removable, shrink
from tune_prune.export.latency.measuring import measure_table
from tune_prune.export.latency.prediction import cross_validate, fit_latency
from tune_prune.export.latency.programs import record_program
from tune_prune.export.latency.readings import compare_latency
from tune_prune.pruning import masks
from tune_prune.pruning.channels import removal
from tune_prune.pruning.channels.groups import Group
from tune_prune.workflows.latency import NETWORKS

RESULTS = Path(__file__).parent / "results" / "latency_table.csv"
COLUMNS = ["model", "batch", "device", "dense_ms", "table_seconds", "cross_validated", "predicted", "measured", "macs"]
UNSEEN = 50


def prune(model: nn.Module, groups: list[Group], inputs: Tensor, generator: random.Random) -> nn.Module:
    """A network that is left of a model when groups lose random channels, a random share each."""
    found = masks.dense_masks(model)
    scores = {label: torch.rand_like(mask) for label, mask in found.items()}
    ratios = {group.name: generator.uniform(0, 0.9) for group in groups}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = shrink(model, removal.remove(model, groups, found, scores, ratios), inputs, groups)
    model.load_state_dict(state)
    return small


def measure(name: str, batch: int) -> Iterator[dict[str, object]]:
    """A row of COLUMNS for each unseen network."""
    torch.manual_seed(0)
    generator = random.Random(0)
    model, samples = torchvision.models.get_model(name, weights=None).eval(), torch.randn(max(batch, 2), 3, 224, 224)
    groups, inputs = find_removable(model, samples[:2]).groups, samples[:batch]
    began = time.perf_counter()
    networks = (prune(model, groups, samples[:2], generator) for _ in range(NETWORKS))
    table = measure_table(model, networks, inputs, batch, print)
    seconds, fitted, error = time.perf_counter() - began, fit_latency(table.pruned), cross_validate(table)
    dense_flops = sum(cost.flops for cost in table.networks[0].costs)
    for _ in range(UNSEEN):
        network = prune(model, groups, samples[:2], generator)
        costs = record_program(network, inputs).costs
        yield {
            "model": name,
            "batch": batch,
            "device": table.device,
            "dense_ms": f"{1000 * table.dense_seconds:.3f}",
            "table_seconds": f"{seconds:.0f}",
            "cross_validated": f"{error:.4f}",
            "predicted": f"{fitted.predict_seconds(costs) / table.dense_seconds:.4f}",
            "measured": f"{compare_latency(model, network, inputs).share:.4f}",
            "macs": f"{sum(cost.flops for cost in costs) / dense_flops:.4f}",
        }


def fit_line(shares: list[float], measured: list[float]) -> list[float]:
    """What the best line through the measured times predicts from shares of multiply-adds, in relative squares."""
    rows = torch.tensor([[share, 1.0] for share in shares], dtype=torch.float64)
    times = torch.tensor(measured, dtype=torch.float64)
    line = torch.linalg.lstsq(rows / times[:, None], torch.ones_like(times)[:, None]).solution
    return [float(value) for value in (rows @ line).flatten()]


def show() -> None:
    """Prints the table of errors; the last column is of multiply-adds with the line that fits these networks best."""
    with RESULTS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    print("| model, batch | dense, ms | share measured | median error | nine in ten | largest | by multiply-adds |")
    print("|---|---|---|---|---|---|---|")
    for key in dict.fromkeys((row["model"], row["batch"]) for row in rows):
        own = [row for row in rows if (row["model"], row["batch"]) == key]
        measured, predicted, macs = ([float(row[name]) for row in own] for name in ("measured", "predicted", "macs"))
        errors = sorted(abs(guess / share - 1) for guess, share in zip(predicted, measured, strict=True))
        by_macs = [abs(guess / share - 1) for guess, share in zip(fit_line(macs, measured), measured, strict=True)]
        print(
            f"| {key[0]}, {key[1]} | {float(own[0]['dense_ms']):.1f} | {min(measured):.2f} to {max(measured):.2f} "
            f"| {100 * statistics.median(errors):.1f} % | {100 * errors[int(0.9 * len(errors))]:.1f} % "
            f"| {100 * errors[-1]:.1f} % | {100 * statistics.median(by_macs):.1f} % |"
        )


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    if options.models == ["table"]:
        show()
        return
    torch.set_num_threads(1)
    is_new = not RESULTS.exists()
    with RESULTS.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        for model in options.models:
            for row in measure(model, options.batch):
                writer.writerow(row)
                file.flush()


if __name__ == "__main__":
    main()
