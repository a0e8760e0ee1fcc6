"""Measures what a teacher that runs along costs a step of distillation: `python experiments/benchmarks/teacher.py`.

Each step is that of a plain loop with SGD, by the objective of trials: without a teacher, with one that
runs along, and with one whose outputs were computed before. Processor time on one core, in turn.
"""

import copy
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TASKS = Path(__file__).parents[1] / "tasks"
sys.path[:0] = [str(TASKS / "bert"), str(TASKS / "unet")]

import bert  # noqa: E402
import unet  # noqa: E402

from tune_prune.tasks.batches import Batch, call_model, split_batch  # noqa: E402
from tune_prune.tasks.objective import CLASSIFICATION, Objective  # noqa: E402

STEPS, READINGS = 10, 11


class Series(nn.Module):
    """[n, 24, 1] -> [n, 2], as that of experiments/tasks/series."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(1, 32, batch_first=True), nn.Linear(32, 2)

    def forward(self, series: Tensor) -> Tensor:
        """Class scores."""
        scores: Tensor = self.head(self.lstm(series)[0][:, -1])
        return scores


class Computed(nn.Module):
    """A teacher whose outputs are known."""

    def __init__(self, outputs: Any) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, *ignored: object, **also: object) -> Any:
        """The outputs."""
        return self.outputs


def squared(model: nn.Module, batch: Batch) -> Tensor:
    """The mean squared error."""
    return F.mse_loss(model(batch[0]), batch[1])


def list_cases() -> dict[str, tuple[nn.Module, Batch, Objective]]:
    """Models with a batch each: 128 samples, of images 32."""
    wide = [nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)]
    ids, classes = torch.randint(bert.TOKENS, (128, bert.LENGTH)), torch.randint(2, (128,))
    words = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": classes}
    pixels = (torch.randn(32, 1, 32, 32), torch.randint(3, (32, 32, 32)))
    return {
        "multilayer perceptron": (
            nn.Sequential(*wide), (torch.randn(128, 10), torch.randn(128, 1)), Objective(loss_function=squared)
        ),
        "LSTM": (Series(), (torch.randn(128, 24, 1), classes), CLASSIFICATION),
        "BERT": (bert.model(), words, CLASSIFICATION),
        "U-Net": (unet.UNet(), pixels, CLASSIFICATION),
    }  # fmt: skip


def seconds(model: nn.Module, teacher: nn.Module | None, batch: Batch, objective: Objective) -> float:
    """The processor time of a step."""
    optimizer, began = torch.optim.SGD(model.parameters(), 0.001), time.process_time()
    for _ in range(STEPS):
        optimizer.zero_grad()
        objective.training_loss(model, teacher, batch, 0.5, 4.0).backward()
        optimizer.step()
    return (time.process_time() - began) / STEPS


def main() -> None:
    """Prints a row for each model: milliseconds without, computed and along; and what computing before would save."""
    torch.set_num_threads(1)
    for name, (model, batch, objective) in list_cases().items():
        along = copy.deepcopy(model).eval()
        with torch.no_grad():
            computed = Computed(call_model(along, split_batch(batch)[0]))
        ways: list[nn.Module | None] = [None, computed, along]
        readings = [[seconds(model, way, batch, objective) for way in ways] for _ in range(READINGS)]
        none, known, running = (1000 * statistics.median(times) for times in zip(*readings, strict=True))
        saved = statistics.median(1 - times[1] / times[2] for times in readings)
        print(f"| {name} | {none:.2f} | {known:.2f} | {running:.2f} | {100 * saved:.0f} |", flush=True)


if __name__ == "__main__":
    main()
