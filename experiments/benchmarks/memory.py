"""Measures where a worker's own memory goes: to each import, to data, training and evaluation.

    OMP_NUM_THREADS=1 python experiments/benchmarks/memory.py [MODEL]

Prints megabytes that no other process shares (unique set size), after each step, and what the step added. Linux alone.
"""

import importlib
import re
import sys
from pathlib import Path


def private_megabytes() -> float:
    """Megabytes of this process alone."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(kilobytes) for kilobytes in re.findall(r"Private_\w+:\s+(\d+)", text)) / 1024


def main() -> None:
    """Go through what a worker does."""
    name, before = (sys.argv[1:] or ["lenet5"])[0], 0.0

    def print_step(step: str) -> None:
        nonlocal before
        now = private_megabytes()
        print(f"{step:24} {now:5.0f} MB  {now - before:+5.0f}")
        before = now

    print_step("Python")
    for module in ("torch", "ray", "ray.tune", "tune_prune.distributed.trainable"):
        importlib.import_module(module)
        print_step(f"import {module}")
    import torch

    from tune_prune.tasks import datasets, metrics, models
    from tune_prune.training import loop
    from tune_prune.training.optim import Recipe

    torch.set_num_threads(1)
    loaded = datasets.load_data("mnist")
    print_step("MNIST, which workers share")
    model = models.to_device(models.build(name), torch.device("cpu"))
    loop.fit(model, loaded.train, Recipe(40, 0.01), torch.Generator().manual_seed(0))
    print_step("40 steps")
    metrics.evaluate(model, loaded.validation)
    print_step("an evaluation")


if __name__ == "__main__":
    main()
