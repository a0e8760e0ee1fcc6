"""The command `tune-prune compare`. Heavy modules are imported when it runs."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from tune_prune.cli.options import AsJson, NoCode
from tune_prune.cli.output import echo

EXAMPLES = """Examples:

`tune-prune compare runs/lenet5-20260101-120000 runs/random`

`tune-prune compare runs/one runs/two --limit 1.0 --out comparison`
"""


def compare(
    *,
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories of searches, two or more.")],
    limit: Annotated[
        float | None,
        typer.Option(help="Worst validation metric that counts.  [default: the strictest limit of the runs]"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("comparison"),
    watch: Annotated[
        bool, typer.Option("--watch", help="Serve the page on this machine, up to date while searches run.")
    ] = False,
    no_code: NoCode = False,
    json: AsJson = False,
) -> None:
    """Compare the fronts of several runs: table, hypervolume within a common limit, picture and page."""
    from json import dumps

    from tune_prune.workflows.compare import compare, describe_comparison, watch_comparison

    run_dirs = [run.absolute() for run in runs]
    if watch:
        with suppress(KeyboardInterrupt):  # by which it ends
            watch_comparison(run_dirs, limit, echo)
        return
    compared, metric = compare(run_dirs, out, limit)
    if json:
        echo(dumps([one.to_row(metric) for one in compared]))
        return
    for line in describe_comparison(compared, metric):
        echo(line)
    echo(f"files: {out} (comparison.html, comparison.png, comparison.csv)")
