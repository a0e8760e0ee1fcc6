"""Fixtures that the tests share."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deadlines  # before PyTorch, whose import it times
import optuna
import pytest
import torch
from fenced_blocks import Block, of_test
from hypothesis import settings
from torch import nn
from toys import Conv, Tied, images, mlp, task_of

from tune_prune.cli import main
from tune_prune.pruning import gates, loss_change
from tune_prune.tasks.datasets import datasets
from tune_prune.tasks.splits import Data, Split
from tune_prune.tasks.task import Task

if TYPE_CHECKING:
    from drivers import Driver
    from searches import Trials

torch.set_num_threads(1)
settings.register_profile("no timing assertions", deadline=None)
settings.load_profile("no timing assertions")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Gives every test its deadline, unless --timeout does."""
    if config.option.timeout is None:
        config.option.timeout = deadlines.TEST


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the files directly in tests/, which run whole programs: none of these long ones is to end alone."""
    items.sort(key=lambda item: len(item.path.parts))


@pytest.fixture(scope="session")
def toy_task() -> Task:
    """Of the untrained `mlp`, which is wrong in 70 % or so."""
    torch.manual_seed(0)
    return task_of(mlp(), "toys:mlp")


@pytest.fixture(autouse=True)
def _same_initial_weights() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def toy_data() -> Data:
    return images()


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """MNIST with some hundred images."""
    whole = datasets["mnist"]()

    def few() -> Data:
        train, validation, test = whole.train, whole.validation, whole.load_test()
        cut = [Split(split.inputs[:400], split.labels[:400]) for split in (train, validation, test)]
        return Data(cut[0], cut[1], load_test=lambda: cut[2])

    monkeypatch.setitem(datasets._entries, "mnist", few)  # type: ignore[attr-defined]


@pytest.fixture(params=[mlp, Conv, Tied])
def toy_model(request: pytest.FixtureRequest) -> nn.Module:
    """A fresh toy, each in turn."""
    return request.param()


@pytest.fixture
def small_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics that take seconds, with fewer steps and images: what holds of any values holds of these."""
    monkeypatch.setattr(gates, "STEPS", 30)
    monkeypatch.setattr(loss_change, "IMAGES", 32)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """Runs `tune-prune` with arguments, in this process; returns its exit code."""

    def run(*arguments: object, name: str | None = None) -> object:
        monkeypatch.setattr(sys, "argv", ["tune-prune", *map(str, arguments)])
        monkeypatch.setattr(sys, "path", [*sys.path])
        with pytest.raises(SystemExit) as ended:
            main.main(name)
        return ended.value.code or 0

    return run


@pytest.fixture
def blocks(request: pytest.FixtureRequest) -> list[Block]:
    """The fenced blocks of the documents that name this test."""
    return of_test(f"{request.node.path.stem}::{request.node.originalname}")


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, by playwright; a test that asks for it is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # as root there is no sandbox
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=1000 * deadlines.WAIT)
        yield opened
        opened.close()


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(directions=["maximize", "minimize"])


@pytest.fixture
def driver(tmp_path: Path, study: optuna.Study) -> "Driver":
    """A search of the study, in the test's own directory."""
    from drivers import Driver  # which imports Ray

    return Driver(tmp_path, study)


@pytest.fixture
def trials() -> Iterator["Trials"]:
    """The trials of searches, which run in this process."""
    from searches import without_ray  # which imports Ray

    with without_ray() as made:
        yield made
