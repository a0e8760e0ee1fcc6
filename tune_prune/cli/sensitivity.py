"""The command `tune-prune sensitivity`. Heavy modules are imported when it runs."""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tune_prune.cli.options import AsJson, Data, Device, Model, NoCode, silent
from tune_prune.common.errors import UserError

if TYPE_CHECKING:
    from tune_prune.pruning.sensitivity import SensitivityJob, SensitivityResult
    from tune_prune.pruning.statistics import CachedStatistics
    from tune_prune.tasks.task import Task


def sensitivity(
    layer: Annotated[list[str] | None, typer.Option("-l", "--layer", help="Position or name.  [default: all]")] = None,
    ratio: Annotated[list[float] | None, typer.Option("-p", "--ratio", help="Ratio.  [default: a grid of 20]")] = None,
    model: Model = "lenet5",
    data: Data = "mnist",
    pruner: Annotated[str, typer.Option(help="Pruners, separated by commas.")] = "mag",
    retrain: Annotated[bool, typer.Option("--retrain", help="Train what is left, spread over Ray's workers.")] = False,
    epochs: Annotated[float, typer.Option(min=0.001, help="Epochs of the retraining.")] = 1.0,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate of the retraining.")] = 0.01,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="Workers at a time.  [default: as fit]")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to, or to add to.")] = Path("sensitivity"),
    no_code: NoCode = False,
    json: AsJson = False,
) -> None:
    """Prune each layer alone, over a grid of ratios; write the curves as CSV and picture."""
    from json import dumps

    from tune_prune.pruning import masks, statistics_cache
    from tune_prune.pruning import sensitivity as sensing
    from tune_prune.pruning.checkpoint import load_dense_model
    from tune_prune.pruning.criteria import required_statistics
    from tune_prune.pruning.iterative import round_generator
    from tune_prune.pruning.plan import Plan
    from tune_prune.pruning.statistics import Context, draw_sample
    from tune_prune.results.sensitivity_table import SensitivityTable, draw_curves, fingerprint_weights
    from tune_prune.tasks import task
    from tune_prune.training.loop import steps_for, steps_per_epoch
    from tune_prune.training.resources import pick_device

    # where it goes is settled now: what is printed while Ray is there goes to Ray's log
    say = silent if json else partial(typer.echo, file=sys.stdout)
    on, pruners = pick_device(device), pruner.split(",")
    statistics = required_statistics(pruners)
    for value in ratio or []:
        if not 0 <= value < 1:
            raise UserError(f"--ratio must be in [0, 1), got {value:g}")
    made, _ = task.prepare_task(model, load_dense_model(model, None, "--model"), data, on, say)
    dense = made.dense_model(on)
    masks.require_layers(dense, layer or [], "--layer")
    steps = steps_for(epochs if retrain else 0.0, steps_per_epoch(len(made.train.labels), Plan.batch_size))
    cells = sensing.make_jobs(dense, layer or [], pruners, ratio or sensing.GRID, steps, lr if retrain else 0.0, seed)
    table = SensitivityTable(out.absolute() / "sensitivity.csv", model, fingerprint_weights(made.weights))
    missing = table.missing(cells)
    say(f"{len(cells)} points, {len(cells) - len(missing)} of them measured already; dense {made.dense.error:.2f} %")
    sample = draw_sample(made.train.to(on), Plan.sample, round_generator(seed, 1))
    context = Context(dense, sample, round_generator(seed, 1), say, only=layer or None)
    known = statistics_cache.load_or_measure(sorted(statistics), context) if missing else {}
    if retrain:
        out.mkdir(parents=True, exist_ok=True)
        measured = _spread(made, missing, on.type, max_concurrent, known, out.absolute() / "ray.log")
    else:
        measured = sensing.measure_without_retraining(made.to(on), missing, on, known)
    for sensed in measured:
        table.add(sensed)
        at = f"layer {sensed.cell.layer}, {sensed.cell.pruner}, ratio {sensed.cell.ratio:g}"
        say(f"{at}: validation error {sensed.val_error:.2f} %")
    wanted = [sensed for sensed in table.of_this_model() if sensed.cell in cells]
    draw_curves(out.absolute() / "sensitivity.png", f"{model}: each layer pruned alone", wanted, made.dense.error)
    files = {"csv": "sensitivity.csv", "picture": "sensitivity.png", "points": len(wanted)}
    typer.echo(dumps(files) if json else f"files: {out} (sensitivity.csv, sensitivity.png)")


def _spread(
    made: "Task",
    cells: "list[SensitivityJob]",
    device: str,
    max_concurrent: int | None,
    known: "CachedStatistics",
    log: Path,
) -> "Iterator[SensitivityResult]":
    """Measure cells that retrain, on Ray's workers."""
    from tune_prune.distributed.parallel import collect_results, worker_pool
    from tune_prune.hpo.config import Config
    from tune_prune.pruning.sensitivity import measure_retrained

    config = Config(budget=1, acc_tradeoff=0, device=device, max_concurrent=max_concurrent)
    with worker_pool(made, config, known, log) as each:
        yield from collect_results(each(measure_retrained, cells))
