"""Measures how long a trial of ResNet-20 takes, trained without its removed channels and trained with masks.

    OMP_NUM_THREADS=1 python experiments/channels/trial_time.py [REPEATS]

Both prune half of the channels of every group in three geometric rounds, from the same random weights and with the same
seed, and retrain for 20 steps of 128 random images after each; the first validation follows each round. They are run in
turn. Prints the processor seconds of each, and the ratio.
"""

import contextlib
import copy
import statistics
import sys
import time
from collections.abc import Iterator
from unittest import mock

import torch
from torch import Tensor, nn

from tune_prune.export.compaction import find_removable
from tune_prune.pruning import iterative
from tune_prune.pruning.channels.groups import Group
from tune_prune.pruning.iterative import State, initial_state
from tune_prune.pruning.plan import Plan
from tune_prune.tasks.splits import Split

STEPS, IMAGES, RATIO = 20, 2000, 0.5


class Block(nn.Module):
    """A residual block (He et al. 2016, sec. 4.2) with a projection where the width changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] -> [n, outputs, h / stride, w / stride]."""
        inner = self.norm1(self.conv1(x)).relu()
        return (self.norm2(self.conv2(inner)) + self.shortcut(x)).relu()


def resnet20() -> nn.Module:
    """[n, 3, 32, 32] -> [n, 10]."""
    blocks = [
        Block(16, 16, 1),
        Block(16, 16, 1),
        Block(16, 16, 1),
        Block(16, 32, 2),
        Block(32, 32, 1),
        Block(32, 32, 1),
    ]
    blocks += [Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1)]
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def images(count: int) -> Split:
    """Random images with random labels."""
    generator = torch.Generator().manual_seed(count)
    return Split(torch.rand(count, 3, 32, 32, generator=generator), torch.randint(10, (count,), generator=generator))


@contextlib.contextmanager
def whole(
    model: nn.Module, groups: list[Group], masks: dict[str, Tensor]
) -> Iterator[tuple[nn.Module, dict[str, Tensor]]]:
    """What takes the place of `narrowed` where masks alone are used."""
    yield model, masks


def run(state: State, groups: list[Group]) -> float:
    """Runs the trial and returns its processor seconds."""
    ratios = {group.name: RATIO for group in groups}
    pruners = dict.fromkeys(ratios, "mag")
    how = {"rounds": 3, "schedule": "geometric", "lr": 0.05, "granularity": "channel"}
    plan = Plan(ratios, pruners, steps=STEPS, final_steps=STEPS, **how)  # type: ignore[arg-type]
    began = time.process_time()
    for _ in iterative.prune(state, plan, images(5000), images(IMAGES), seed=0):
        pass
    return time.process_time() - began


def main() -> None:
    """See the top of the file."""
    torch.manual_seed(0)
    dense = resnet20().eval()
    groups = find_removable(dense, torch.rand(2, 3, 32, 32)).groups
    ratios = []
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        narrow = run(initial_state(copy.deepcopy(dense)), groups)
        with mock.patch.object(iterative, "narrowed", whole):
            masked = run(initial_state(copy.deepcopy(dense)), groups)
        ratios.append(narrow / masked)
        print(f"without removed channels {narrow:.1f} s, with masks {masked:.1f} s, ratio {ratios[-1]:.3f}", flush=True)
    print(f"median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
