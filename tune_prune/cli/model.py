"""The commands `tune-prune train`, `test` and `export`. Heavy modules are imported when a command runs."""

from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import typer

from tune_prune.cli.options import AsJson, BatchSize, Data, Device, Model, NoCode, TestBatchSize, takes_task
from tune_prune.cli.output import TrainingProgress, announce, echo, silent, waiting
from tune_prune.tasks.settings import TaskSettings

FileData = Annotated[
    str | None, typer.Option(help="Built-in name or package.module:factory.  [default: what the file names]")
]


@takes_task(leave_out=["distill"])
def train(
    *,
    model: Model = "lenet5",
    data: Data = "mnist",
    out: Annotated[Path, typer.Option(help="File to write; OUT.csv has its epochs.")] = Path("model.safetensors"),
    epochs: Annotated[int, typer.Option(min=1)] = 20,
    batch_size: BatchSize = 128,
    lr: Annotated[float, typer.Option(min=0, help="Highest rate; it rises for 5 % of the steps, then falls.")] = 0.05,
    momentum: Annotated[float, typer.Option(min=0, max=0.999)] = 0.9,
    weight_decay: Annotated[float, typer.Option(min=0)] = 5e-4,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a training with these flags was cut off.")
    ] = False,
    settings: Mapping[str, Any],
    no_code: NoCode = False,
) -> None:
    """Train a dense model; the best epoch so far, by validation error, is kept whenever it ends."""
    announce()
    began = monotonic()
    from math import isnan

    from tune_prune.common import files
    from tune_prune.training.resources import pick_device
    from tune_prune.workflows import train
    from tune_prune.workflows.status import format_clock

    files.check_writable(out.parent, "--out")
    loaded, augment = train.load_training_data(data, echo, TaskSettings(**settings), model)
    recipe = train.make_recipe(
        loaded, epochs, lr, batch_size, momentum=momentum, weight_decay=weight_decay, augment=augment
    )

    metric, done = loaded.validation.objective.metric, list[float]()

    def show(epoch: train.Epoch) -> None:
        trained = "" if isnan(epoch.train_metric) else f"train {metric.name} {metric.format(epoch.train_metric)}  "
        measured = f"{trained}validation {metric.name} {metric.format(epoch.val_metric)}"
        loss = "" if isnan(epoch.train_loss) else f"train loss {epoch.train_loss:.4f}  "  # a `fit` need not return it
        done.append(monotonic() - began)
        left = (done[-1] - done[0]) / (len(done) - 1) * (epochs - epoch.epoch) if len(done) > 1 else None
        progress.say(f"epoch {epoch.epoch:3d}/{epochs}  {loss}{measured}  {format_clock(left)} left")

    def describe(steps_done: int, steps: int) -> tuple[str, int, int]:
        of_epoch = max(steps // epochs, 1)
        return f"epoch {(steps_done - 1) // of_epoch + 1}/{epochs}", (steps_done - 1) % of_epoch + 1, of_epoch

    torch_device = pick_device(device)
    with TrainingProgress(describe) as progress:
        history = train.train(
            model, loaded, recipe, out.absolute(), seed=seed, device=torch_device, resume=resume, on_epoch=show
        )
    best = min(history, key=lambda epoch: epoch.rank(metric))
    echo(f"{out}: epoch {best.epoch}, validation {metric.name} {metric.format(best.val_metric)}")


@takes_task(training=False)
def test(
    *,
    checkpoint: Annotated[
        Path | None, typer.Argument(help="A .safetensors file.  [default: the pruned lenet5 of the package]")
    ] = None,
    data: FileData = None,
    model: Annotated[str | None, typer.Option(help="Your own model that the file names: its code is run.")] = None,
    settings: Mapping[str, Any],
    batch_size: TestBatchSize = None,
    device: Device = "auto",
    no_code: NoCode = False,
    json: AsJson = False,
) -> None:
    """Test error and compression of a saved model."""
    announce(json)
    from json import dumps

    from tune_prune.pruning.checkpoint import check_trusted
    from tune_prune.pruning.checkpoint_data import load_checkpoint_data
    from tune_prune.training.resources import pick_device
    from tune_prune.workflows import prune

    say = silent if json else echo
    path = checkpoint or prune.PRUNED_LENET5
    check_trusted(path, model, data)
    loaded = load_checkpoint_data(path, data, TaskSettings(**settings), say).with_test_batches(batch_size)
    with waiting("testing on the test data", json):
        result = prune.test_checkpoint(path, loaded, pick_device(device), say)
    metric = loaded.validation.objective.metric
    echo(dumps(result) if json else f"test {metric.name} {metric.format(result[metric.test])}")


@takes_task(training=False)
def export(
    *,
    checkpoint: Annotated[Path, typer.Argument(help="A .safetensors file of a search or of `tune-prune prune`.")],
    to: Annotated[str, typer.Option(help="safetensors, sparse, dense, pt2 or onnx.")],
    out: Annotated[Path | None, typer.Option(help="File or folder.  [default: named after it, here]")] = None,
    data: FileData = None,
    model: Annotated[str | None, typer.Option(help="Your own model that the file names: its code is run.")] = None,
    settings: Mapping[str, Any],
    batch_size: TestBatchSize = None,
    no_code: NoCode = False,
    json: AsJson = False,
) -> None:
    """Write a pruned model for other programs, and compare what they load with it on the test images.

    safetensors: all weights, the removed ones as zeros. sparse: kept weights and where they are, the smallest file;
    tune_prune.load reads it. dense: without neurons and filters that nothing computes or reads, a smaller network with
    the same outputs; tune_prune.load reads it. pt2: the same for torch.export.load. onnx: the same for ONNX Runtime.
    """
    announce(json)
    from json import dumps

    from tune_prune.export import exporter
    from tune_prune.export.formats import formats
    from tune_prune.pruning.checkpoint import check_trusted
    from tune_prune.pruning.checkpoint_data import load_checkpoint_data

    formats[to]  # before the data is read
    check_trusted(checkpoint, model, data)
    say = silent if json else echo
    loaded = load_checkpoint_data(checkpoint, data, TaskSettings(**settings), say).with_test_batches(batch_size)
    with waiting("writing the file, and comparing what it computes with the model on the test data", json):
        report = exporter.export(checkpoint, to, loaded, out, say)
    for line in report.describe():
        say(line)
    echo(dumps(report.to_dict()) if json else f"file: {report.file}")
