"""What the general path costs: a user's loss, batches and optimizer, against the same loop written by hand.

    OMP_NUM_THREADS=1 python experiments/benchmarks/general_path.py [REPEATS]

Two models, of vectors and of images; batches by a DataLoader, or rows of tensors in memory; and the built-in SGD or
`torch.optim.SGD` by its address. The loop by hand has the same loss, batches, masks, cosine and Nesterov momentum, by
`torch.optim.SGD`. Both take turns; what is measured is processor time, since the machine is shared. Writes
general_path.json; prints medians and ranges as a table.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from common import spread, write
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

STEPS, BATCH, LR = 60, 64, 0.01
Pairs = Sequence[tuple[Tensor, Tensor]]


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A user's loss."""
    return F.mse_loss(model(batch[0]), batch[1])


def make(kind: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A model with its inputs and targets."""
    torch.manual_seed(0)
    if kind == "mlp":
        net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 8))
        return net, torch.randn(4096, 64), torch.randn(4096, 8)
    parts = [nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(800, 8)), torch.randn(4096, 1, 28, 28), torch.randn(4096, 8)


def by_hand(model: nn.Module, batches: Callable[[], Iterable[tuple[Tensor, Tensor]]], pairs: Pairs) -> None:
    """The loop that a user would write."""
    optimizer = torch.optim.SGD(model.parameters(), LR, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    model.train()
    done, losses = 0, []
    while done < STEPS:
        for batch in batches():
            found = loss(model, batch)
            optimizer.zero_grad()
            found.backward()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                for weight, mask in pairs:
                    weight.mul_(mask)
            losses.append(found.detach())
            done += 1
            if done == STEPS:
                break
    torch.stack(losses).mean().item()


def measure(kind: str, source: str, optimizer: str | None, repeats: int) -> list[float]:
    """Processor time of the general path over that of the loop by hand, a ratio a repeat."""
    from tune_prune.tasks.batch_split import BatchSplit
    from tune_prune.tasks.objective import make_objective
    from tune_prune.tasks.settings import TaskSettings
    from tune_prune.tasks.sources import Loader, Rows
    from tune_prune.training.loop import fit
    from tune_prune.training.optim import Recipe

    model, inputs, targets = make(kind)
    pairs = [(one, (torch.rand_like(one) < 0.2).float()) for one in model.parameters() if one.dim() > 1]
    loader: DataLoader[Any] = DataLoader(TensorDataset(inputs, targets), BATCH, shuffle=True)

    def rows() -> Iterator[tuple[Tensor, Tensor]]:
        for index in torch.randperm(len(inputs)).split(BATCH):
            yield inputs.index_select(0, index), targets.index_select(0, index)

    objective = make_objective(TaskSettings(loss="general_path:loss", optimizer=optimizer))
    split = BatchSplit(Loader.read(loader, "loader") if source == "loader" else Rows((inputs, targets)), objective)
    recipe = Recipe(STEPS, LR, batch_size=BATCH)
    runs: list[Callable[[], object]] = [
        lambda: fit(model, split, recipe, torch.Generator(), masks=pairs),
        lambda: by_hand(model, (lambda: loader) if source == "loader" else rows, pairs),
    ]
    ratios = []
    for repeat in range(repeats + 1):
        taken = [0.0, 0.0]
        for _ in range(4):  # in turns, so that both meet the same neighbours
            for at, run in enumerate(runs):
                began = time.process_time()
                run()
                taken[at] += time.process_time() - began
        if repeat:  # the first one also starts the libraries
            ratios.append(taken[0] / taken[1])
    return ratios


def main() -> None:
    """Measures all cases."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {}
    print("| model | batches | optimizer | times the loop by hand |\n|---|---|---|---|")
    address = "torch.optim:SGD(momentum=0.9, nesterov=True)"
    for kind in ("mlp", "conv"):
        for source in ("loader", "rows"):
            for optimizer in (None, address):
                ratios = found[f"{kind} {source} {optimizer}"] = measure(kind, source, optimizer, repeats)
                print(f"| {kind} | {source} | {optimizer or 'built-in'} | {spread(ratios, 3)} |", flush=True)
    write("general_path", dict[str, object](found))


if __name__ == "__main__":
    main()
