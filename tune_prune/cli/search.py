"""The commands about a search: search, report. Heavy modules are imported when a command runs."""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from tune_prune.cli.options import NoCode, grouped

EXAMPLES = """Examples:

`tune-prune search --budget 100`

`tune-prune search --space mine.toml --time-budget 30m --acc-tradeoff 0.2`

`tune-prune search --resume runs/lenet5-20260101-120000 --budget 200`
"""


@grouped(
    {
        "What is searched, and for how long": "space budget time_budget acc_tradeoff refine pruners sampler seed",
        "Once the search has ended": "confirm refit",
        "Where and how it runs": (
            "device cpus_per_trial gpus_per_trial max_concurrent address storage trial_timeout max_failures no_code"
        ),
        "Files and screen": "run_dir resume dry_run logger dashboard quiet json",
    }
)
def search(
    space: Annotated[str | None, typer.Option(help="Name of a space, or a .toml file.  [default: lenet5]")] = None,
    budget: Annotated[int | None, typer.Option(help="Trials to finish.  [default: the space's]")] = None,
    time_budget: Annotated[
        str | None, typer.Option(help="End after this long: 90s, 15m, 1h30m; without --budget, not before.")
    ] = None,
    acc_tradeoff: Annotated[
        float | None, typer.Option(help="Points of error to give up.  [default: the space's]")
    ] = None,
    refine: Annotated[
        float | None, typer.Option(help="Share of the trials that train what looks best on.  [default: the space's]")
    ] = None,
    confirm: Annotated[
        int | None, typer.Option(help="Afterwards, retrain what was found from so many other seeds.")
    ] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Afterwards, train what was found on validation images too.")
    ] = False,
    pruners: Annotated[str | None, typer.Option(help="Pruners to choose from: mag,taylor1,...")] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe, nsga2, gp or random.  [default: tpe]")] = None,
    seed: Annotated[int | None, typer.Option(help="[default: 0]")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Where to write.  [default: runs/SPACE-DATE-TIME]")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on in this run directory.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.  [default: auto]")] = None,
    cpus_per_trial: Annotated[float | None, typer.Option(help="[default: 1]")] = None,
    gpus_per_trial: Annotated[float | None, typer.Option(help="[default: what one needs]")] = None,
    max_concurrent: Annotated[int | None, typer.Option(help="Trials at a time.  [default: as many as fit]")] = None,
    address: Annotated[str | None, typer.Option(help="An existing Ray cluster: auto or HOST:PORT.")] = None,
    storage: Annotated[str | None, typer.Option(help="URL of the study.  [default: the run's study.db]")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be searched and stop.")] = False,
    trial_timeout: Annotated[
        str | None, typer.Option(help="Give up a trial that takes longer: 90s, 15m, 1h30m.  [default: never]")
    ] = None,
    max_failures: Annotated[
        float | None, typer.Option(help="End once more than this share of the trials has failed.  [default: 0.5]")
    ] = None,
    logger: Annotated[str | None, typer.Option(help="Also write to tensorboard, mlflow, wandb.")] = None,
    dashboard: Annotated[bool, typer.Option("--dashboard", help="Serve Optuna's dashboard meanwhile.")] = False,
    no_code: NoCode = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Nothing on the screen but errors.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")] = False,
) -> int:
    """Search ratios and pruners; write the Pareto front of compression against error."""
    began = time.monotonic()
    from rich.console import Console

    from tune_prune.hpo import config as configs
    from tune_prune.workflows.console import SearchConsole
    from tune_prune.workflows.preparation import describe_search
    from tune_prune.workflows.search import search as run_search

    given: dict[str, Any] = {
        "budget": budget,
        "time_budget": None if time_budget is None else configs.parse_duration(time_budget),
        "acc_tradeoff": acc_tradeoff,
        "refine": refine,
        "confirm": confirm,
        "refit": refit or None,
        "pruners": None if pruners is None else tuple(pruners.split(",")),
        "sampler": sampler,
        "seed": seed,
        "device": device,
        "cpus_per_trial": cpus_per_trial,
        "gpus_per_trial": gpus_per_trial,
        "max_concurrent": max_concurrent,
        "trial_timeout": None if trial_timeout is None else configs.parse_duration(trial_timeout, "--trial-timeout"),
        "max_failures": max_failures,
        "address": address,
        "storage": storage,
        "logger": None if logger is None else tuple(logger.split(",")),
        "dashboard": dashboard or None,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if resume is not None:
        directory = resume.absolute()
        text = None
        settings, chosen = configs.resume_run(directory, given, {"--space": space, "--run-dir": run_dir})
    else:
        settings, chosen, text = configs.start_run(space or "lenet5", given)
        directory = configs.new_run_dir(run_dir, chosen.name)
    if dry_run:
        typer.echo(describe_search(settings, chosen))
        return 0
    code = run_search(
        settings, chosen, directory, SearchConsole(Console(file=sys.stdout), quiet=quiet or json), text, began
    )
    if json:
        typer.echo((directory / "summary.json").read_text(encoding="utf-8").rstrip())
    return code


def report(
    run_dir: Annotated[Path, typer.Argument(help="The run directory of a search.")],
    compare: Annotated[
        list[Path] | None, typer.Option(help="Another run to compare with; may be given several times.")
    ] = None,
    select: Annotated[
        str | None, typer.Option(help="Name a member of the front instead: knee, factor=30 or error=1.0.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what was picked as JSON.")] = False,
) -> None:
    """Write the report of a run again, or pick a member of its front."""
    if select is not None:
        from json import dumps

        from tune_prune.results.report import select as picking

        found = picking.select_member(run_dir, select)
        typer.echo(dumps(found, default=lambda number: number.item()) if json else picking.describe_member(found))
        return
    from tune_prune.results.report.html import write_report

    typer.echo(write_report(run_dir.absolute(), [path.absolute() for path in compare or []]))
