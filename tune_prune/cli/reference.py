"""Writes docs/cli.md from the commands themselves: `python -m tune_prune.cli.reference > docs/cli.md`."""

import re
from collections import defaultdict
from typing import Any

from typer.main import get_command

from tune_prune.cli import main

HEAD = """# Command line

<!-- Made by `python -m tune_prune.cli.reference > docs/cli.md`. A test fails when it is not current. -->
<!-- all blocks: not run: usage and examples of every command; a test looks up each flag -->

`python -m tune_prune` is the same as `tune-prune`, and `python launch.py` the same as `tune-prune search`.
`tune-prune COMMAND --help` shows what stands here. `tune-prune --version` prints the versions of the program and of
PyTorch, Ray and Optuna. `tune-prune --install-completion fish` (or `bash`, `zsh`, `powershell`) lets a shell complete
commands and options; `--show-completion` prints the script instead.

| exit code | means |
|---|---|
| 0 | done |
| 1 | failed while running; one line says why, and files written before are kept. Or a replay measured other numbers |
| 2 | a command, a flag, a space, a conf or a checkpoint is wrong; one line names it and says what would be right |
| 3 | done, but no point keeps the tradeoff; the best that was found is in the run directory |
| 75 | another process works in the run directory |
| 130, 143 | interrupted by SIGINT or SIGTERM; everything measured is kept, and `--resume` goes on from there |
"""


def make_reference() -> str:
    """Makes the text of docs/cli.md: every command with its usage, its options by panel, and its examples."""
    commands: dict[str, Any] = get_command(main.app).commands  # type: ignore[attr-defined]
    return "\n".join([HEAD, *(_describe_command(name, command) for name, command in commands.items())])


def _describe_command(name: str, command: Any) -> str:
    """Makes the section of a command."""
    context = command.context_class(command, info_name=f"tune-prune {name}")
    usage = command.get_usage(context).removeprefix("Usage: ")
    parts = [f"## tune-prune {name}", command.help, f"```\n{usage}\n```"]
    panels: dict[str, list[str]] = defaultdict(list)
    for parameter in command.params:
        panels[getattr(parameter, "rich_help_panel", None) or ""].append(_describe_parameter(parameter, context))
    for panel, rows in panels.items():
        parts += [f"**{panel}**"] if panel else []
        parts.append("\n".join(["| option | |", "|---|---|", *rows]))
    examples = re.findall(r"^`(.+)`$", command.epilog or "", re.MULTILINE)
    if examples:
        parts += ["Examples:", "\n".join(["```", *examples, "```"])]
    return "\n\n".join(parts) + "\n"


def _describe_parameter(parameter: Any, context: Any) -> str:
    """Makes a row of the table of options: names, kind of value, and the text of `--help`."""
    names, text = parameter.get_help_record(context)
    option, _, kind = names.removesuffix(">").removesuffix(" range").partition(" <")
    kind = re.sub(r"list\[(\w+)\]", r"\1, repeatable", kind).lower()
    text = re.sub(r"\]\s+\[", ", ", text)  # "[a] [b]" would be a link
    cells = f"`{option}` {kind}".strip(), text
    return "| " + " | ".join(cell.replace("|", "\\|").replace("  [", " [") for cell in cells) + " |"


if __name__ == "__main__":
    print(make_reference(), end="")
