"""A training step against the arithmetic in it and against a plain loop, and an evaluation: all in one run.

    OMP_NUM_THREADS=1 python experiments/benchmarks/steps.py [REPEATS]

Repeat by repeat: the rate of a matrix product of 2,048 x 2,048, `fit` with masks, a loop of DataLoader, torchvision's
transforms, torch.optim.SGD, the default layout and tanh before pooling, and the evaluation of 10,000 images. A step's
arithmetic is three times that of its forward pass; of that, the first layer's input gradient is not needed. Writes
steps.json; prints medians and ranges as a table.
"""

import sys
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from common import spread, write
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from tune_prune.pruning import masks
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.models import build, to_device
from tune_prune.tasks.splits import Split
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe

CPU = torch.device("cpu")
BATCH = 128
STEPS = {"lenet_300_100": 390, "lenet5": 60}


class Images(Dataset[tuple[Tensor, int]]):
    """MNIST as torchvision has it: an image at a time, through a transform."""

    def __init__(self, split: Split) -> None:
        self._split, self._transform = split, transforms.Compose([transforms.ToPILImage(), transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self._split.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image: Tensor = self._transform(self._split.inputs[index])
        return image, int(self._split.labels[index])


def multiply_adds(model: nn.Module) -> list[float]:
    """Of one image forward, layer by layer."""
    found: list[float] = []

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        found.append(weight.numel() * output[0].numel() / weight.shape[0])

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    model(torch.zeros(1, 1, 28, 28))
    for hook in hooks:
        hook.remove()
    return found


def as_first_written(model: nn.Module) -> nn.Module:
    """With tanh before the pooling, as torch7-pruner had it; where there is none, the same."""
    parts = list(model.children())
    for at in range(len(parts) - 1):
        if isinstance(parts[at], nn.MaxPool2d) and isinstance(parts[at + 1], nn.Tanh):
            parts[at : at + 2] = parts[at + 1], parts[at]
    return nn.Sequential(*parts)


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock of a call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def product() -> float:
    """Gigaflops per second of a large matrix product, the best of three."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    return max(2 * 2048**3 / seconds(lambda: a @ b) / 1e9 for _ in range(3))


def plain(model: nn.Module, loader: DataLoader[tuple[Tensor, int]], steps: int) -> None:
    """The loop of the tutorials."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    batches: Iterator[tuple[Tensor, Tensor]] = iter(loader)
    for _ in range(steps):
        inputs, labels = next(batches)
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        optimizer.step()


def measured(name: str, repeats: int) -> dict[str, list[float]]:
    """Every repeat's values."""
    data, steps = load_data("mnist"), STEPS[name]
    ours, theirs = to_device(build(name), CPU), as_first_written(build(name))
    pairs = [(weight, (torch.rand_like(weight) < 0.1).float()) for weight in masks.prunable(ours).values()]
    assert isinstance(data.train, Split)
    loader = DataLoader(Images(data.train), BATCH, shuffle=True)
    forward = multiply_adds(build(name))
    every = 2 * 3 * sum(forward) * BATCH  # forward, and backward to the weights and to the inputs
    needed = every - 2 * forward[0] * BATCH  # nobody asks for the gradient of the images
    found: dict[str, list[float]] = {}
    for repeat in range(repeats + 1):
        rate = product()
        step = seconds(lambda: fit(ours, data.train, Recipe(steps, 0.01), torch.Generator(), masks=pairs)) / steps
        theirs.train()
        row = {
            "gflops": rate,
            "step_ms": 1000 * step,
            "share": 100 * every / rate / 1e9 / step,
            "share_needed": 100 * needed / rate / 1e9 / step,
            "plain_ms": 1000 * seconds(lambda: plain(theirs, loader, steps)) / steps,
            "evaluation_s": seconds(lambda: evaluate(ours, data.validation)),
        }
        row["faster"] = row["plain_ms"] / row["step_ms"]
        if repeat:  # the first one also starts the libraries
            for key, value in row.items():
                found.setdefault(key, []).append(value)
    return found


def main() -> None:
    """Measure both models."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    torch.set_num_threads(1)
    found: dict[str, object] = {}
    heads = ["model", "product, GFLOP/s", "step, ms", "share of arithmetic, %", "of what is needed, %"]
    heads += ["plain loop's step, ms", "times faster", "evaluation, s"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for name in STEPS:
        found[name] = values = measured(name, repeats)
        keys = {"gflops": 0, "step_ms": 2, "share": 0, "share_needed": 0, "plain_ms": 1, "faster": 1, "evaluation_s": 2}
        print(f"| {name} | " + " | ".join(spread(values[key], digits) for key, digits in keys.items()) + " |")
    write("steps", found)


if __name__ == "__main__":
    main()
