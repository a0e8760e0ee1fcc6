"""Masks for a training loop of one's own, from the conf to the commands that read the file."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toys import Conv, Recurrent, Tied, fault, images, mlp, seeded

import tune_prune
from tune_prune.pruning import checkpoint
from tune_prune.pruning import masks as layer_masks


def half(model: nn.Module) -> dict[str, Tensor]:
    """Masks that remove about half of every layer."""
    generator = seeded(0)
    weights = layer_masks.prunable(model)
    return {label: (torch.rand(weight.shape, generator=generator) < 0.5).float() for label, weight in weights.items()}


def trained(model: nn.Module, masks: dict[str, Tensor]) -> None:
    """The loop of a user."""
    split = images().train
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.5)
    tune_prune.apply_masks(model, masks)
    for inputs, labels in zip(split.inputs.split(60), split.labels.split(60), strict=True):
        optimizer.zero_grad()
        F.cross_entropy(model(split.as_float(inputs)), labels).backward()
        optimizer.step()
        tune_prune.apply_masks(model, masks)
    model.eval()


@pytest.mark.parametrize("make", [mlp, Conv, Tied, Recurrent])
def test_what_a_loop_of_ones_own_saves_is_read_back(make: type[nn.Module], tmp_path: Path) -> None:
    model, path = make(), tmp_path / "own.safetensors"
    masks = half(model)
    trained(model, masks)
    name = "toys:mlp" if isinstance(model, nn.Sequential) else None  # a class without arguments is its own address
    tune_prune.save(model, masks, path, name=name, data="toys:images")
    saved = checkpoint.read(path)
    again, kept = checkpoint.restore(saved, str(path))
    assert saved.notes == {"data": "toys:images"}
    for (key, one), other in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), key
    assert all(torch.equal(kept[label], mask) for label, mask in masks.items())
    found = tune_prune.masks(model)
    assert found.keys() == kept.keys()
    assert all(torch.equal(found[label], mask) for label, mask in kept.items())


def test_masks_come_from_a_conf(tmp_path: Path) -> None:
    (tmp_path / "half.conf").write_text("2,4\n0.5,0.25\nmag,mag\n")
    model = tune_prune.prune(mlp(), tmp_path / "half.conf")
    masks = tune_prune.masks(model)
    assert {label: int((mask == 0).sum()) for label, mask in masks.items()} == {"2": 512, "4": 16}
    trained(model, masks)
    assert all(torch.equal(one, tune_prune.masks(model)[label]) for label, one in masks.items())


def test_layers_that_are_left_out_are_not_pruned(tmp_path: Path) -> None:
    model = mlp()
    masks = {"4": half(model)["4"] != 0}
    tune_prune.apply_masks(model, masks)
    tune_prune.save(model, masks, tmp_path / "own.safetensors", name="toys:mlp")
    _, kept = checkpoint.restore(checkpoint.read(tmp_path / "own.safetensors"), "own")
    assert bool((kept["2"] == 1).all())
    assert torch.equal(kept["4"] != 0, masks["4"])


def test_the_commands_read_it(
    command: Callable[..., object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, path = Conv(), tmp_path / "own.safetensors"
    masks = half(model)
    trained(model, masks)
    tune_prune.save(model, masks, path)
    flags = ["--model", "toys:Conv", "--data", "toys:images"]
    assert command("test", path, *flags, "--json") == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["compression"] == layer_masks.compression(masks)
    assert command("export", path, *flags, "--to", "safetensors", "--out", tmp_path / "out") == 0


class Sized(nn.Module):
    """Needs an argument."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.head = nn.Linear(size, 4)


def test_mistakes_write_nothing(tmp_path: Path) -> None:
    model, path = Conv(), tmp_path / "own.safetensors"
    masks = half(model)
    assert fault(lambda: tune_prune.save(model, masks, path)).endswith(
        "layer features.0 has weights that its mask removes and that are not zero; call tune_prune.apply_masks after "
        "every step of the optimizer"
    )
    tune_prune.apply_masks(model, masks)
    assert "does not fit the model; made for 'toys:mlp'" in fault(
        lambda: tune_prune.save(model, masks, path, name="toys:mlp")
    )
    said = fault(lambda: tune_prune.save(Sized(3), {}, path))
    assert "Sized.__init__() missing 1 required positional argument: 'size'" in said
    assert said.endswith("of a function without arguments that makes the model")
    assert "give name='package.module:function'" in fault(lambda: tune_prune.save(mlp(), {}, path))  # an nn.Sequential

    class Local(nn.Module):
        pass

    assert "cannot be imported in another process" in fault(lambda: tune_prune.save(Local(), {}, path))
    assert "'9' is no layer that can be pruned; layers: 2, 4" in fault(
        lambda: tune_prune.apply_masks(mlp(), {"9": torch.ones(1)})
    )
    assert "the mask of layer 2 is [3], its weight [16, 64]" in fault(
        lambda: tune_prune.apply_masks(mlp(), {"2": torch.ones(3)})
    )
    with torch.no_grad():
        model.head.bias[0] = torch.nan
    assert "NaN or infinity in head.bias" in fault(lambda: tune_prune.save(model, masks, path))
    assert not path.exists()
