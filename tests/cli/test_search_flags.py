"""A flag of the search is declared in one place, and everything else follows."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import typer

from tune_prune.cli import main, search
from tune_prune.cli.options import takes_settings
from tune_prune.common.flags import flag
from tune_prune.hpo import run_files
from tune_prune.hpo.config import PANELS, SEARCHED, Config
from tune_prune.hpo.run_files import save_run, start_run

SPACE = """
[task]
model = "toys:mlp"
data = "toys:images"
[space.ratio]
"*" = {low = 0.1, high = 0.9}
"""


@dataclass(frozen=True, kw_only=True)
class MoreConfig(Config):
    """The settings of a search, and one that it does not have."""

    colours: tuple[str, ...] = field(
        default=("red",),
        metadata=flag(
            "Colours to choose from.  [default: red]",
            SEARCHED,
            parse=lambda text, option: tuple(text.split(",")),
            check=lambda colours: "none" not in colours,
            rule="names of colours",
            fixed_on_resume=True,
        ),
    )


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A space, where the search has the setting of `MoreConfig`."""
    app = typer.Typer(rich_markup_mode="markdown", pretty_exceptions_enable=False)
    app.callback()(main.root)
    app.command()(takes_settings(MoreConfig, PANELS)(search.search.__wrapped__))  # type: ignore[attr-defined]
    monkeypatch.setattr(main, "app", app)
    monkeypatch.setattr(run_files, "Config", MoreConfig)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "toy.toml"
    path.write_text(SPACE)
    return path


Command = Callable[..., object]


@pytest.mark.usefixtures("toml")
def test_help_shows_it(command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert command("search", "--help") == 0
    panel = capsys.readouterr().out.partition(SEARCHED)[2].partition("╰")[0]
    assert re.search(r"--colours +<str> +Colours to choose from\.  \[default: red\]", panel)


def test_it_is_checked(command: Command, toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("search", "--space", toml, "--colours", "none") == 2
    assert capsys.readouterr().err == "tune-prune: --colours must be names of colours, got ('none',)\n"


def test_it_is_saved_and_fixed_on_resume(
    command: Command, toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    config, space, text = start_run(str(toml), {"colours": ("blue", "green")})
    save_run(run, config, space, text)
    assert json.loads((run / "run.json").read_text())["colours"] == ["blue", "green"]
    assert run_files.resume_run(run, {}, {})[0] == config
    assert command("search", "--resume", run, "--colours", "red") == 2
    said = "tune-prune: --resume goes on with the search as it was begun; leave out --colours\n"
    assert capsys.readouterr().err == said
