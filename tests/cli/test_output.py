import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from tune_prune import __version__
from tune_prune.cli import output
from tune_prune.cli.output import TrainingProgress, announce, waiting
from tune_prune.training.progress import step_done
from tune_prune.workflows import console


def test_a_first_line_comes_before_what_takes_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    announce()
    assert capsys.readouterr().out == ""  # everything is loaded already
    monkeypatch.delitem(sys.modules, "torch")
    announce(quiet=True)
    assert capsys.readouterr().out == ""
    announce()
    assert capsys.readouterr().out == f"tune-prune {__version__}: loading PyTorch, Ray and Optuna\n"


def test_the_first_line_of_the_program() -> None:
    """PyTorch is not imported before it: only then it comes at once."""
    program = (
        "import sys; sys.argv[1:] = ['search', '--budget', '0']; from tune_prune.cli import main; "
        "assert 'torch' not in sys.modules; main.main()"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=Path.cwd(), capture_output=True, text=True)
    assert ended.stdout == f"tune-prune {__version__}: loading PyTorch, Ray and Optuna\n"
    assert ended.stderr == "tune-prune: --budget must be at least 1 trial, got 0\n"


def test_what_is_waited_for_is_shown_in_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with waiting("testing"):
        pass
    assert capsys.readouterr().out == ""
    for quiet in (True, False):
        monkeypatch.setattr(output, "Console", lambda file: Console(file=file, force_terminal=True, width=80))
        with waiting("testing", quiet):
            print("in between")
        out = capsys.readouterr().out
        assert ("testing" in out) == (not quiet)
        assert "in between" in out


def parts_of_ten(done: int, steps: int) -> tuple[str, int, int]:
    return f"part {(done - 1) // 10 + 1}", (done - 1) % 10 + 1, 10


def test_a_training_without_a_terminal_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(output.time, "monotonic", lambda: now)
    for quiet in (False, True):
        with TrainingProgress(parts_of_ten, quiet):
            for done in range(1, 21):
                step_done(done, 20)
                now += 12.0
    assert capsys.readouterr().out == (
        "part 1: 40% of its steps, 1:12 left\npart 1: 70% of its steps, 0:36 left\n"
        "part 2: 20% of its steps, 1:36 left\npart 2: 50% of its steps, 1:00 left\n"
        "part 2: 80% of its steps, 0:24 left\n"
    )
    step_done(1, 2)  # nobody listens
    assert capsys.readouterr().out == ""


def test_a_training_in_a_terminal_is_a_bar_of_which_nothing_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "Console", lambda file: Console(file=file, force_terminal=True, width=80))
    with TrainingProgress(parts_of_ten) as progress:
        for done in range(1, 15):
            step_done(done, 20)
        progress.bar.refresh()
        progress.say("part 1 has ended")
    out = capsys.readouterr().out
    assert re.search(r"part 2 .* 40%", out)
    assert "\x1b[2Kpart 1 has ended\n" in out  # the bar leaves the line
    assert out.endswith("\x1b[2K")


@pytest.mark.parametrize("words", ["train --epochs 2", "prune -l 2 -p 0.5 --retrain --epochs 2 --force"])
def test_long_epochs_and_rounds_are_followed(
    command: Callable[..., object],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "LINE_EVERY", 0.0)
    data = ("--model", "toys:mlp", "--data", "toys:images", "--batch-size", 40)
    assert command(*words.split(), *data, "--out", "out.safetensors") == 0
    shown = capsys.readouterr().out
    first = "epoch 2/2: 50% of its steps" if words.startswith("train") else "retraining: 50% of its steps"
    assert first in shown
