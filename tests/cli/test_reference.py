import subprocess
import sys
from pathlib import Path

from typer.main import get_command

from tune_prune.cli import main
from tune_prune.cli.reference import make_reference

DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_document_is_current() -> None:
    command = "python -m tune_prune.cli.reference > docs/cli.md"
    assert DOCUMENT.read_text(encoding="utf-8") == make_reference(), f"not current; run `{command}`"


def test_every_command_and_option_is_described() -> None:
    sections = make_reference().split("\n## tune-prune ")[1:]
    commands = get_command(main.app).commands  # type: ignore[attr-defined]
    assert [section.partition("\n")[0] for section in sections] == list(commands)
    for section, command in zip(sections, commands.values(), strict=True):
        for parameter in command.params:
            assert all(name in section for name in (*parameter.opts, *parameter.secondary_opts))
        assert section.count("\n| `") == len(command.params)


def test_it_is_printed() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "tune_prune.cli.reference"], capture_output=True, text=True, check=True
    )
    assert printed.stdout == make_reference()
