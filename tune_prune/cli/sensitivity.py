"""The command `tune-prune sensitivity`. Heavy modules are imported when it runs."""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from tune_prune.cli.options import GRANULARITIES, AsJson, BatchSize, Data, Device, Force, Model, NoCode, takes_task
from tune_prune.cli.output import announce, echo, silent
from tune_prune.common.errors import UserError
from tune_prune.tasks.settings import TaskSettings


@takes_task()
def sensitivity(
    *,
    layer: Annotated[list[str] | None, typer.Option("-l", "--layer", help="Position or name.  [default: all]")] = None,
    ratio: Annotated[list[float] | None, typer.Option("-p", "--ratio", help="Ratio.  [default: a grid of 20]")] = None,
    model: Model = "lenet5",
    data: Data = "mnist",
    pruner: Annotated[str, typer.Option(help="Pruners, separated by commas.")] = "mag",
    granularity: Annotated[str, typer.Option(help=GRANULARITIES)] = "weight",
    retrain: Annotated[bool, typer.Option("--retrain", help="Train what is left, spread over Ray's workers.")] = False,
    epochs: Annotated[float, typer.Option(min=0.001, help="Epochs of the retraining.")] = 1.0,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate of the retraining.")] = 0.01,
    batch_size: BatchSize = 128,
    settings: Mapping[str, Any],
    force: Force = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="Workers at a time.  [default: as fit]")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to, or to add to.")] = Path("sensitivity"),
    no_code: NoCode = False,
    json: AsJson = False,
) -> None:
    """Prune each layer alone, over a grid of ratios; write the curves as CSV and picture."""
    announce(json)
    from json import dumps

    from tune_prune.training.resources import Resources, pick_device
    from tune_prune.workflows.sensitivity import SensitivityRequest, measure_sensitivity

    # the stream is chosen now: while Ray runs, standard output goes to Ray's log
    say = silent if json else partial(echo, file=sys.stdout)
    resources = Resources(device=pick_device(device).type, max_concurrent=max_concurrent)
    for value in ratio or []:
        if not 0 <= value < 1:
            raise UserError(f"--ratio must be in [0, 1), got {value:g}")
    request = SensitivityRequest(
        model, data, layer or (), pruner.split(","), ratio or (), epochs if retrain else 0.0, lr, seed, force,
        batch_size, TaskSettings(**settings), granularity,
    )  # fmt: skip
    files = measure_sensitivity(request, resources, out.absolute(), say)
    echo(dumps(files) if json else f"files: {out} (sensitivity.csv, sensitivity.png)")
