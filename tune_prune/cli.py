"""The command line: arguments in, one line for every error, exit codes out."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tune_prune.errors import HeldError, UserError

# BadParameter < UsageError < ClickException: typer carries a click of its own, and exports no other name for it
_ClickError: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(add_completion=True, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def root() -> None:
    """Find out how far a neural network can be pruned, and how."""


@app.command()
def train(
    model: Annotated[str, typer.Option(help="Built-in name or package.module:factory.")] = "lenet5",
    data: Annotated[str, typer.Option(help="Built-in name or package.module:factory.")] = "mnist",
    out: Annotated[Path, typer.Option(help="The checkpoint to write; its CSV goes beside it.")] = Path("model.safetensors"),
    epochs: Annotated[int, typer.Option(min=1)] = 20,
    batch_size: Annotated[int, typer.Option(min=1)] = 128,
    lr: Annotated[float, typer.Option(min=0, help="Highest learning rate; it rises for 5 % of the steps, then falls to 0.")] = 0.05,
    momentum: Annotated[float, typer.Option(min=0, max=0.999)] = 0.9,
    weight_decay: Annotated[float, typer.Option(min=0)] = 5e-4,
    augment: Annotated[bool, typer.Option(help="Rotate, scale and shift the training images at random.")] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a dense model; keep the epoch with the lowest validation error."""
    from tune_prune import dense
    from tune_prune.data import load_data
    from tune_prune.training import Recipe, pick_device

    loaded = load_data(data)
    steps = epochs * dense.steps_per_epoch(loaded, batch_size)
    recipe = Recipe(steps, lr, momentum, weight_decay, batch_size, warmup=0.05, augment=augment)

    def show(epoch: dense.Epoch) -> None:
        typer.echo(f"epoch {epoch.epoch:3d}/{epochs}  train loss {epoch.train_loss:.4f}  validation error {epoch.val_error:.2f} %")

    history = dense.train(model, loaded, recipe, out.absolute(), seed=seed, device=pick_device(device), on_epoch=show)
    best = min(history, key=lambda epoch: (epoch.val_error, epoch.val_loss))
    typer.echo(f"{out}: epoch {best.epoch}, validation error {best.val_error:.2f} %")


@app.command()
def search(
    space: Annotated[str | None, typer.Option(help="Name of a space, or a .toml file.  [default: lenet5]")] = None,
    budget: Annotated[int | None, typer.Option(help="Trials to finish.  [default: the space's, or 100]")] = None,
    time_budget: Annotated[str | None, typer.Option(help="End after this long: 90s, 15m, 1h30m.")] = None,
    acc_tradeoff: Annotated[float | None, typer.Option(help="Points of error that may be given up.  [default: the space's, or 0.5]")] = None,
    pruners: Annotated[str | None, typer.Option(help="Pruners to choose from: mag,taylor1,...")] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe, nsga2, gp or random.  [default: tpe]")] = None,
    seed: Annotated[int | None, typer.Option(help="[default: 0]")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Where to write.  [default: runs/<space>-<date>-<time>]")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on in this run directory; what defines the search is kept.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.  [default: auto]")] = None,
    cpus_per_trial: Annotated[float | None, typer.Option(help="[default: 1]")] = None,
    gpus_per_trial: Annotated[float | None, typer.Option(help="[default: 0.25 on a GPU]")] = None,
    max_concurrent: Annotated[int | None, typer.Option(help="Trials at a time.  [default: as many as fit]")] = None,
    address: Annotated[str | None, typer.Option(help="An existing Ray cluster: auto or HOST:PORT.")] = None,
    storage: Annotated[str | None, typer.Option(help="URL of the study.  [default: study.db in the run directory]")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be searched and stop.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Nothing on the screen but errors.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")] = False,
) -> int:
    """Search ratios and pruners; write the Pareto front of compression against error."""
    from rich.console import Console

    from tune_prune import config as configs
    from tune_prune.screen import Screen
    from tune_prune.search import describe
    from tune_prune.search import search as run_search

    given = {
        "budget": budget,
        "time_budget": None if time_budget is None else configs.parse_duration(time_budget),
        "acc_tradeoff": acc_tradeoff,
        "pruners": None if pruners is None else tuple(pruners.split(",")),
        "sampler": sampler,
        "seed": seed,
        "device": device,
        "cpus_per_trial": cpus_per_trial,
        "gpus_per_trial": gpus_per_trial,
        "max_concurrent": max_concurrent,
        "address": address,
        "storage": storage,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if resume is not None:
        directory = resume.absolute()
        settings, chosen = configs.resume(directory, given, {"--space": space, "--run-dir": run_dir})
    else:
        settings, chosen, text = configs.begin(space or "lenet5", given)
        directory = configs.new_run_dir(run_dir, chosen.name)
    if dry_run:
        typer.echo(describe(settings, chosen))
        return 0
    if resume is None:
        configs.save(directory, settings, chosen, text)
    code = run_search(settings, chosen, directory, Screen(Console(), quiet=quiet or json))
    if json:
        typer.echo((directory / "summary.json").read_text(encoding="utf-8").rstrip())
    return code


def main(command: str | None = None) -> None:
    """Run the program; with `command`, as if it stood before the arguments."""
    arguments = [*([command] if command else []), *sys.argv[1:]]
    # the console script lacks what `python launch.py` has: a user's own module in the working directory
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        code = app(arguments, standalone_mode=False)
    except _ClickError as error:
        code = _fail(error.format_message(), 2)  # type: ignore[attr-defined]
    except UserError as error:
        code = _fail(str(error), 2)
    except HeldError as error:
        code = _fail(str(error), 75)
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("interrupted", 130)
    sys.exit(code)


def _fail(message: str, code: int) -> int:
    print(f"tune-prune: {' '.join(message.split())}", file=sys.stderr)
    return code
