"""Epochs per second on a GPU, for 1, 2, 4, 8 and 16 trials at a time, each a process of its own.

    python experiments/benchmarks/gpu.py [EPOCHS]

Every process trains lenet5 with masks and a teacher, as a trial does; all begin at once, and their rates are added up.
Where there is nvidia-cuda-mps-control, everything is measured again with NVIDIA's Multi-Process Service, by which
processes use a GPU at the same time instead of taking turns. Writes gpu.json; prints a table. Without a GPU it says so.
"""

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from typing import Any

import torch
from common import write

from tune_prune.pruning import masks
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.tasks import task
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe

COUNTS = (1, 2, 4, 8, 16)
MPS = "nvidia-cuda-mps-control"


def trial(epochs: int, barrier: Barrier, rates: "multiprocessing.Queue[float]") -> None:
    """Train, once to warm up and then with the others; the epochs per second."""
    torch.set_num_threads(1)
    device = torch.device("cuda")
    made = task.prepare_task("lenet5", load_dense_model("lenet5", None, ""), "mnist", device)[0].to(device)
    model = made.dense_model(device)
    pairs = [(weight, (torch.rand_like(weight) < 0.1).float()) for weight in masks.prunable(model).values()]
    steps = made.train.steps(128)

    def train(count: int) -> None:
        recipe = Recipe(count, 0.01, distill=0.7, temperature=2)
        fit(model, made.train, recipe, torch.Generator(), masks=pairs, teacher=made.teacher)
        torch.cuda.synchronize()

    train(steps)
    barrier.wait()
    began = time.perf_counter()
    train(epochs * steps)
    rates.put(epochs / (time.perf_counter() - began))


def rate(count: int, epochs: int) -> float:
    """Epochs per second of so many at a time."""
    context = multiprocessing.get_context("spawn")
    barrier, rates = context.Barrier(count), context.Queue()
    every = [context.Process(target=trial, args=(epochs, barrier, rates)) for _ in range(count)]
    for process in every:
        process.start()
    found = [rates.get() for _ in every]
    for process in every:
        process.join()
    return sum(found)


@contextmanager
def shared_gpu() -> Iterator[None]:
    """Runs the Multi-Process Service, which processes that begin meanwhile use."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        subprocess.run([MPS, "-d"], check=True)
        try:
            yield
        finally:
            subprocess.run([MPS], input="quit\n", text=True, check=True)
            del os.environ["CUDA_MPS_PIPE_DIRECTORY"], os.environ["CUDA_MPS_LOG_DIRECTORY"]


def measure(epochs: int) -> dict[str, float]:
    """Epochs per second by the number of trials at a time; prints them as a table."""
    found = {count: rate(count, epochs) for count in COUNTS}
    print("| trials at a time | epochs per second | of each | times one |\n|---|---|---|---|")
    for count, speed in found.items():
        print(f"| {count} | {speed:.2f} | {speed / count:.2f} | {speed / found[1]:.2f} |", flush=True)
    return {str(count): speed for count, speed in found.items()}


def main() -> None:
    """Measure, or say that there is no GPU."""
    if not torch.cuda.is_available():
        sys.exit("gpu.py: this machine has no GPU that torch can use; nothing was measured")
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    names = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    name = subprocess.run(names, check=True, capture_output=True, text=True).stdout.strip()
    print(name)
    found: dict[str, Any] = {"gpu": name, "epochs_per_second": measure(epochs)}
    if shutil.which(MPS):
        print("\nwith the Multi-Process Service:")
        with shared_gpu():
            found["epochs_per_second_with_mps"] = measure(epochs)
    write("gpu", found)


if __name__ == "__main__":
    main()
