"""The command `tune-prune init`, and a search without a file. Heavy modules are imported when a command runs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tune_prune.cli.options import GRANULARITIES, Data, Device, Force, Model, NoCode, takes_task
from tune_prune.cli.output import announce, echo, silent, waiting
from tune_prune.common.errors import UserError
from tune_prune.hpo.config import parse_duration
from tune_prune.tasks.settings import TaskSettings

if TYPE_CHECKING:
    from tune_prune.workflows.preparation import Begun

SearchedModel = Annotated[
    str | None, typer.Option(help="Model to search without a space: built-in name or package.module:factory.")
]
SearchedData = Annotated[str | None, typer.Option(help="Its data: built-in name or package.module:factory.")]
Weights = Annotated[str | None, typer.Option(help="File of the dense weights.  [default: they come with the model]")]
Granularity = Annotated[str | None, typer.Option(help=f"{GRANULARITIES}  [default: weight]")]

MEASURED = "measuring the dense model, a step of training, and learning rates"
"""What a proposal of a space takes its time for."""


@takes_task()
def init(
    *,
    model: Model,
    data: Data,
    weights: Weights = None,
    granularity: Granularity = None,
    time: Annotated[str, typer.Option(help="How long a search is to take: 15m, 1h30m.")] = "30m",
    settings: Mapping[str, Any],
    device: Device = "auto",
    out: Annotated[Path, typer.Option(help="File to write; it must not exist.")] = Path("space.toml"),
    force: Force = False,
    no_code: NoCode = False,
) -> None:
    """Write a space that fits a model, with comments, ready to search."""
    announce()
    from tune_prune.common import files
    from tune_prune.training.resources import Resources, pick_device
    from tune_prune.workflows.init import ProposalRequest, propose_space

    if out.exists():
        raise UserError(f"--out {out} exists already; name another file")
    seconds = parse_duration(time, "--time")
    how = TaskSettings(**settings)
    request = ProposalRequest(model, data, weights, how, seconds, force, granularity=granularity or "weight")
    with waiting(MEASURED):
        text = propose_space(request, Resources(device=pick_device(device).type), echo)
    files.write_text(out, text)
    echo(f"file: {out}; tune-prune search --space {out}")


def propose_search(
    model: str | None,
    data: str | None,
    weights: str | None,
    space: str | None,
    granularity: str | None,
    given: Mapping[str, Any],
    say: Callable[[str], None],
) -> "Begun":
    """Begins a search without a file; `given` are the settings that the user named."""
    from tune_prune.workflows import init

    if granularity is not None and not (model and data):
        where = f"write granularity = {granularity!r} into [space] of the file" if space else "name --model and --data"
        raise UserError(f"--granularity is of a search without --space; {where}")
    if space is not None:
        raise UserError("--space names model and data already; leave out --model, --data and --weights")
    if model is None or data is None:
        raise UserError("--model and --data go together: name both, or a --space")
    with waiting(MEASURED, quiet=say is silent):
        return init.propose_search(model, data, weights, given, say, granularity=granularity or "weight")
