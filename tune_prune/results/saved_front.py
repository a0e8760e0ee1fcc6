"""The front of a run directory as Python objects: its members, their measures, and their pruned models."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from tune_prune.pruning import checkpoint
from tune_prune.results.run_results import read_run, summary_front
from tune_prune.tasks.models import detach_computed


@dataclass(frozen=True)
class Pruned:
    """A member of a front: compression in [0, 1], factor, what it was judged by, and paths of its files.

    `val_metric` and `test_metric` are the metric of the search on validation and on test data: by default the error in
    percent. `test_metric` is None where the search was interrupted before it was measured.
    """

    compression: float
    factor: float
    val_metric: float
    test_metric: float | None
    conf: Path
    checkpoint: Path

    def model(self) -> nn.Module:
        """Makes the pruned model anew, on the CPU, with removed weights of exactly zero.

        A model that was handed over as an object can only be made so in the process of its search: in another one, make
        it yourself, and call `load_into`. Raises a `UserError` there, and where the file is missing or damaged.
        """
        return checkpoint.restore(checkpoint.read(self.checkpoint), str(self.checkpoint))[0]

    def load_into(self, model: nn.Module) -> nn.Module:
        """Copies the pruned weights into a model of the same layers, on whichever device it is; returns the model.

        Works in any process, for any model. Raises a `UserError` where names or shapes of the weights differ.

            front = tune_prune.Front.open("runs/Net-20260101-120000")
            smaller = front.best.load_into(Net())
        """
        detach_computed(model)
        checkpoint.restore_into(model, checkpoint.read(self.checkpoint), str(self.checkpoint))
        return model


@dataclass(frozen=True)
class Front:
    """The front that a search found, read from its run directory; its members ascend in compression.

    Its files outlive the process of the search: `Front.open` reads those of an earlier one.
    """

    run_dir: Path

    @classmethod
    def open(cls, run_dir: str | Path) -> "Front":
        """Opens the front of a run directory; raises a `UserError` where no search has ended there.

        front = tune_prune.Front.open("runs/lenet5-20260101-120000")
        """
        front = cls(Path(run_dir).absolute())
        read_run(front.run_dir)
        return front

    @property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json (docs/run-directory.md): errors in percent, compression in [0, 1], seconds."""
        return read_run(self.run_dir).summary

    def __iter__(self) -> Iterator[Pruned]:
        run = read_run(self.run_dir)
        for row in summary_front(run.summary):
            conf, checkpoint = self.run_dir / row["conf"], self.run_dir / row["checkpoint"]
            measured = row["compression"], row["factor"], row[run.metric.val], row.get(run.metric.test)
            yield Pruned(*measured, conf, checkpoint)

    def __len__(self) -> int:
        return len(summary_front(self.summary))

    @property
    def best(self) -> Pruned | None:
        """The most compressed member; None where no point keeps the tradeoff."""
        return max(self, key=lambda member: member.compression, default=None)

    @property
    def certified(self) -> Pruned | None:
        """The most compressed member that is certified; None where none is, or where `certify` was not asked for."""
        summary = self.summary
        rows = zip(self, summary_front(summary), strict=True)
        return next((member for member, row in rows if row["id"] == summary.get("certified")), None)

    def to_pandas(self) -> pd.DataFrame:
        """The content of pareto.csv: a row a member, compression in [0, 1], errors in percent, ratios by layer."""
        return read_run(self.run_dir).members
