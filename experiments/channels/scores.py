"""Compares ways to put together the scores of the layers that compute or read a channel.

    OMP_NUM_THREADS=1 python experiments/channels/scores.py experiments/channels/results/scores.csv
    python experiments/channels/scores.py experiments/channels/results/scores.csv table

A residual network of three blocks with projections (that of trial_time.py, a block a width) is trained on MNIST for 300
steps. From it a share of the channels of every group is removed at once; it is measured on 5,000 validation images, and
again after 100 steps of retraining. Rows that are there are not made again.
"""

import copy
import csv
import itertools
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn
from trial_time import Block

from tune_prune.export.compaction import find_removable
from tune_prune.pruning import iterative
from tune_prune.pruning.channels import removal
from tune_prune.pruning.channels.groups import Group
from tune_prune.pruning.channels.tracer import find_inputs
from tune_prune.pruning.iterative import initial_state
from tune_prune.pruning.plan import Plan
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.splits import AnySplit, Split
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe

PRUNERS, RATIOS, STEPS, SEEDS = ("mag", "taylor1"), (0.4, 0.6, 0.8), (0, 100), range(4)
COLUMNS = ["seed", "way", "pruner", "ratio", "steps", "factor", "error"]
Scores = Mapping[str, Tensor]


def parts(group: Group, scores: Scores, *, role: str = "") -> list[Tensor]:
    """The mean score of each channel in each layer, double [channels], of the layers of a role, or of all."""
    found = []
    for member in group.members:
        if member.tensor in scores and role in ("", member.role):
            values = scores[member.tensor].double().movedim(member.axis, 0).flatten(1).mean(1)
            inside = member.channels >= 0
            total = torch.zeros(group.count, dtype=torch.float64)
            found.append(total.index_add(0, member.channels[inside], values[inside]))
    return found


def shares(group: Group, scores: Scores) -> Tensor:
    """By layer, the score of each channel as a share of all of its channels."""
    return torch.stack([part / part.sum().clamp(min=1e-30) for part in parts(group, scores)])


WAYS: dict[str, Callable[[Group, Scores, Scores], Tensor]] = {
    "mean of shares": lambda group, scores, masks: shares(group, scores).mean(0),
    "largest share": lambda group, scores, masks: shares(group, scores).amax(0),
    "product of shares": lambda group, scores, masks: shares(group, scores).clamp(min=1e-30).log().mean(0),
    "mean": lambda group, scores, masks: torch.stack(parts(group, scores)).mean(0),
    "largest": lambda group, scores, masks: torch.stack(parts(group, scores)).amax(0),
    "layers that compute it": lambda group, scores, masks: torch.stack(parts(group, scores, role="output")).mean(0),
}


def train_dense(train: Split, seed: int) -> nn.Module:
    """The network that every way prunes."""
    torch.manual_seed(seed)
    stem = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    blocks = [Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)]
    model = nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    fit(model, train, Recipe(steps=300, lr=0.1), torch.Generator().manual_seed(seed))
    return model


def main() -> None:
    """See the top of the file."""
    path = Path(sys.argv[1])
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    if sys.argv[2:] == ["table"]:
        print_table(rows)
        return
    data = load_data("mnist")
    train, validation = data.train, data.validation.head(5000)
    assert isinstance(train, Split)
    for seed in SEEDS:
        dense = train_dense(train, seed)
        print(f"seed {seed}, dense: {evaluate(dense, validation).metric:.2f} %", flush=True)
        groups = find_removable(dense, find_inputs(dense, train)).groups
        there = {(row["way"], row["pruner"], row["ratio"]) for row in rows if int(row["seed"]) == seed}
        for ratio, pruner, way in itertools.product(RATIOS, PRUNERS, WAYS):
            if (way, pruner, str(ratio)) not in there:
                measure(path, dense, groups, train, validation, (seed, way, pruner, ratio))


def measure(
    path: Path,
    dense: nn.Module,
    groups: list[Group],
    train: Split,
    validation: AnySplit,
    what: tuple[int, str, str, float],
) -> None:
    """Prunes a copy in a way, once for each number of steps, and adds the rows."""
    seed, way, pruner, ratio = what
    made = []
    for steps in STEPS:
        ratios = {group.name: ratio for group in groups}
        plan = Plan(ratios, dict.fromkeys(ratios, pruner), final_steps=steps, lr=0.05, granularity="channel")
        with mock.patch.object(removal, "score_channels", WAYS[way]):
            (point,) = iterative.prune(initial_state(copy.deepcopy(dense)), plan, train, validation, seed=seed)
        made.append([*what, steps, f"{point.factor:.2f}", f"{point.metric:.2f}"])
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([COLUMNS, *made] if not file.tell() else made)
    print(made, flush=True)


def print_table(rows: list[dict[str, str]]) -> None:
    """Prints the mean errors of each way over the seeds, before and after retraining, and over all of a row."""
    columns = list(itertools.product(PRUNERS, RATIOS))
    print("| way | " + " | ".join(f"{pruner}, {ratio:g}" for pruner, ratio in columns) + " | all, retrained |")
    print("|---|" + "---|" * (len(columns) + 1))
    errors: dict[tuple[str, str, float, int], list[float]] = {}
    for row in rows:
        key = row["way"], row["pruner"], float(row["ratio"]), int(row["steps"])
        errors.setdefault(key, []).append(float(row["error"]))
    for way in WAYS:
        means = [[statistics.mean(errors[way, *column, steps]) for steps in STEPS] for column in columns]
        cells = [f"{before:.1f} / {after:.2f}" for before, after in means]
        print(f"| {way} | " + " | ".join(cells) + f" | {statistics.mean(after for _, after in means):.2f} |")


if __name__ == "__main__":
    main()
