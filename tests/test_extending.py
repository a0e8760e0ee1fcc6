"""Every recipe of docs/extending.md: its block is run as printed, and the new entry is used."""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import searches
import torch
from toys import Conv, images, mlp

from tune_prune.distributed.loggers import loggers
from tune_prune.export.formats import formats
from tune_prune.hpo import config
from tune_prune.hpo.study import samplers
from tune_prune.pruning import checkpoint, layers, masks
from tune_prune.pruning.criteria import criteria, criterion
from tune_prune.pruning.granularity import granularities
from tune_prune.pruning.plan import schedules
from tune_prune.pruning.statistics import Context, statistics
from tune_prune.tasks.datasets import datasets
from tune_prune.tasks.models import models
from tune_prune.tasks.objective import make_objective
from tune_prune.tasks.settings import TaskSettings
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"^## An? (.+?)\n.*?```python\n(.*?)```", DOCUMENT, re.DOTALL | re.MULTILINE))
REGISTRIES = (criteria, statistics, schedules, granularities, samplers, formats, loggers, models, datasets)

Install = Callable[[str], None]
Command = Callable[..., object]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Imports the block of a recipe as a module; what it registers is taken out again after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for registry in REGISTRIES:
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))  # type: ignore[attr-defined]
    monkeypatch.setattr(layers, "registered", dict(layers.registered))

    def run(recipe: str) -> None:
        name = f"recipe_{recipe.replace(' ', '_').replace('-', '_')}"
        (tmp_path / f"{name}.py").write_text(RECIPES[recipe], encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        importlib.import_module(name)

    return run


@pytest.fixture
def prune(command: Command, tmp_path: Path) -> Callable[..., dict[str, torch.Tensor]]:
    """Runs `tune-prune prune` on the toy images; returns the masks of what it wrote."""

    def run(*flags: object, model: str = "toys:mlp") -> dict[str, torch.Tensor]:
        out = tmp_path / "pruned"
        assert command("prune", "--force", "--model", model, "--data", "toys:images", "--out", out, *flags) == 0
        return checkpoint.read(out / "pruned.safetensors").masks

    return run


def test_there_is_a_recipe_for_each_registry() -> None:
    assert list(RECIPES) == [
        "layer", "pruner", "statistic", "schedule", "granularity", "sampler", "export format", "logger",
        "built-in model", "built-in data set", "optimizer", "training loop",
        "model that is pruned in a loop of your own", "tuner of your own",
    ]  # fmt: skip


def test_a_layer_is_pruned_by_its_outputs(install: Install, prune: Callable[..., dict[str, torch.Tensor]]) -> None:
    install("layer")
    found = prune("-l", 2, "-p", 0.75, "--granularity", "neuron", model="recipe_layer:make_model")["2"]
    assert found.shape == (64, 16)
    assert found.all(0).sum() == 4
    assert found.sum() == 4 * 64


def test_a_pruner_chooses_the_weights_that_go(install: Install, prune: Callable[..., dict[str, torch.Tensor]]) -> None:
    install("pruner")
    found = prune("-l", 2, "-p", 0.75, "--pruner", "fisher")["2"]
    assert found.count_nonzero() == 256
    assert not torch.equal(found, prune("-l", 2, "-p", 0.75)["2"])
    # squaring changes no order
    assert torch.equal(found, prune("-l", 2, "-p", 0.75, "--pruner", "taylor1")["2"])


def test_a_statistic_is_what_its_pruner_is_given(
    install: Install, prune: Callable[..., dict[str, torch.Tensor]]
) -> None:
    install("statistic")

    @criterion
    def largest_first(squared_gradient: torch.Tensor) -> torch.Tensor:
        return -squared_gradient

    torch.manual_seed(0)
    model, train = mlp(), images().train
    values = statistics["squared_gradient"](Context(model, train, torch.Generator()))
    single = torch.stack([_gradient(model, train.inputs[i : i + 1], train.labels[i : i + 1]) for i in range(240)])
    torch.testing.assert_close(values["2"], single.square().mean(0))
    kept = prune("-l", 2, "-p", 0.5, "--pruner", "largest_first")["2"] != 0  # 240 images: the sample is all of them
    assert values["2"][kept].max() <= values["2"][~kept].min()


def _gradient(model: torch.nn.Sequential, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """The gradient of one image's loss with respect to the weight of layer 2."""
    loss = torch.nn.functional.cross_entropy(model(image.float() / 255), label)
    return torch.autograd.grad(loss, model[1].weight)[0]


def test_a_schedule_decides_the_ratios_of_the_rounds(
    install: Install, prune: Callable[..., dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    install("schedule")
    prune("-l", 2, "-p", 0.8, "--iterations", 4, "--schedule", "quadratic")
    ratios = pd.read_csv(tmp_path / "pruned" / "points.csv")["ratio/2"]
    assert ratios.tolist() == pytest.approx([0.35, 0.6, 0.75, 0.8], abs=1e-12)


def test_a_granularity_removes_whole_units(install: Install, prune: Callable[..., dict[str, torch.Tensor]]) -> None:
    install("granularity")
    found = prune("-l", "features.4", "-p", 0.5, "--granularity", "kernel", model="toys:Conv")["features.4"]
    assert found.count_nonzero() == 144
    assert set(found.flatten(2).count_nonzero(2).flatten().tolist()) == {0, 9}
    weight = Conv().features[4].weight
    assert isinstance(weight, torch.Tensor)
    assert prune("-l", 2, "-p", 0.5, "--granularity", "kernel")["2"].count_nonzero() == 512


def test_a_sampler_draws_trials(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("sampler")
    monkeypatch.setattr(config, "SAMPLERS", samplers.names())
    (tmp_path / "space.toml").write_text(searches.SPACE)
    with searches.without_ray():
        code, run_dir = searches.searched(tmp_path / "space.toml", sampler="nsga3", seed=2)
    summary = searches.summary_of(run_dir)
    assert (code, summary["sampler"], summary["trials"]["failed"]) == (0, "nsga3", 0)


def test_the_command_line_knows_every_sampler() -> None:
    assert samplers.names() == config.SAMPLERS


def test_an_export_format_is_written_and_compared(
    install: Install, prune: Callable[..., dict[str, torch.Tensor]], command: Command, tmp_path: Path
) -> None:
    install("export format")
    mask = prune("-l", 2, "-p", 0.9)["2"]
    saved = tmp_path / "pruned" / "pruned.safetensors"
    assert command("export", saved, "--to", "numpy", "--model", "toys:mlp", "--data", "toys:images") == 0
    written = np.load(tmp_path / "pruned.npz")
    assert np.array_equal(written["1.weight"] != 0, mask.numpy())


def test_a_logger_is_called_after_every_round(install: Install, command: Command, tmp_path: Path) -> None:
    install("logger")
    (tmp_path / "space.toml").write_text(searches.SPACE)
    toml = tmp_path / "space.toml"
    flags = ["--space", toml, "--budget", 2, "--logger", "jsonl", "--max-concurrent", 1, "--quiet", "--force"]
    here = os.environ.get("PYTHONPATH", "")
    with pytest.MonkeyPatch.context() as patch:  # workers import the toys
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(Path(__file__).parent), str(ROOT), here])))
        assert command("search", *flags, "--run-dir", tmp_path / "run") == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    points = pd.read_csv(tmp_path / "run" / "points.csv").rename(columns={"round": "rounds"})
    columns = ["trial", "rounds", "compression", "factor", "val_error", "val_loss"]
    logged = pd.DataFrame(lines).sort_values(columns[:2], ignore_index=True)
    pd.testing.assert_frame_equal(logged[columns], points[columns])


def test_a_model_and_a_data_set_are_trained_and_pruned(install: Install, command: Command, tmp_path: Path) -> None:
    install("built-in model")
    install("built-in data set")
    names, dense = ["--model", "linear", "--data", "stripes"], tmp_path / "linear.safetensors"
    assert command("train", *names, "--epochs", 3, "--lr", 0.01, "--out", dense) == 0
    assert command("prune", *names, "--checkpoint", dense, "-l", 2, "-p", 0.5, "--out", tmp_path / "pruned") == 0
    summary = json.loads((tmp_path / "pruned" / "summary.json").read_text())
    assert summary["layers"] == {"2": {"total": 7840, "kept": 3920}}
    assert summary["test_error"] < 10  # the two kinds are easy to separate


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("optimizer", TaskSettings(optimizer="recipe_optimizer:make_optimizer")),
        ("training loop", TaskSettings(fit="recipe_training_loop:train")),
    ],
)
def test_training_in_another_way(install: Install, recipe: str, settings: TaskSettings) -> None:
    install(recipe)
    objective = make_objective(settings)
    data, model = images(), Conv()
    before = data.validation.evaluate(model)
    found = {label: (weight.abs() > 0.03).float() for label, weight in masks.prunable(model).items()}
    masks.apply(model, found)
    train, pairs = replace(data.train, objective=objective), masks.pairs(model, found)
    fit(model, train, Recipe(60, 0.02, batch_size=40), torch.Generator(), masks=pairs)
    assert data.validation.evaluate(model).metric < before.metric
    assert masks.find_damaged(model, found) is None


def test_a_loop_of_ones_own(install: Install, command: Command, tmp_path: Path) -> None:
    name = "model that is pruned in a loop of your own"
    install(name)
    module = importlib.import_module(f"recipe_{name.replace(' ', '_')}")
    (tmp_path / "a.conf").write_text("2\n0.75\nmag\n")
    split, out = images().train, tmp_path / "own.safetensors"
    module.train_pruned(module.make_model(), list(split.batches(40)), tmp_path / "a.conf", out)
    saved = checkpoint.read(out)
    assert int((saved.masks["2"] == 0).sum()) == 768
    assert command("test", out, "--model", saved.model, "--data", "toys:images") == 0


def test_a_tuner_of_ones_own(tmp_path: Path) -> None:
    """As printed, in a process of its own, in whose folder the space `lenet5` is one of toys."""
    (tmp_path / "search_spaces").mkdir()
    space = searches.SPACE.replace("acc_tradeoff = 5", "acc_tradeoff = 90")
    space = space.replace("[space]", f"weights = '{tmp_path / 'mlp.pth'}'\n[space]", 1)
    (tmp_path / "search_spaces" / "lenet5.toml").write_text(space)
    model = mlp()
    fit(model, images().train, Recipe(steps=60, lr=0.05, batch_size=60), torch.Generator().manual_seed(0))
    torch.save(model.state_dict(), tmp_path / "mlp.pth")
    (tmp_path / "own.py").write_text(RECIPES["tuner of your own"])
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": path, "HOME": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "own.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    summary = searches.summary_of(tmp_path / "runs" / "own")
    assert summary["trials"]["completed"] + summary["trials"]["stopped"] == 3
    assert summary["trials"]["failed"] == 0
    assert len(summary["front"]) > 0
    assert "Pruned(compression=" in ended.stdout
