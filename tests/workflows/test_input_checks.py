"""Faulty data and weights end every command that reads them in one line, before anything is measured or written."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from searches import SPACE, without_ray
from torch import nn
from toys import images, mlp

from tune_prune.pruning import checkpoint
from tune_prune.tasks import in_memory
from tune_prune.tasks.splits import Data, Split

HERE = "test_input_checks"
COMMANDS = {
    "search": "search --space toy.toml --budget 2 --run-dir out",
    "dry run": "search --space toy.toml --budget 2 --run-dir out --dry-run",
    "prune": "prune --model {model} --data {data} -l {layer} -p 0.5 --out out",
    "prune on": "prune --model {model} --data {data} -l {layer} -p 0.5 --checkpoint dense.safetensors --out out",
    "sensitivity": "sensitivity --model {model} --data {data} -p 0.5 --out out",
    "train": "train --model {model} --data {data} --epochs 1 --out out",
    "test": "test dense.safetensors --model {model} --data {data}",
    "export": "export dense.safetensors --to sparse --model {model} --data {data} --out out",
}
WITH_TEST = [name for name in COMMANDS if name not in ("sensitivity", "train")]
"""The commands that need test images at their end."""


def faulty(part: str, fault: str) -> Data:
    """The toys' images with one fault in one split."""
    data = images()
    splits = {"training": data.train, "validation": data.validation, "test": data.load_test()}
    inputs, labels = splits[part].inputs.float() / 256, splits[part].labels
    if fault == "nan":
        inputs[17, 0, 3, 4] = math.nan
    elif fault == "infinity":
        inputs[17, 0, 3, 4] = math.inf
    elif fault == "fractions":
        labels = labels + 0.9
    elif fault == "targets":
        labels = torch.rand(len(labels), generator=torch.Generator().manual_seed(0))
    elif fault == "shape":
        inputs = torch.zeros(len(labels), 1, 9, 9)
    elif fault == "class":
        labels = labels + 1
    splits[part] = Split(inputs, labels)
    return Data(splits["training"], splits["validation"], lambda: splits["test"])


def named(layer: str) -> nn.Module:
    """A model with a layer of this name."""
    model = nn.Module()
    model.add_module(layer, nn.Linear(64, 4))
    model.forward = lambda inputs: getattr(model, layer)(inputs.flatten(1))  # type: ignore[method-assign]
    return model


Run = Callable[..., str]


@pytest.fixture
def refused(
    command: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Runs a command of `COMMANDS` that must end in one line; returns the line."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, model: str = "toys:mlp", data: str = "toys:images", layer: str = "2", weights: str = "") -> str:
        task = f'[task]\nmodel = "{model}"\ndata = "{data}"\n{weights}\n[space]'
        space = task + SPACE.partition("[space]")[2].partition("[space.ratio]")[0]
        Path("toy.toml").write_text(space + '[space.ratio]\n"*" = {low = 0.1, high = 0.9}\n[goal]\nacc_tradeoff = 5\n')
        if not Path("dense.safetensors").exists():
            checkpoint.write(Path("dense.safetensors"), "toys:mlp", mlp(), {})
        before = sorted(tmp_path.iterdir())
        words = [word.format(model=model, data=data, layer=layer) for word in COMMANDS[name].split(" ")]
        assert command(*words) == 2
        assert sorted(tmp_path.iterdir()) == before
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    with without_ray():
        yield run


@pytest.mark.parametrize("fault", ["nan", "infinity"])
@pytest.mark.parametrize("part", ["training", "validation"])
@pytest.mark.parametrize("name", COMMANDS)
def test_an_input_that_is_no_number_is_named(refused: Run, name: str, part: str, fault: str) -> None:
    said = refused(name, data=f"{HERE}:faulty(part='{part}',fault='{fault}')")
    assert f"{part} input 17 holds NaN or infinity" in said


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(("fault", "said"), [("fractions", ".9; labels are"), ("targets", "; labels are the numbers")])
def test_labels_with_fractions_are_not_cut_off(refused: Run, name: str, fault: str, said: str) -> None:
    assert said in refused(name, data=f"{HERE}:faulty(part='validation',fault='{fault}')")


FAULTS = {
    "nan": "test input 17 holds NaN or infinity",
    "fractions": "test label 0 is ",
    "shape": "[2, 1, 9, 9]",
    "class": "has test labels from 1 to 4",
}


@pytest.mark.parametrize("name", WITH_TEST)
@pytest.mark.parametrize(("fault", "said"), FAULTS.items())
def test_a_faulty_test_split_is_found_at_the_start(refused: Run, name: str, fault: str, said: str) -> None:
    assert said in refused(name, data=f"{HERE}:faulty(part='test',fault='{fault}')")


@pytest.mark.parametrize("name", ["search", "dry run", "prune"])
@pytest.mark.parametrize("layer", ["two words", "one,two", "#1"])
def test_a_name_of_a_layer_that_no_conf_can_hold(refused: Run, name: str, layer: str) -> None:
    address = f"{HERE}:named(layer='{layer}')"
    said = refused(name, model=address, layer=layer)
    assert f"bad layer label {layer!r}" in said


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["search", "dry run", "prune on", "test", "export"])
def test_weights_that_are_no_numbers(refused: Run, name: str, value: float) -> None:
    model = mlp()
    with torch.no_grad():
        model[3].weight[1, 2] = value
    checkpoint.write(Path("dense.safetensors"), "toys:mlp", model, {})
    said = refused(name, weights='weights = "dense.safetensors"')
    assert "dense.safetensors: NaN or infinity in 3.weight; damaged, or trained until it diverged" in said


def test_a_model_near_chance_is_refused(
    refused: Run, command: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    said = "model 'toys:mlp' is near chance: 7"
    for name in ("search", "dry run", "prune", "sensitivity"):
        line = refused(name)
        assert said in line
        assert "train it first and name its weights, or add --force" in line
    assert "is near chance" in refused("search", weights='weights = "dense.safetensors"')
    for name in ("dry run", "prune", "sensitivity"):
        words = COMMANDS[name].format(model="toys:mlp", data="toys:images", layer="2").split(" ")
        assert command(*words, "--force") == 0
    command("train", "--model", "toys:mlp", "--data", "toys:images", "--epochs", 30, "--out", "dense.safetensors")
    words = COMMANDS["prune on"].format(model="toys:mlp", data="toys:images", layer="2").split(" ")
    assert command(*words) == 0


@pytest.mark.parametrize("name", ["test", "export"])
def test_the_data_of_a_model_of_ones_own_is_asked_for_or_named_by_its_file(
    refused: Run, command: Callable[..., object], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    COMMANDS["no data"] = COMMANDS[name].replace(" --data {data}", "")
    assert "dense.safetensors: does not say what data its model is for; name it: --data mnist" in refused("no data")
    command("train", "--model", "toys:mlp", "--data", "toys:images", "--epochs", 1, "--out", "dense.safetensors")
    capsys.readouterr()
    said = "dense.safetensors: its data is code, 'toys:images'; if you trust it, add --data toys:images"
    assert said in refused("no data")  # images of another shape, MNIST's, are not taken for them
    checkpoint.write(Path("dense.safetensors"), "toys:mlp", mlp(), {}, {"data": in_memory.keep_data(images())})
    assert "does not say what data" in refused("no data")
    checkpoint.write(Path("dense.safetensors"), "toys:mlp", mlp(), {}, {"data": "mnist"})
    assert "fails on training inputs of 'mnist'" in refused("no data")


def for_mnist() -> nn.Module:
    """A model of one's own that takes MNIST's images, whatever it was trained on."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


@pytest.mark.parametrize("command_line", ["test", "export --to sparse"])
def test_a_model_that_takes_the_images_of_mnist_is_not_measured_on_them(refused: Run, command_line: str) -> None:
    checkpoint.write(Path("dense.safetensors"), f"{HERE}:for_mnist", for_mnist(), {})
    name, _, flags = command_line.partition(" ")
    COMMANDS["no data"] = f"{name} dense.safetensors {flags} --model {{model}}".replace("  ", " ")
    assert "does not say what data its model is for; name it" in refused("no data", model=f"{HERE}:for_mnist")


def diverged() -> nn.Module:
    """A model whose factory gives it no numbers."""
    model = mlp()
    nn.init.constant_(model[1].bias, math.nan)
    return model


@pytest.mark.parametrize("name", ["search", "dry run", "prune", "sensitivity"])
def test_weights_of_a_factory_that_are_no_numbers(refused: Run, name: str) -> None:
    assert f"model: '{HERE}:diverged': NaN or infinity in 1.bias" in refused(name, model=f"{HERE}:diverged")
