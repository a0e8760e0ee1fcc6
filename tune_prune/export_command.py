"""The command `tune-prune export`. Heavy modules are imported when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from tune_prune.model_commands import AsJson, Data, NoCode, echo, silent


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A .safetensors file of a search or of `tune-prune prune`.")],
    to: Annotated[str, typer.Option(help="safetensors, sparse, dense, pt2 or onnx.")],
    out: Annotated[Path | None, typer.Option(help="File or folder.  [default: named after it, here]")] = None,
    data: Data = "mnist",
    model: Annotated[str | None, typer.Option(help="Your own model that the file names: its code is run.")] = None,
    no_code: NoCode = False,
    json: AsJson = False,
) -> None:
    """Write a pruned model for other programs, and compare what they load with it on the test images.

    safetensors: all weights, the removed ones as zeros. sparse: kept weights and where they are, the smallest file;
    tune_prune.load reads it. dense: without neurons and filters that nothing computes or reads, a smaller network with
    the same outputs; tune_prune.load reads it. pt2: the same for torch.export.load. onnx: the same for ONNX Runtime.
    """
    from json import dumps

    from tune_prune.export import exporter
    from tune_prune.export.formats import formats
    from tune_prune.pruning.checkpoint import check_trusted
    from tune_prune.tasks.datasets import load_data

    formats[to]  # before the data is read
    check_trusted(checkpoint, model)
    say = silent if json else echo
    account = exporter.export(checkpoint, to, load_data(data, say).load_test(), out, say)
    for line in account.lines():
        say(line)
    echo(dumps(account.described()) if json else f"file: {account.file}")
