"""Measures batching: K networks stepped as one batched network, against K networks one after the other.

    OMP_NUM_THREADS=1 python experiments/benchmarks/batching.py [REPEATS]

The batched step is torch.func's: stack_module_state, and vmap over grad. Steps per second of all K, on one core and,
where there is one, on a GPU. Writes batching.json; prints medians and ranges as a table.
"""

import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from common import spread, write
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.models import build, to_device
from tune_prune.tasks.splits import Split, as_float
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe

SIZES = (1, 2, 4, 8)
STEPS = {"lenet_300_100": 50, "lenet5": 10}
BATCH, LR, MOMENTUM = 128, 0.01, 0.9


def batched(models: list[nn.Module], split: Split) -> Callable[[int], None]:
    """So many steps of all of them at once, each on images of its own."""
    weights, _ = stack_module_state(models)  # type: ignore[arg-type]
    one = models[0]
    velocities = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def loss(own: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(one, own, (inputs,)), labels)

    gradient = vmap(grad(loss))

    def run(steps: int) -> None:
        for _ in range(steps):
            index = torch.randint(len(split.labels), (len(models), BATCH), device=split.labels.device)
            inputs = as_float(split.inputs[index])
            found = gradient({name: weight.detach() for name, weight in weights.items()}, inputs, split.labels[index])
            names = list(found)
            gs, vs, ws = ([d[name].detach() for name in names] for d in (found, velocities, weights))
            torch._foreach_mul_(vs, MOMENTUM)
            torch._foreach_add_(vs, gs)
            torch._foreach_add_(gs, vs, alpha=MOMENTUM)
            torch._foreach_add_(ws, gs, alpha=-LR)

    return run


def in_turn(models: list[nn.Module], split: Split) -> Callable[[int], None]:
    """So many steps of each, one after the other, as trials take them."""

    def run(steps: int) -> None:
        for model in models:
            fit(model, split, Recipe(steps, LR, momentum=MOMENTUM), torch.Generator())

    return run


def rate(run: Callable[[int], None], steps: int, count: int, device: torch.device) -> float:
    """Steps of all the networks in a second."""
    began = time.perf_counter()
    run(steps)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return steps * count / (time.perf_counter() - began)


def main() -> None:
    """Measure both ways, by turns."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    torch.set_num_threads(1)
    devices = [torch.device("cpu")] + ([torch.device("cuda")] if torch.cuda.is_available() else [])
    found: dict[str, object] = {}
    print(
        "| device | model | networks | in turn, steps/s | together, steps/s | times faster |\n|---|---|---|---|---|---|"
    )
    for device in devices:
        train = load_data("mnist").train.to(device)
        assert isinstance(train, Split)
        for name, steps in STEPS.items():
            for count in SIZES:
                models = [to_device(build(name), device) for _ in range(count)]
                ways = in_turn(models, train), batched(models, train)
                for way in ways:
                    way(2)
                both = [[rate(way, steps, count, device) for way in ways] for _ in range(repeats)]
                faster = [together / turn for turn, together in both]
                turns, together = zip(*both, strict=True)
                cells = [str(device), name, str(count), spread(turns, 0), spread(together, 0), spread(faster)]
                print(f"| {' | '.join(cells)} |", flush=True)
                found[f"{device} {name} {count}"] = both
    write("batching", found)


if __name__ == "__main__":
    main()
