"""The commands about one model: train, prune, test. Heavy modules are imported when a command runs."""

from pathlib import Path
from typing import Annotated

import typer

from tune_prune.common import entrypoints
from tune_prune.common.errors import UserError
from tune_prune.help_panels import grouped

PRUNE_EXAMPLES = """Examples:

`tune-prune prune -l 8 -p 0.7`

`tune-prune prune --conf mine.conf --iterations 4 --retrain --epochs 3`

`tune-prune prune --conf runs/lenet5-20260101-120000/best.conf --replay`
"""

Model = Annotated[str, typer.Option(help="Built-in name or package.module:factory.")]
Data = Annotated[str, typer.Option(help="Built-in name or package.module:factory.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
NoCode = Annotated[
    bool,
    typer.Option(
        "--no-code", callback=entrypoints.refuse_code, help="Import no package.module:name that a file names."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]


def echo(line: str) -> None:
    """Say a line."""
    typer.echo(line)


def silent(line: str) -> None:
    """What is said beside `--json`."""


def train(
    model: Model = "lenet5",
    data: Data = "mnist",
    out: Annotated[Path, typer.Option(help="File to write; a CSV goes beside it.")] = Path("model.safetensors"),
    epochs: Annotated[int, typer.Option(min=1)] = 20,
    batch_size: Annotated[int, typer.Option(min=1)] = 128,
    lr: Annotated[float, typer.Option(min=0, help="Highest rate; it rises for 5 % of the steps, then falls.")] = 0.05,
    momentum: Annotated[float, typer.Option(min=0, max=0.999)] = 0.9,
    weight_decay: Annotated[float, typer.Option(min=0)] = 5e-4,
    augment: Annotated[bool, typer.Option(help="Rotate, scale and shift the training images at random.")] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a training with these flags was cut off.")
    ] = False,
) -> None:
    """Train a dense model; the best epoch so far, by validation error, is kept whenever it ends."""
    from tune_prune import dense
    from tune_prune.tasks.datasets import load_data
    from tune_prune.training.loop import steps_per_epoch
    from tune_prune.training.optim import Recipe
    from tune_prune.training.resources import pick_device

    loaded = load_data(data, echo)
    steps = epochs * steps_per_epoch(len(loaded.train.labels), batch_size)
    recipe = Recipe(
        steps=steps,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        batch_size=batch_size,
        warmup=0.05,
        augment=augment,
    )

    def show(epoch: dense.Epoch) -> None:
        errors = f"train error {epoch.train_error:.2f} %  validation error {epoch.val_error:.2f} %"
        typer.echo(f"epoch {epoch.epoch:3d}/{epochs}  train loss {epoch.train_loss:.4f}  {errors}")

    on = pick_device(device)
    history = dense.train(model, loaded, recipe, out.absolute(), seed=seed, device=on, resume=resume, on_epoch=show)
    best = min(history, key=lambda epoch: epoch.rank)
    typer.echo(f"{out}: epoch {best.epoch}, validation error {best.val_error:.2f} %")


@grouped(
    {
        "What is pruned": "layer ratio conf model data checkpoint no_code",
        "How": "pruner mode granularity iterations schedule reload allow_empty acc_tradeoff",
        "What is trained after each round": "retrain epochs lr l1 l2 distill scale_dropout",
        "How it runs": "device seed out resume replay json",
    }
)
def prune(
    layer: Annotated[list[str] | None, typer.Option("-l", "--layer", help="Layer to prune: position or name.")] = None,
    ratio: Annotated[list[float] | None, typer.Option("-p", "--ratio", help="Share of its weights to remove.")] = None,
    conf: Annotated[Path | None, typer.Option(help="A .conf file.  [default: the model's own]")] = None,
    model: Model = "lenet5",
    data: Data = "mnist",
    checkpoint: Annotated[Path | None, typer.Option(help="Start from this file instead of the dense model.")] = None,
    pruner: Annotated[str, typer.Option(help="Which weights go first.")] = "mag",
    mode: Annotated[str, typer.Option(help="layer: each its ratio; global: one for all, scores decide.")] = "layer",
    granularity: Annotated[str, typer.Option(help="What goes as one: weight, filter, neuron or 2:4.")] = "weight",
    iterations: Annotated[int, typer.Option(min=1, help="Rounds of pruning.")] = 1,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train what is left after every round.")] = False,
    epochs: Annotated[float | None, typer.Option(help="Epochs of a round's retraining.  [default: 1]")] = None,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate of the retraining.")] = 0.01,
    l1: Annotated[float, typer.Option(min=0, help="L1 penalty on the weights in retraining.")] = 0.0,
    l2: Annotated[float, typer.Option(min=0, help="L2 penalty on the weights in retraining.")] = 0.0,
    distill: Annotated[float, typer.Option(min=0, max=1, help="The unpruned model's share of the loss.")] = 0.0,
    scale_dropout: Annotated[bool, typer.Option("--scale-dropout", help="Shrink dropout with its layer.")] = False,
    schedule: Annotated[str, typer.Option(help="linear, cubic, geometric or one-shot.")] = "linear",
    reload: Annotated[bool, typer.Option("--reload", help="Start every round from the unpruned model.")] = False,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Let a layer lose all its weights.")] = False,
    acc_tradeoff: Annotated[
        float | None, typer.Option(min=0, help="Prune layer by layer; take back what costs more points of error.")
    ] = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("pruned"),
    replay: Annotated[
        bool, typer.Option("--replay", help="Run --conf as its comments say; compare with what they state.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a pruning with these flags was cut off.")
    ] = False,
    no_code: NoCode = False,
    json: AsJson = False,
) -> None:
    """Prune layers of one model, once or iteratively, with or without retraining."""
    if replay:
        _replay(conf, device, json)
        return
    from json import dumps
    from math import inf

    from tune_prune import interrupted, one_model
    from tune_prune.one_model_files import write
    from tune_prune.tasks.datasets import load_data
    from tune_prune.tasks.metrics import evaluate
    from tune_prune.training.resources import pick_device
    from tune_prune.wanted import wanted_of

    say = silent if json else echo
    if epochs is not None and not retrain:
        raise UserError("--epochs without --retrain; add --retrain")
    settings = one_model.Settings(
        iterations=iterations, epochs=(1.0 if epochs is None else epochs) if retrain else 0.0, pruner=pruner,
        mode=mode, granularity=granularity, schedule=schedule, lr=lr, l1=l1, l2=l2, distill=distill,
        scale_dropout=scale_dropout, reload=reload,
        acc_tradeoff=acc_tradeoff, allow_empty=allow_empty, seed=seed,
    )  # fmt: skip
    if reload and acc_tradeoff is not None:
        raise UserError("--reload and --acc-tradeoff exclude each other; leave one out")
    if retrain and not 0 < settings.epochs < inf:
        raise UserError(f"--epochs must be above 0 with --retrain, got {epochs:g}")
    wanted, source = wanted_of(layer or [], ratio or [], conf, model, mode)
    loaded, on = load_data(data, say), pick_device(device)
    begun = interrupted.Begun(model, data, checkpoint, wanted, settings)
    state, plan, found = interrupted.prune(
        out.absolute(), begun, loaded, on, source, resume, lambda reached: say(reached.line(iterations))
    )
    for line in one_model.kept_lines(state.masks):
        say(line)
    splits = loaded.validation, loaded.load_test()
    val_error, test_error = (evaluate(state.model, split.to(on)).error for split in splits)
    say(f"validation error {val_error:.2f} %, test error {test_error:.2f} %")
    summary = write(out.absolute(), model, data, state, plan, found, settings, (val_error, test_error), checkpoint)
    interrupted.forget(out.absolute())
    typer.echo(dumps(summary) if json else f"files: {out} (pruned.safetensors, pruned.conf, points.csv, points.png)")


def _replay(path: Path | None, device: str, json: bool) -> None:
    from json import dumps

    from tune_prune.replay import replay
    from tune_prune.results import conf
    from tune_prune.training.resources import pick_device

    if path is None:
        raise UserError("--replay without --conf; name the conf to replay")
    compared = replay(conf.read(path), pick_device(device), str(path))
    if json:
        numbers = {c.name: {"stated": c.stated, "replayed": c.replayed} for c in compared}
        typer.echo(dumps({"same": all(c.same for c in compared)} | numbers))
        return
    for each in compared:
        typer.echo(each.line())


def test(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="A .safetensors file.  [default: the pruned lenet5 of the package]")
    ] = None,
    data: Data = "mnist",
    model: Annotated[str | None, typer.Option(help="Your own model that the file names: its code is run.")] = None,
    device: Device = "auto",
    no_code: NoCode = False,
    json: AsJson = False,
) -> None:
    """Test error and compression of a saved model."""
    from json import dumps

    from tune_prune import one_model
    from tune_prune.pruning.checkpoint import check_trusted
    from tune_prune.tasks.datasets import load_data
    from tune_prune.training.resources import pick_device

    say = silent if json else echo
    path = checkpoint or one_model.PRUNED_LENET5
    check_trusted(path, model)
    result = one_model.measure(path, load_data(data, say), pick_device(device), say)
    typer.echo(dumps(result) if json else f"test error {result['test_error']:.2f} %")
