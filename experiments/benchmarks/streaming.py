"""Measures whether memory stays flat while a search reads a data set that is larger than memory need be.

    OMP_NUM_THREADS=1 python experiments/benchmarks/streaming.py [GIGABYTES] [FOLDER]

Makes a file of so many gigabytes (10) of images of 128 x 128 bytes in a folder, and deletes it at the end. Then two
trials at a time, each of one training epoch, are run by the program in four ways of reading it: a data set that reads
one sample at a time, a DataLoader of it, an iterable data set, and an array in a mapped file. The task is a regression,
so that nothing is kept in memory. Prints for the driver and the workers the megabytes that are their own (anonymous and
shared memory), and those of the file that are mapped, at the begin and at the end of the epoch, and the most that they
were between. Writes streaming.json, with some of the readings. Linux alone.
"""

import csv
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

SIDE, BATCH, VALIDATION = 128, 128, 2048
WAYS = ("items", "loader", "stream", "mapped")
WARM = 25
"""Steps after which a worker has what it needs to train."""

SPACE = """
[task]
model = "streaming:model"
data = "streaming:data"
loss = "streaming:loss"
metric = "streaming:rmse"

[space]
pruner = "mag"
rounds = 1
steps = 1
final_steps = {steps}
batch_size = {batch}
lr = 0.001
sample = 256

[space.ratio]
"*" = {{low = 0.5, high = 0.9}}

[initial]
trials = 0

[features]
learn_from_rounds = false

[refine]
share = 0
"""


class Reading(NamedTuple):
    """Megabytes of a process: its own, and those of files that are mapped; with the steps or seconds so far."""

    at: float
    own: float
    mapped: float


def read_memory(pid: int | str, at: float) -> Reading:
    """Reads what a process holds."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    parts = {name: int(kilobytes) / 1024 for name, kilobytes in re.findall(r"Rss(\w+):\s+(\d+) kB", text)}
    return Reading(at, parts["Anon"] + parts["Shmem"], parts["File"])


# The task


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Samples of the file, read one by one; the target is the mean of the bytes."""

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        size = SIDE * SIDE
        read = bytearray(os.pread(_file(), size, (self.first + index) * size))
        image = torch.frombuffer(read, dtype=torch.uint8).view(1, SIDE, SIDE)
        return image, image.float().mean()


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """The same samples in order."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.images[at] for at in range(len(self.images)))


@cache
def _file() -> int:
    return os.open(os.environ["STREAMING_FILE"], os.O_RDONLY)


def data() -> tuple[object, ...]:
    """Training, validation and test, read in the way that is measured."""
    path, way = os.environ["STREAMING_FILE"], os.environ["STREAMING_WAY"]
    count = os.path.getsize(path) // SIDE**2
    parts = [(0, count - 2 * VALIDATION), (count - 2 * VALIDATION, VALIDATION), (count - VALIDATION, VALIDATION)]
    if way == "mapped":
        rows = np.memmap(path, np.uint8, "r", shape=(count, 1, SIDE, SIDE))
        return tuple((rows[at : at + size], np.full(size, 127.5, np.float32)) for at, size in parts)
    images = [Images(*part) for part in parts]
    if way == "loader":
        return tuple(DataLoader(part, BATCH, shuffle=at == 0) for at, part in enumerate(images))
    return tuple(map(Stream, images)) if way == "stream" else tuple(images)


def model() -> nn.Module:
    """A small network, so that reading is most of the work."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 16, 16), nn.ReLU(), nn.Flatten(), nn.Linear(8 * (SIDE // 16) ** 2, 1))


_steps = 0


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The mean squared error; notes a training process's memory every few steps."""
    global _steps
    if model.training:
        if _steps % WARM == 0:
            with open(Path(os.environ["STREAMING_OUT"], f"{os.getpid()}.csv"), "a", encoding="utf-8") as file:
                csv.writer(file).writerow(read_memory("self", _steps))
        _steps += 1
    return (model(batch[0]).squeeze(1) - batch[1] / 255).square().mean()


def rmse(model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
    """The root of the mean squared error."""
    return float(torch.cat([(model(x).squeeze(1) - y / 255).square() for x, y in batches]).mean().sqrt())


# The measurement


def make_file(path: Path, gigabytes: float) -> int:
    """Writes random bytes; returns the number of samples."""
    generator, block = np.random.default_rng(0), 2**26
    with path.open("wb") as file:
        for _ in range(max(1, round(gigabytes * 1e9 / block))):
            file.write(generator.bytes(block))
    return path.stat().st_size // SIDE**2


def measure(way: str, file: Path, count: int, trials: int = 2) -> dict[str, list[Reading]]:
    """Runs a search; returns the readings of the driver while trials run, and of each worker."""
    with tempfile.TemporaryDirectory() as folder:
        out, space = Path(folder, "out"), Path(folder, "space.toml")
        out.mkdir()
        steps = (count - 2 * VALIDATION) // BATCH
        space.write_text(SPACE.format(steps=steps, batch=BATCH), encoding="utf-8")
        here = str(Path(__file__).parent)
        environment = os.environ | {
            "STREAMING_FILE": str(file), "STREAMING_WAY": way, "STREAMING_OUT": str(out), "PYTHONPATH": here,
        }  # fmt: skip
        command = [sys.executable, "-m", "tune_prune", "search", "--space", str(space), "--run-dir", f"{folder}/run"]
        command += ["--budget", str(trials), "--acc-tradeoff", "1", "--max-concurrent", str(trials)]
        driver = list[Reading]()
        with subprocess.Popen(command, env=environment, cwd=folder) as process:
            watcher = threading.Thread(target=_watch, args=(process, out, steps, driver))
            watcher.start()
            code = process.wait()
            watcher.join()
        if code:
            raise RuntimeError(f"the search ended with exit code {code}")
        workers = {f"worker {path.stem}": _read_rows(path) for path in sorted(out.glob("*.csv"))}
        return {"driver": driver} | {name: rows for name, rows in workers.items() if len(rows) > 2}


def thin(rows: list[Reading]) -> list[str]:
    """About twenty of the readings, as text: steps or seconds, megabytes of its own, megabytes mapped."""
    return [f"{row.at:.0f} {row.own:.1f} {row.mapped:.1f}" for row in rows[:: max(1, len(rows) // 20)]]


def _watch(process: subprocess.Popen[bytes], out: Path, steps: int, found: list[Reading]) -> None:
    """Reads the driver's memory twice a second while a worker is in its epoch, but for its begin."""
    began = time.monotonic()
    while process.poll() is None:
        done = [rows[-1].at for path in out.glob("*.csv") if (rows := _read_rows(path))]
        if done and WARM <= max(done) < steps - WARM:
            try:
                found.append(read_memory(process.pid, time.monotonic() - began))
            except (FileNotFoundError, KeyError):  # it has just ended
                return
        time.sleep(0.5)


def _read_rows(path: Path) -> list[Reading]:
    with path.open(encoding="utf-8", newline="") as file:
        return [Reading(*map(float, row)) for row in csv.reader(file) if len(row) == 3]


def main() -> None:
    """Measures all ways of reading."""
    from common import write

    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    found: dict[str, object] = {"gigabytes": gigabytes}
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
        count = make_file(Path(folder, "images"), gigabytes)
        print(f"{count:,} samples\n")
        print("| read | process | own MB at first | at last | at most | grown, % | mapped MB at last |")
        print("|---|---|---|---|---|---|---|")
        for way in WAYS:
            readings = measure(way, Path(folder, "images"), count)
            found[way] = {name: thin(rows) for name, rows in readings.items()}
            for name, rows in readings.items():
                first, last, most = rows[1].own, rows[-1].own, max(row.own for row in rows[1:])
                values = (
                    f"{first:.0f} | {last:.0f} | {most:.0f} | {100 * (most / first - 1):+.1f} | {rows[-1].mapped:.0f}"
                )
                print(f"| {way} | {name} | {values} |", flush=True)
    write("streaming", found)


if __name__ == "__main__":
    main()
