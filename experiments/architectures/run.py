"""Checks all architectures, each in a process of its own, and appends a row for each to a CSV file.

    nice -n 10 python run.py            # those that results.csv does not have yet; may be stopped at any time
    nice -n 10 python run.py --again    # those that failed, too
    nice -n 10 python run.py timm/      # those whose key begins so

`table.py` makes the tables of README.md from the file.
"""

import argparse
import csv
import multiprocessing
import resource
import tempfile
import time
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

import catalogue
import check
import torch

from tune_prune.tasks.models import build

RESULTS = Path(__file__).parent / "results.csv"
COLUMNS = (
    "key", "family", "result", "layers", "counted", "total", "parameters", "compression", "checkpoint_bytes",
    "sparse_bytes", "seconds", "gigabytes", "reduced", "changing", "left_out",
)  # fmt: skip
SECONDS = 1800.0
"""The time after which a check is ended and counts as failed."""


def main() -> None:
    """Runs the checks that are left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefix", nargs="?", default="", help="only keys that begin so")
    parser.add_argument("--again", action="store_true", help="also those that failed")
    options = parser.parse_args()
    rows = read()
    if options.again:
        rows = {key: row for key, row in rows.items() if row["result"] == "ok"}
        write(rows)
    todo = [key for key in catalogue.cases() if key.startswith(options.prefix) and key not in rows]
    for number, key in enumerate(todo, start=1):
        row = run_apart(key)
        is_new = not RESULTS.exists()
        with RESULTS.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow(row)
        taken = f"{row['seconds']} s, {row.get('gigabytes', '?')} GB"  # a process that was ended has not said how much
        print(f"{number}/{len(todo)} {key}: {row['result']} ({taken})", flush=True)


def read() -> dict[str, dict[str, str]]:
    """The rows so far, by key."""
    if not RESULTS.exists():
        return {}
    with RESULTS.open(encoding="utf-8", newline="") as file:
        return {row["key"]: row for row in csv.DictReader(file)}


def write(rows: dict[str, dict[str, str]]) -> None:
    """Replaces all rows."""
    with RESULTS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())


def run_apart(key: str) -> dict[str, object]:
    """Runs a check in a process of its own, so that its memory is free afterwards; returns its row."""
    context = multiprocessing.get_context("fork")  # libraries are imported once
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(key, sender))
    began = time.monotonic()
    process.start()
    sender.close()
    row: dict[str, object] = {"result": f"no result within {SECONDS:g} s"}
    try:
        if receiver.poll(SECONDS):
            row = receiver.recv()
        else:
            process.kill()
    except EOFError:
        process.join()
        row = {"result": f"the process ended with exit code {process.exitcode}, as one without memory does"}
    process.join()
    case = catalogue.cases()[key]
    return {
        "key": key,
        "family": case.family,
        "reduced": case.reduced,
        "seconds": f"{time.monotonic() - began:.0f}",
    } | row


def _run(key: str, sender: Connection) -> None:
    """Sends the row of a check."""
    torch.manual_seed(0)
    row: dict[str, object] = {}
    try:
        row = check_case(key) | {"result": "ok"}
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        row["result"] = first if isinstance(error, check.CheckError) else f"{type(error).__name__}: {first}"
        traceback.print_exc()
    row["gigabytes"] = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f}"
    sender.send(row)


def check_case(key: str) -> dict[str, object]:
    """All checks of an architecture; returns the row's figures. Counts are those of the whole model."""
    case, name = catalogue.cases()[key], f"catalogue:make(key={key!r})"
    row: dict[str, object] = {}
    if case.whole is not None:
        row |= vars(check.count_weights(case.whole()))
    model = build(name)
    row = vars(check.count_weights(model)) | row
    found = check.prune(model)
    row["changing"] = check.retrain(model, case.loss, found)
    with tempfile.TemporaryDirectory() as folder:
        return row | vars(check.check_files(name, model, found, Path(folder)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for library in ("torchvision.models", "timm", "transformers"):
        __import__(library)
    main()
