"""docs/tutorial.md as printed, but with fewer images, trials and epochs; trials run in this process."""

import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import searches
from fenced_blocks import Block, of_test
from torch import nn

LESS = {
    "--budget 20": "--budget 2", "--budget 30": "--budget 3", "--budget 5": "--budget 2",
    "--time-budget 4m": "--budget 2", "--time 4m": "--time 2s", "--epochs 3": "--epochs 1",
}  # fmt: skip
"""What is changed in a command that takes long."""

Run = Callable[[Block], None]


@pytest.fixture
def run(
    few_images: None,
    trials: searches.Trials,
    command: Callable[..., object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Run]:
    """Runs the commands of a block, where there is a file `mine.py`; its models are hardly trained."""
    monkeypatch.chdir(tmp_path)
    mine = [
        *of_test("test_tutorial::test_ones_own_network"),
        *of_test("test_tutorial::test_ones_own_data"),
    ]
    Path("mine.py").write_text("\n\n".join(block.text for block in mine if block.language == "python"))

    def run_block(block: Block) -> None:
        for program, *words in block.commands:
            line = " ".join(words)
            for much, less in LESS.items():
                line = re.sub(rf"{much}$|{much} ", f"{less} ", line)
            sys.modules.pop("mine", None)
            assert program == "tune-prune"
            if "mine" in line and words[0] in ("search", "init"):
                line += " --force" + " --acc-tradeoff 90" * (words[0] == "search")
            assert command(*line.split()) == 0, f"{block}: {line}"

    yield run_block
    sys.modules.pop("mine", None)


def test_a_first_search(run: Run, blocks: list[Block]) -> None:
    *shell, python = blocks
    for block in shell:
        run(block)
    assert searches.summary_of(Path("runs/first"))["trials"]["completed"] >= 2
    Path("printed.py").write_text(python.text)
    assert isinstance(runpy.run_path("printed.py")["network"], nn.Module)


def test_ones_own_network(run: Run, blocks: list[Block]) -> None:
    _, train, export = blocks
    run(train)
    summary = searches.summary_of(Path("runs/mine"))
    assert (summary["model"], summary["layers"]["6"]) == ("mine:model", 32_768)
    run(export)
    assert Path("mine.sparse").stat().st_size > 0


def test_ones_own_data(run: Run, blocks: list[Block]) -> None:
    _, shell = blocks
    run(shell)
    (summary,) = (searches.summary_of(path.parent) for path in Path("runs").glob("*/summary.json"))
    assert (summary["model"], summary["data"]) == ("mine:model", "mine:data")


def test_a_faster_network(run: Run, blocks: list[Block]) -> None:
    init, search = blocks
    (train,) = (block for block in of_test("test_tutorial::test_ones_own_network") if "train" in block.text)
    run(train._replace(text=train.text.splitlines()[0]))
    run(init)
    space = Path("mine.toml").read_text()
    assert 'granularity = "channel"' in space
    run(search)
    (path,) = Path("runs").glob("mine-*/space.toml")
    assert path.read_text() == space
