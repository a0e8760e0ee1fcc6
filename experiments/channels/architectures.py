"""Cuts half of the channels of every group of the architectures of experiments/architectures, and compares outputs.

    OMP_NUM_THREADS=1 python experiments/channels/architectures.py transformers/ timm/ [--granularity block]
    OMP_NUM_THREADS=1 python experiments/channels/architectures.py timm/ --again    # those that failed, too
    python experiments/channels/architectures.py --table [--granularity block]

Weights are random, those too that begin as zeros or ones, so that every branch counts. A row says how many groups there
are, what share of the weights is left where half of each leaves, or with the granularity block all of their blocks, the
largest difference of the outputs from those of the whole model with masks, as a share of the largest output, what went
wrong, and why channels of layers stay, with the number of layers. Rows that are there are not made again.
"""

import argparse
import re
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "architectures"))
import catalogue
from compare import add_rows, cut, read_rows

from tune_prune.common.errors import UserError
from tune_prune.pruning import masks
from tune_prune.pruning.channels.tracer import as_batch
from tune_prune.tasks.batches import call_model, record_calls
from tune_prune.tasks.outputs import differ
from tune_prune.tasks.random_states import seeded_generators

FOLDER = Path(__file__).parent / "results"
RESULTS = {"channel": FOLDER / "architectures.csv", "block": FOLDER / "blocks.csv"}
COLUMNS = ["model", "groups", "left", "difference", "seconds", "error", "staying"]
SECONDS = 900
"""The time after which a model is given up."""


def measure(key: str, granularity: str) -> dict[str, object]:
    """A row of COLUMNS."""
    torch.manual_seed(0)
    case, began = catalogue.cases()[key], time.perf_counter()
    model = case.make()
    draw_constants(model)
    with record_calls(model.train()) as calls:
        case.loss(model)
    model.eval().requires_grad_(False)
    inputs = as_batch(model, calls[-1])
    row: dict[str, object] = {"model": key}
    try:
        whole, small, found = cut(model, inputs, granularity)
        outputs = []
        for network in (whole, small):
            with torch.no_grad(), seeded_generators(0):
                outputs.append(call_model(network, inputs))
        counts = [sum(weight.numel() for weight in masks.prunable(one).values()) for one in (whole, small)]
        row |= {"groups": len(found.groups), "left": f"{counts[1] / counts[0]:.3f}", "staying": count(found.staying)}
        row |= {"difference": f"{differ(*outputs):.2g}"}
    except UserError as error:
        row["error"] = str(error)
    return row | {"seconds": f"{time.perf_counter() - began:.1f}"}


@torch.no_grad()
def draw_constants(model: nn.Module) -> None:
    """Draws parameters at random that begin as constants, as the last norm of a block or a layer scale."""
    for parameter in model.parameters():
        if parameter.numel() and bool((parameter == parameter.flatten()[0]).all()):
            parameter.uniform_(0.5, 1.5) if parameter.flatten()[0] else parameter.normal_(0, 0.1)


def count(staying: Mapping[str, str]) -> str:
    """The reasons why channels stay, the most frequent first, with the number of layers that each holds for."""
    told = [re.sub(r" in \S+ needs", " needs", reason) for reason in staying.values()]
    reasons = Counter(re.sub(r"\d+", "N", reason)[:150] for reason in told)
    return "; ".join(f"{number} x {reason}" for reason, number in reasons.most_common())


def give_up(*_: int | FrameType | None) -> None:
    """Ends the measurement of a model."""
    raise TimeoutError(f"more than {SECONDS} s")


def print_table(granularity: str) -> None:
    """Prints by library how many models lose channels or blocks and compute the same, and the reasons of the others."""
    rows = read_rows(RESULTS[granularity])
    found: Counter[tuple[str, str]] = Counter()
    for row in rows:
        found[row["model"].partition("/")[0], judge(row)] += 1
    for (library, what), number in sorted(found.items()):
        names = [row["model"] for row in rows if row["model"].startswith(library)]
        print(f"{library}: {number} of {len(names)}: {what}")


def judge(row: Mapping[str, str]) -> str:
    """What a row says of its model in a few words."""
    exact = row["difference"] and float(row["difference"]) <= 1e-4
    return row["error"] or ("whole" if row["groups"] == "0" else "exact" if exact else "differs")


def main() -> None:
    """See the top of the file."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", help="what the keys of architectures begin with, in this order")
    parser.add_argument("--granularity", choices=list(RESULTS), default="channel")
    parser.add_argument("--again", action="store_true", help="also those whose rows are not exact")
    parser.add_argument("--table", action="store_true", help="print the counts, and measure nothing")
    options = parser.parse_args()
    path = RESULTS[options.granularity]
    if options.table:
        print_table(options.granularity)
        return
    chosen = [key for prefix in options.keys for key in catalogue.cases() if key.startswith(prefix)]
    rows = read_rows(path)
    if options.again:
        rows = [row for row in rows if judge(row) == "exact" or row["model"] not in chosen]
        path.unlink(missing_ok=True)
        add_rows(path, COLUMNS, rows)
    there = {row["model"] for row in rows}
    signal.signal(signal.SIGALRM, give_up)
    for key in dict.fromkeys(chosen):
        if key in there:
            continue
        signal.alarm(SECONDS)
        try:
            row = measure(key, options.granularity)
        except Exception as error:  # any library's
            row = {"model": key, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
        signal.alarm(0)
        add_rows(path, COLUMNS, [row])
        print(row, flush=True)


if __name__ == "__main__":
    main()
