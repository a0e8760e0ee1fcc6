"""Cuts half of the channels of every group of the architectures of experiments/architectures, and compares outputs.

    OMP_NUM_THREADS=1 python experiments/channels/architectures.py [PREFIX [GRANULARITY]]  # such as transformers/ block
    python experiments/channels/architectures.py table [GRANULARITY]

Weights are random. A row says how many groups there are, what share of the weights is left where half of each leaves,
or with the granularity block all of their blocks, the largest difference of the outputs from those of the whole model
with masks, as a share of the largest output, and what went wrong. Rows that are there are not made again.
"""

import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "architectures"))
import catalogue
from compare import add_rows, cut, read_rows

from tune_prune.common.errors import UserError
from tune_prune.export.comparison import Difference
from tune_prune.pruning import masks
from tune_prune.pruning.channels.tracer import as_batch
from tune_prune.tasks.batches import call_model, iterate_tensors, record_calls
from tune_prune.tasks.random_states import seeded_generators

FOLDER = Path(__file__).parent / "results"
RESULTS = {"channel": FOLDER / "architectures.csv", "block": FOLDER / "blocks.csv"}
COLUMNS = ["model", "groups", "left", "difference", "seconds", "error"]


def measure(key: str, granularity: str) -> dict[str, object]:
    """A row of COLUMNS."""
    torch.manual_seed(0)
    case, began = catalogue.cases()[key], time.perf_counter()
    model = case.make()
    with record_calls(model.train()) as calls:
        case.loss(model)
    model.eval().requires_grad_(False)
    inputs = as_batch(model, calls[-1])
    row: dict[str, object] = {"model": key}
    try:
        whole, small, groups = cut(model, inputs, granularity)
        difference = Difference()
        with torch.no_grad():
            outputs: list[list[Tensor]] = []
            for network in (whole, small):
                with seeded_generators(0):
                    outputs.append(list(iterate_tensors(call_model(network, inputs))))
        difference.add(*outputs)
        counts = [sum(weight.numel() for weight in masks.prunable(one).values()) for one in (whole, small)]
        row |= {"groups": groups, "left": f"{counts[1] / counts[0]:.3f}", "difference": f"{difference.share:.2g}"}
    except UserError as error:
        row["error"] = str(error)
    return row | {"seconds": f"{time.perf_counter() - began:.1f}"}


def print_table(granularity: str) -> None:
    """Prints by library how many models lose channels or blocks and compute the same, and the reasons of the others."""
    rows = read_rows(RESULTS[granularity])
    found: Counter[tuple[str, str]] = Counter()
    for row in rows:
        exact = row["difference"] and float(row["difference"]) <= 1e-4
        what = row["error"] or ("whole" if row["groups"] == "0" else "exact" if exact else "differs")
        found[row["model"].partition("/")[0], what] += 1
    for (library, what), count in sorted(found.items()):
        names = [row["model"] for row in rows if row["model"].startswith(library)]
        print(f"{library}: {count} of {len(names)}: {what}")


def main() -> None:
    """See the top of the file."""
    warnings.simplefilter("ignore")
    prefix, granularity = (*sys.argv[1:], *["", "channel"][len(sys.argv) - 1 :])
    if prefix == "table":
        print_table(granularity)
        return
    there = {row["model"] for row in read_rows(RESULTS[granularity])}
    for key in catalogue.cases():
        if key.startswith(prefix) and key not in there:
            try:
                row = measure(key, granularity)
            except Exception as error:  # any library's
                row = {"model": key, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
            add_rows(RESULTS[granularity], COLUMNS, [row])
            print(row, flush=True)


if __name__ == "__main__":
    main()
