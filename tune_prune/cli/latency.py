"""The command `tune-prune latency`. Heavy modules are imported when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from tune_prune.cli.options import AsJson, Device, NoCode
from tune_prune.cli.output import echo, silent


def latency(
    *,
    space: Annotated[str, typer.Option(help="Name of a space, or a .toml file.")] = "lenet5",
    batch: Annotated[int, typer.Option(min=1, help="Samples of a call.")] = 1,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Table to write.  [default: latency.json]")] = None,
    script: Annotated[
        Path | None, typer.Option(help="Write a script instead, which measures the table on another device.")
    ] = None,
    no_code: NoCode = False,
    json: AsJson = False,
) -> None:
    """Measure how long pruned forms of a network take, so that a search can predict latency.

    With --script another device measures: copy the file there, where PyTorch is all that it needs, run it, copy the
    table back, and name it by `tune-prune search --latency-on`.
    """
    from json import dumps

    from tune_prune.common.errors import UserError
    from tune_prune.hpo.run_files import start_run
    from tune_prune.training.resources import pick_device
    from tune_prune.workflows.latency import measure_latency

    if script is not None and out is not None:
        raise UserError("--script and --out exclude each other: the script writes the table, where it runs")
    _, chosen, _ = start_run(space, {})
    found = measure_latency(chosen, batch, pick_device(device), out, script, silent if json else echo)
    echo(dumps(found) if json else f"file: {found.get('script') or found['table']}")
