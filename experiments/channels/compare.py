"""Cuts half of the channels of every group of a model, by this package and by Torch-Pruning, and compares the networks.

    OMP_NUM_THREADS=1 python experiments/channels/compare.py latency MODEL...
    python experiments/channels/compare.py gpu MODEL...
    OMP_NUM_THREADS=1 python experiments/channels/compare.py exact [MODEL...]
    python experiments/channels/compare.py table

`exact` cuts models by this package alone and compares the outputs with those of the whole network with masks. `latency`
cuts one copy by each, and measures processor time on one core, dense, ours and theirs in turn; `gpu` the time on a GPU.
Rows that are there are not made again.
"""

import copy
import csv
import statistics
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
import torchvision
from torch import Tensor, nn
from torch_pruning_survey import build, new_pruner, update_sizes

from tune_prune.export.compaction import compact, find_removable
from tune_prune.pruning import masks
from tune_prune.pruning.channels import removal
from tune_prune.pruning.channels.groups import ModelChannels
from tune_prune.pruning.granularity import CHANNEL
from tune_prune.tasks.batches import Batch

RESULTS = Path(__file__).parent / "results"
EXACT = ["model", "cut", "difference", "groups", "params_before", "params_after", "macs_before", "macs_after"]
READINGS, RATIO = 9, 0.5
TOO_LARGE = {"vit_h_14", "regnet_y_128gf"}  # several copies take more memory than 24 GiB
Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What is measured on: the device, the sizes of batches, and how often a network runs for one reading."""

    device: str
    batches: tuple[int, ...]
    runs: int

    @property
    def columns(self) -> list[str]:
        """Those of the table of latencies."""
        spread = [f"{name}_{batch}" for batch in self.batches for name in ("share", "low", "high")]
        return ["model", "who", "params", "macs", *(f"ms_{batch}" for batch in self.batches), *spread]

    def clock(self) -> float:
        """Seconds of processor time on a CPU; on a GPU of the clock, once it has ended what it was given."""
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


BENCHES = {"latency": Bench("cpu", (1, 16), 1), "gpu": Bench("cuda", (1, 64), 20)}


def cut(model: nn.Module, inputs: Batch, granularity: str = CHANNEL) -> tuple[nn.Module, nn.Module, ModelChannels]:
    """The model with masks on half of each group, or on all blocks; the smaller network, and the groups."""
    channels = find_removable(model, inputs, granularity)
    whole, groups = copy.deepcopy(model), channels.groups
    found = masks.dense_masks(whole)
    scores = {label: torch.rand_like(mask) for label, mask in found.items()}
    ratios = {group.name: 0.999 if group.blocks else RATIO for group in groups}
    masks.apply(whole, removal.remove(whole, groups, found, scores, ratios))
    return whole, compact(whole, inputs), channels


def make(name: str) -> tuple[nn.Module, Tensor]:
    """A model of torchvision with random weights, and inputs for it."""
    torch.manual_seed(0)
    size = 299 if name == "inception_v3" else 224
    return build(name, (torch.randn(1, 3, size, size),)), torch.randn(2, 3, size, size)


@torch.no_grad()
def measure_exact(name: str) -> Row:
    """A row of EXACT."""
    model, inputs = make(name)
    macs, params = tp.utils.count_ops_and_params(model, inputs[:1])
    whole, small, channels = cut(model, inputs)
    expected, found = whole(inputs), small(inputs)
    macs_after, params_after = tp.utils.count_ops_and_params(small, inputs[:1])
    difference = float((expected - found).abs().max() / expected.abs().max())
    row = [
        name,
        params_after < params,
        f"{difference:.2g}",
        len(channels.groups),
        params,
        params_after,
        int(macs),
        int(macs_after),
    ]
    return dict(zip(EXACT, row, strict=True))


@torch.no_grad()
def measure_latency(name: str, bench: Bench) -> list[Row]:
    """The rows of a model: dense, ours, and theirs where Torch-Pruning can cut it."""
    model, inputs = make(name)
    networks = {"dense": model, "ours": cut(model, inputs)[1]}
    theirs = copy.deepcopy(model)
    try:
        with torch.enable_grad():
            new_pruner(theirs, (inputs[:1],)).step()
        update_sizes(theirs)
        theirs(inputs)
        networks["Torch-Pruning"] = theirs
    except Exception as error:
        print(f"{name}: Torch-Pruning fails: {type(error).__name__}: {error}", flush=True)
    rows = {}
    for who, network in networks.items():
        macs, params = tp.utils.count_ops_and_params(network, inputs[:1])
        rows[who] = {"model": name, "who": who, "params": params, "macs": int(macs)}
        network.to(bench.device)
    for batch in bench.batches:
        sample = torch.randn(batch, *inputs.shape[1:]).to(bench.device)
        readings: dict[str, list[float]] = {who: [] for who in networks}
        for _ in range(READINGS + 1):
            for who, network in networks.items():
                began = bench.clock()
                for _ in range(bench.runs):
                    network(sample)
                readings[who].append(1000 * (bench.clock() - began) / bench.runs)
        for who, row in rows.items():  # the first reading of each warms up
            row[f"ms_{batch}"] = f"{statistics.median(readings[who][1:]):.4g}"
        if "Torch-Pruning" in networks:
            pairs = zip(readings["ours"][1:], readings["Torch-Pruning"][1:], strict=True)
            low, middle, high = statistics.quantiles([ours / other for ours, other in pairs], n=4)
            values = (
                (f"share_{batch}", f"{middle:.3f}"),
                (f"low_{batch}", f"{low:.3f}"),
                (f"high_{batch}", f"{high:.3f}"),
            )
            rows["ours"] |= dict(values)
    return list(rows.values())


def add_rows(path: Path, columns: list[str], rows: list[Row]) -> None:
    """Adds rows to a table."""
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if not file.tell():
            writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table, none where there is no such file."""
    return list(csv.DictReader(path.open())) if path.exists() else []


def print_latencies(what: str) -> None:
    """Prints the comparison of latencies on a CPU or a GPU."""
    bench, rows = BENCHES[what], {(row["model"], row["who"]): row for row in read_rows(RESULTS / f"{what}.csv")}
    few, many = bench.batches
    print(f"\nOn {bench.device}: dense / ours / theirs; in brackets the median and the quartiles of ours / theirs.\n")
    print(f"| model | parameters, millions | multiply-adds, millions | ms, {few} image | ms, {many} images |")
    print("|---|---|---|---|---|")
    for name in dict.fromkeys(model for model, _ in rows):
        of_model = [rows.get((name, who), {}) for who in ("dense", "ours", "Torch-Pruning")]
        cells = [
            " / ".join(f"{int(row[key]) / 1e6:.4g}" if row else "-" for row in of_model) for key in ("params", "macs")
        ]
        for batch in bench.batches:
            times = " / ".join(row[f"ms_{batch}"] if row else "-" for row in of_model)
            share = of_model[1].get(f"share_{batch}")
            spread = f" ({share}, {of_model[1][f'low_{batch}']} to {of_model[1][f'high_{batch}']})" if share else ""
            cells.append(times + spread)
        print(f"| {name} | " + " | ".join(cells) + " |")


def print_counts() -> None:
    """Prints how many models each of the two cuts."""
    ours = {row["model"]: row for row in read_rows(RESULTS / "exact.csv")}
    theirs = {row["model"]: row for row in read_rows(RESULTS / "torch_pruning_survey.csv")}
    exact = [name for name, row in ours.items() if row["cut"] == "True" and float(row["difference"]) <= 1e-4]
    print(f"\nours: {len(exact)} of {len(ours)} cut and exact; not: {sorted(set(ours) - set(exact))}")
    cut_by_them = [name for name, row in theirs.items() if row["cut"] == "True" and row["exact"] == "True"]
    print(f"Torch-Pruning: {len(cut_by_them)} of {len(theirs)}; not: {sorted(set(theirs) - set(cut_by_them))}")


def main() -> None:
    """See the top of the file."""
    warnings.simplefilter("ignore")
    what, names = sys.argv[1], sys.argv[2:]
    if what == "table":
        for where in BENCHES:
            print_latencies(where)
        print_counts()
        return
    path, columns = RESULTS / f"{what}.csv", EXACT if what == "exact" else BENCHES[what].columns
    there = {row["model"] for row in read_rows(path)}
    for name in names or torchvision.models.list_models(module=torchvision.models):
        if name not in there and (names or name not in TOO_LARGE):
            rows = [measure_exact(name)] if what == "exact" else measure_latency(name, BENCHES[what])
            add_rows(path, columns, rows)
            print(rows, flush=True)


if __name__ == "__main__":
    main()
