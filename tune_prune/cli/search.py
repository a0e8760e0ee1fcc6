"""The commands `tune-prune search` and `tune-prune report`. Heavy modules are imported when a command runs."""

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from tune_prune.cli.init import Granularity, SearchedData, SearchedModel, Weights, propose_search
from tune_prune.cli.options import NoCode, grouped, takes_settings
from tune_prune.cli.output import announce, echo, silent
from tune_prune.hpo.config import FILES, PANELS, SEARCHED, Config
from tune_prune.training.resources import MACHINE

EXAMPLES = """Examples:

`tune-prune search --budget 100`

`tune-prune search --model mine:model --data mine:data --weights trained.safetensors --time-budget 15m`

`tune-prune search --model mine:model --data mine:data --granularity channel --time-budget 1h`

`tune-prune search --space mine.toml --time-budget 30m --acc-tradeoff 0.2`

`tune-prune search --space mine.toml --loss mine:loss --metric mine:f1 --better higher`

`tune-prune search --resume runs/lenet5-20260101-120000 --budget 200`
"""


@takes_settings(Config, PANELS)
@grouped(
    {SEARCHED: "space model data weights granularity", FILES: "run_dir resume dry_run quiet json", MACHINE: "no_code"}
)
def search(
    *,
    space: Annotated[str | None, typer.Option(help="Name of a space, or a .toml file.  [default: lenet5]")] = None,
    model: SearchedModel = None,
    data: SearchedData = None,
    weights: Weights = None,
    granularity: Granularity = None,
    run_dir: Annotated[Path | None, typer.Option(help="Where to write.  [default: runs/SPACE-DATE-TIME]")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on in this run directory.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be searched and stop.")] = False,
    settings: Mapping[str, Any],
    no_code: NoCode = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Nothing on the screen but errors.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")] = False,
) -> int:
    """Search ratios and pruners; write the Pareto front of compression against error."""
    began = time.monotonic()
    announce(quiet or json)
    from json import dumps, loads

    from rich.console import Console

    from tune_prune.hpo import run_files
    from tune_prune.workflows.console import SearchConsole
    from tune_prune.workflows.dry_run import describe_search
    from tune_prune.workflows.preparation import Begun
    from tune_prune.workflows.search import search as run_search

    named = {"--model": model, "--data": data, "--weights": weights, "--granularity": granularity}
    if resume is not None:
        directory = resume.absolute()
        barred = {"--space": space, "--run-dir": run_dir, **named}
        begun = Begun(*run_files.resume_run(directory, settings, barred), text=None)
    elif any(named.values()):
        run_files.new_run_dir(run_dir, "space")  # an error in it comes before the time that measuring takes
        say = silent if quiet or json else echo
        begun = propose_search(model, data, weights, space, granularity, settings, say)
        directory = run_files.new_run_dir(run_dir, begun.space.name)
    else:
        begun = Begun(*run_files.start_run(space or "lenet5", settings))
        directory = run_files.new_run_dir(run_dir, begun.space.name)
    if dry_run:
        for line in describe_search(begun.config, begun.space, begun.loaded):
            echo(line)
        return 0
    console = SearchConsole(Console(file=sys.stdout), quiet=quiet or json)
    code = run_search(begun.config, begun.space, directory, console, begun.text, began, begun.loaded)
    if json:
        echo(dumps(loads((directory / "summary.json").read_text(encoding="utf-8"))))
    return code


def report(
    run_dir: Annotated[Path, typer.Argument(help="The run directory of a search.")],
    compare: Annotated[
        list[Path] | None, typer.Option(help="Another run to compare with; may be given several times.")
    ] = None,
    select: Annotated[
        str | None, typer.Option(help="Name a member of the front instead: best, knee, factor=30, error=1.0 or its id.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Serve it on this machine, up to date while the search runs.")
    ] = False,
    no_code: NoCode = False,
    json: Annotated[bool, typer.Option("--json", help="Print what was selected as JSON.")] = False,
) -> None:
    """Write the report of a run again, or select a member of its front."""
    if select is not None:
        from json import dumps

        from tune_prune.results.report.select import describe_member, select_member
        from tune_prune.results.run_results import read_metric

        member, metric = select_member(run_dir, select), read_metric(run_dir)
        echo(dumps(member, default=lambda number: number.item()) if json else describe_member(member, metric))
        return
    from tune_prune.workflows.report import watch_report, write_report

    if watch:
        with suppress(KeyboardInterrupt):  # by which it ends
            watch_report(run_dir.absolute(), [path.absolute() for path in compare or []], echo)
        return
    echo(str(write_report(run_dir.absolute(), [path.absolute() for path in compare or []])))
