"""The command `tune-prune prune`. Heavy modules are imported when it runs."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tune_prune.cli.options import (
    GRANULARITIES,
    NAME_OR_ADDRESS,
    AsJson,
    BatchSize,
    Device,
    Force,
    NoCode,
    grouped,
    takes_settings,
)
from tune_prune.cli.output import TrainingProgress, announce, echo, silent
from tune_prune.common.entrypoints import is_address
from tune_prune.common.errors import UserError, format_names
from tune_prune.tasks.settings import DISTILL_SHARE, SEARCHING, TASK, TaskSettings

PRUNE_EXAMPLES = """Examples:

`tune-prune prune -l 8 -p 0.7`

`tune-prune prune --conf mine.conf --iterations 4 --retrain --epochs 3`

`tune-prune prune --conf runs/lenet5-20260101-120000/best.conf --replay`
"""


PANELS = {
    "What is pruned": "layer ratio conf model data checkpoint no_code",
    TASK: "",
    "How": "pruner sample mode granularity multiple_of min_width "
    "iterations schedule reload allow_empty force acc_tradeoff",
    "What is trained after each round": "retrain epochs batch_size lr l1 l2 distill scale_dropout",
    "How it runs": "device seed out resume replay json",
}
"""The groups of flags, in the order in which `--help` shows them."""

OR_NOTED = "or as --conf notes"
"""The default of what a .conf file may note: what its ratios count, and the samples of its pruners."""

SAMPLE = 1024
"""The default of `--sample`, here too, since what defines it imports PyTorch."""


@takes_settings(TaskSettings, [*PANELS], ["distill", *SEARCHING])
@grouped(PANELS)
def prune(
    *,
    layer: Annotated[list[str] | None, typer.Option("-l", "--layer", help="Layer to prune: position or name.")] = None,
    ratio: Annotated[list[float] | None, typer.Option("-p", "--ratio", help="Share of its weights to remove.")] = None,
    conf: Annotated[Path | None, typer.Option(help="A .conf file.  [default: the model's own]")] = None,
    model: Annotated[str | None, typer.Option(help=f"{NAME_OR_ADDRESS}  [default: lenet5]")] = None,
    data: Annotated[str | None, typer.Option(help=f"{NAME_OR_ADDRESS}  [default: mnist]")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights to start from.  [default: dense; to --replay, as --conf notes]")
    ] = None,
    pruner: Annotated[str, typer.Option(help="Which weights go first.")] = "mag",
    sample: Annotated[
        int | None,
        typer.Option(min=1, help=f"Training samples on which pruners judge.  [default: {SAMPLE}, {OR_NOTED}]"),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help=f"layer: each its ratio; global: one for all, scores decide.  [default: layer, {OR_NOTED}]"),
    ] = None,
    granularity: Annotated[str | None, typer.Option(help=f"{GRANULARITIES}  [default: weight, {OR_NOTED}]")] = None,
    multiple_of: Annotated[
        int | None, typer.Option(min=1, help=f"Leave a multiple of so many channels.  [default: 1, {OR_NOTED}]")
    ] = None,
    min_width: Annotated[
        int | None,
        typer.Option(min=1, help=f"Leave at least so many channels of each group.  [default: 1, {OR_NOTED}]"),
    ] = None,
    iterations: Annotated[int, typer.Option(min=1, help="Rounds of pruning.")] = 1,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train what is left after every round.")] = False,
    epochs: Annotated[float | None, typer.Option(help="Epochs of a round's retraining.  [default: 1]")] = None,
    batch_size: BatchSize = 128,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate of the retraining.")] = 0.01,
    l1: Annotated[float, typer.Option(min=0, help="L1 penalty on the weights in retraining.")] = 0.0,
    l2: Annotated[float, typer.Option(min=0, help="L2 penalty on the weights in retraining.")] = 0.0,
    distill: Annotated[
        str,
        typer.Option(help="The unpruned model's share of the loss; or the address of distill(model, teacher, batch)."),
    ] = "0",
    scale_dropout: Annotated[bool, typer.Option("--scale-dropout", help="Shrink dropout with its layer.")] = False,
    schedule: Annotated[str, typer.Option(help="linear, cubic, geometric or one-shot.")] = "linear",
    reload: Annotated[bool, typer.Option("--reload", help="Start every round from the unpruned model.")] = False,
    settings: Mapping[str, Any],
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Let a layer lose all its weights.")] = False,
    force: Force = False,
    acc_tradeoff: Annotated[
        float | None, typer.Option(min=0, help="Prune layer by layer; take back what costs more points of error.")
    ] = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("pruned"),
    replay: Annotated[
        bool, typer.Option("--replay", help="Run --conf as its comments say; exit with 1 if the numbers differ.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a pruning with these flags was cut off.")
    ] = False,
    no_code: NoCode = False,
    json: AsJson = False,
) -> int:
    """Prune layers of one model, once or iteratively, with or without retraining."""
    announce(json)
    if replay:
        return _replay(conf, checkpoint, device, json)
    from json import dumps
    from math import inf

    from tune_prune.training.resources import pick_device
    from tune_prune.workflows.conf_notes import choose_named, read_noted
    from tune_prune.workflows.prune_outputs import prune_and_write
    from tune_prune.workflows.prune_resume import PruneRequest
    from tune_prune.workflows.prune_target import PruneOptions, choose_target

    if epochs is not None and not retrain:
        raise UserError("--epochs without --retrain; add --retrain")
    if reload and acc_tradeoff is not None:
        raise UserError("--reload and --acc-tradeoff exclude each other; leave one out")
    if retrain and epochs is not None and not 0 < epochs < inf:
        raise UserError(f"--epochs must be above 0 with --retrain, got {epochs:g}")
    share, function = parse_distill(distill)
    target, source = choose_target(layer or [], ratio or [], conf, model or "lenet5", mode)
    model = choose_named(target, source, "--model", model, "lenet5")
    data = choose_named(target, source, "--data", data, "mnist")
    given = {"mode": mode, "granularity": granularity, "multiple_of": multiple_of, "min_width": min_width}
    samples = read_noted(target, source, ["sample"]) if sample is None else {"sample": sample}
    options = PruneOptions(
        iterations=iterations, epochs=(1.0 if epochs is None else epochs) if retrain else 0.0, pruner=pruner,
        schedule=schedule, lr=lr, l1=l1, l2=l2, distill=share, batch_size=batch_size, scale_dropout=scale_dropout,
        reload=reload, acc_tradeoff=acc_tradeoff, allow_empty=allow_empty, force=force, seed=seed,
        **read_noted(target, source, flags=given), **samples,
    )  # fmt: skip
    request = PruneRequest(model, data, checkpoint, target, options, TaskSettings(**settings, distill=function))
    with TrainingProgress(lambda done, steps: ("retraining", done, steps), quiet=json) as progress:
        say = silent if json else progress.say
        summary = prune_and_write(out.absolute(), request, pick_device(device), source, resume, say)
    echo(dumps(summary) if json else f"files: {out} (pruned.safetensors, pruned.conf, points.csv, points.png)")
    return 0


def parse_distill(text: str) -> tuple[float, str | None]:
    """Reads `--distill`: a share in [0, 1], or the address of a function, whose share is a half."""
    if is_address(text):
        return DISTILL_SHARE, text
    try:
        share = float(text)
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise UserError(f"--distill must be a share in [0, 1], or an address, package.module:function; got {text!r}")
    return share, None


def _replay(path: Path | None, checkpoint: Path | None, device: str, json: bool) -> int:
    """Replays a conf, and prints what it states beside what came out now; returns 1 where they differ."""
    from json import dumps

    from tune_prune.results import conf
    from tune_prune.training.resources import pick_device
    from tune_prune.workflows.replay import replay

    if path is None:
        raise UserError("--replay without --conf; name the conf to replay")
    compared = replay(conf.read(path), pick_device(device), path, checkpoint, silent if json else echo)
    differing = [comparison.name for comparison in compared if comparison.differs]
    if json:
        numbers = {c.name: {"stated": c.stated, "replayed": c.replayed} for c in compared}
        echo(dumps({"agrees": not differing} | numbers))
    else:
        for comparison in compared:
            echo(comparison.line())
    if differing:
        echo(f"tune-prune: {path}: the replay differs in {format_names(differing)}", sys.stderr)
    return 1 if differing else 0
