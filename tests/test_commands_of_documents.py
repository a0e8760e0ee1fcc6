"""The commands of the documents, as printed, on a small run directory of lenet5; trials run in this process."""

import runpy
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import searches
import torch
from fenced_blocks import Block

from tune_prune.tasks.task import Task
from tune_prune.workflows import finalize

SPACE = """
[task]
model = "lenet5"
data = "mnist"
[space]
steps = 2
lr = 0.01
[space.ratio]
"*" = {low = 0.2, high = 0.98, group = true}
[goal]
acc_tradeoff = 90
budget = 3
[refine]
steps = 2
[initial]
trials = 0
[[initial.point]]
ratio = 0.97
[[initial.point]]
ratio = 0.2
"""
LESS = {"--watch": "", "--budget 150": "--budget 4", "--confirm 5": "--confirm 2", "--epochs 3": "--epochs 1"}
"""What is changed in a command that takes long."""

RUN = "runs/lenet5-20260101-120000"


@contextmanager
def serial_pool(task: Task, *_: object) -> Iterator[Callable[..., Iterator[tuple[Any, Any]]]]:
    """In place of Ray's workers: one job after the other."""

    def serial_map(work: Callable[..., Any], jobs: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        for job in jobs:
            yield job, work(task, job, torch.device("cpu"), {})

    yield serial_map


def test_they_run(
    few_images: None,
    trials: searches.Trials,
    command: Callable[..., object],
    blocks: list[Block],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(finalize, "worker_pool", serial_pool)
    Path("space.toml").write_text(SPACE)
    assert command("search", "--space", "space.toml", "--run-dir", RUN) == 0
    shutil.copytree(RUN, "runs/random")
    assert {block.document for block in blocks} >= {"docs/conf.md", "docs/exporting.md", "docs/trust.md"}
    for block in blocks:
        if block.language == "python":
            Path("printed.py").write_text(block.text)
            runpy.run_path("printed.py")
            continue
        for program, *words in block.commands:
            assert program == "tune-prune"
            line = reduce(lambda line, much: line.replace(much, LESS[much]), LESS, " ".join(words))
            assert command(*line.split()) == 0, f"{block}: {line}"


def test_they_would_start(few_images: None, command: Callable[..., object], blocks: list[Block]) -> None:
    for block in blocks:
        for program, script, *words in block.commands:
            assert (program, script) == ("python", "launch.py")
            assert command("search", *words, *([] if "--dry-run" in words else ["--dry-run"])) == 0
