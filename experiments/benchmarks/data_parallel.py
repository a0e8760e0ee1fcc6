"""What it costs and gains to train a model in two processes, data-parallel, on two cores, instead of in one.

    OMP_NUM_THREADS=1 python experiments/benchmarks/data_parallel.py [REPEATS]

The two ways take turns, a thread for each process. Wall-clock time says what is gained, where both cores are free;
processor time, of both processes together, what it costs. The load is how many threads of all programs want a core.
Writes data_parallel.json; prints medians and ranges as a table.
"""

import multiprocessing
import os
import sys
import time
from multiprocessing.connection import Connection

import torch
from common import spread, write
from torch import nn

from tune_prune.tasks.models import build, to_device
from tune_prune.tasks.parts import Part
from tune_prune.tasks.splits import Split
from tune_prune.training import data_parallel
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe

CASES = {"lenet_300_100": 60, "lenet5": 16, "wide": 4}
"""Models, and how many steps of 128 images are timed."""


def make(kind: str) -> tuple[nn.Module, Split]:
    """A model, and as many images as an epoch of eight batches takes."""
    torch.manual_seed(0)
    images, labels = torch.randint(256, (1024, 1, 28, 28), dtype=torch.uint8), torch.randint(10, (1024,))
    if kind != "wide":
        return to_device(build(kind), torch.device("cpu")), Split(images, labels)
    net = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)]
    net += [nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6400, 10)]
    return to_device(nn.Sequential(*net), torch.device("cpu")), Split(images, labels)


def train(kind: str, part: Part | None = None) -> tuple[float, float]:
    """Wall-clock and processor seconds of this process for the steps, without the making of the model."""
    model, split = make(kind)
    wall, cpu = time.perf_counter(), time.process_time()
    fit(model, split, Recipe(CASES[kind], 0.01), torch.Generator(), part=part)
    return time.perf_counter() - wall, time.process_time() - cpu


def serve(connection: Connection, port: int) -> None:
    """The second process."""
    torch.set_num_threads(1)
    data_parallel.join(data_parallel.find_store(data_parallel.LOOPBACK, port), Part(1, 2), own_gpu=False)
    while (kind := connection.recv()) is not None:
        connection.send(train(kind, Part(1, 2)))


def measure(kind: str, repeats: int, other: Connection) -> dict[str, list[float]]:
    """Seconds of a step in one process, how two compare with it, and the load meanwhile: a value a repeat."""
    found: dict[str, list[float]] = {"seconds": [], "times as fast": [], "times the processor time": [], "load": []}
    for repeat in range(repeats + 1):
        alone, alone_cpu = train(kind)
        other.send(kind)
        together, together_cpu = train(kind, Part(0, 2))
        together_cpu += other.recv()[1]
        if repeat:  # the first one also starts the libraries
            values = alone / CASES[kind], alone / together, together_cpu / alone_cpu, os.getloadavg()[0]
            for name, value in zip(found, values, strict=True):
                found[name].append(value)
    return found


def main() -> None:
    """Measures all models."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    store, port = data_parallel.open_store(data_parallel.LOOPBACK)
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(theirs, port), daemon=True)
    process.start()
    data_parallel.join(store, Part(0, 2), own_gpu=False)
    torch.set_num_threads(1)
    print(
        "| model | ms a step in one process | times as fast | times the processor time | load |\n|---|---|---|---|---|"
    )
    results: dict[str, object] = {}
    for kind in CASES:
        results[kind] = found = measure(kind, repeats, ours)
        step = spread([1000 * seconds for seconds in found["seconds"]], 1)
        ratios = [spread(found[name]) for name in ("times as fast", "times the processor time")]
        print(f"| {kind} | {step} | {' | '.join(ratios)} | {spread(found['load'], 0)} |", flush=True)
    write("data_parallel", results)
    ours.send(None)
    process.join()
    data_parallel.leave()


if __name__ == "__main__":
    main()
