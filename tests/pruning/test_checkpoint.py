import json
import math
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from toys import Conv, Tied, fault, mlp

from tune_prune.pruning import checkpoint, masks
from tune_prune.tasks.models import to_device

ADDRESSES = {"Sequential": "toys:mlp", "Conv": "toys:Conv", "Tied": "toys:Tied"}


def pruned(model: nn.Module, ratio: float = 0.6) -> dict[str, Tensor]:
    """Masks, applied."""
    found = {
        label: masks.shrink(mask, torch.rand(mask.shape), ratio) for label, mask in masks.dense_masks(model).items()
    }
    masks.apply(model, found)
    return found


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.safetensors"


def test_round_trip_to_the_bit(toy_model: nn.Module, path: Path) -> None:
    next(iter(toy_model.parameters())).data.view(-1)[0] = -0.0
    found = pruned(toy_model)
    notes = {"seed": 3, "ratios": {"8": 0.1}, "pruner": "mag", "größe": [1, None, True]}
    checkpoint.write(path, ADDRESSES[type(toy_model).__name__], toy_model, found, notes)
    read = checkpoint.read(path)
    assert read.notes == notes
    model, full = checkpoint.restore(read, str(path))
    assert type(model) is type(toy_model)
    expected = toy_model.state_dict()
    assert {key: bits(value) for key, value in model.state_dict().items()} == {k: bits(v) for k, v in expected.items()}
    assert list(full) == list(found)
    for label, mask in found.items():
        assert torch.equal(full[label], mask)
        assert full[label].dtype == mask.dtype
    images = torch.rand(5, 1, 8, 8)
    assert torch.equal(model.eval()(images), toy_model.eval()(images))


def test_a_dense_model_has_no_masks(path: Path) -> None:
    checkpoint.write(path, "toys:mlp", mlp(), {})
    read = checkpoint.read(path)
    assert (read.model, read.masks, read.notes) == ("toys:mlp", {}, {})
    _, full = checkpoint.restore(read, "a")
    assert masks.compression(full) == 0
    assert list(full) == ["2", "4"]


def test_channels_last_is_stored_as_any_other(path: Path) -> None:
    model = Conv()
    checkpoint.write(path, "toys:Conv", model, {})
    before = path.read_bytes()
    checkpoint.write(path, "toys:Conv", to_device(model, torch.device("cpu")), {})
    assert path.read_bytes() == before


def test_tied_weights_stay_tied(path: Path) -> None:
    model = Tied()
    checkpoint.write(path, "toys:Tied", model, pruned(model))
    restored, _ = checkpoint.restore(checkpoint.read(path), "a")
    assert restored.first.weight is restored.again.weight


def test_masks_that_say_nothing_of_a_layer(path: Path) -> None:
    model = mlp()
    found = pruned(model)
    del found["4"]
    model[3].weight.data.fill_(1.0)
    checkpoint.write(path, "toys:mlp", model, found)
    _, full = checkpoint.restore(checkpoint.read(path), "a")
    assert (full["4"] == 1).all()
    assert torch.equal(full["2"], found["2"])


# Files that are none


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.1, 0.5, 0.999])
def test_truncated(path: Path, share: float) -> None:
    checkpoint.write(path, "toys:mlp", mlp(), {})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert fault(lambda: checkpoint.read(path)).startswith(f"{path}: not a readable safetensors checkpoint")


@pytest.mark.parametrize("content", [b"PK\x03\x04 zip", b"\xff" * 100, b"\x02" + b"\0" * 7 + b"{}", b"hello\n" * 9])
def test_damaged_or_foreign(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert fault(lambda: checkpoint.read(path)).startswith(f"{path}: ")


class Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit('a pickle was executed')",)


@pytest.mark.parametrize("dump", [lambda o, p: torch.save(o, p), lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_a_pickle_is_not_executed(path: Path, dump) -> None:
    dump({"weights": Trap()}, path)
    assert fault(lambda: checkpoint.read(path)).startswith(f"{path}: not a readable safetensors checkpoint")


@pytest.mark.parametrize("text", [None, "null", "[]", '{"notes": {}}', '{"model": 3}'])
def test_safetensors_of_someone_else(path: Path, text: str | None) -> None:
    save_file(mlp().state_dict(), path, None if text is None else {"tune_prune": text})
    assert fault(lambda: checkpoint.read(path)).startswith(f"{path}: a safetensors file, but not one that tune_prune")


def test_a_header_that_is_no_json(path: Path) -> None:
    save_file(mlp().state_dict(), path, {"tune_prune": "{"})
    assert fault(lambda: checkpoint.read(path)).startswith(f"{path}: not a readable")


def test_no_such_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        assert fault(lambda path=path: checkpoint.read(path)).startswith(f"{path}: no such checkpoint")


# Files that do not fit


def test_masks_that_contradict_the_weights(path: Path) -> None:
    model = mlp()
    found = pruned(model)
    model[3].weight.data[found["4"] == 0] = 1e-30
    checkpoint.write(path, "toys:mlp", model, found)
    said = fault(lambda: checkpoint.restore(checkpoint.read(path), str(path)))
    assert said == f"{path}: layer 4 has weights that its mask removes; the file is damaged"


@pytest.mark.parametrize("mask", [{"3": torch.ones(16, 64)}, {"4": torch.ones(3, 16)}, {"4": torch.ones(64)}])
def test_masks_that_do_not_fit(path: Path, mask: dict[str, Tensor]) -> None:
    checkpoint.write(path, "toys:mlp", mlp(), mask)
    said = fault(lambda: checkpoint.restore(checkpoint.read(path), str(path)))
    assert said == f"{path}: mask of layer {next(iter(mask))} does not fit model toys:mlp"


def test_another_architecture(path: Path) -> None:
    checkpoint.write(path, "lenet5", mlp(), {})
    read = checkpoint.read(path)
    said = fault(lambda: checkpoint.restore(read, str(path)))
    assert said.startswith(f"{path}: does not fit the model; made for 'lenet5'; differing: 0.weight")
    wider = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 5))
    before = wider[1].weight.clone()
    said = fault(lambda: checkpoint.load_weights(wider, read, str(path)))
    assert said.endswith("differing: 3.weight, 3.bias")
    assert torch.equal(wider[1].weight, before)


def test_a_buffer_may_hold_infinity_and_no_nan(path: Path) -> None:
    model = mlp()
    model.register_buffer("mask", torch.full((2, 2), -math.inf).triu(1))  # as attention has it
    checkpoint.write(path, "toys:mlp", model, {})
    checkpoint.load_weights(model, checkpoint.read(path), str(path))
    assert isinstance(model.mask, Tensor)
    model.mask[0, 0] = math.nan
    checkpoint.write(path, "toys:mlp", model, {})
    said = fault(lambda: checkpoint.load_weights(model, checkpoint.read(path), str(path)))
    assert said.startswith(f"{path}: NaN or infinity in mask; damaged")


def test_the_file_is_what_the_docstring_says(path: Path) -> None:
    from safetensors import safe_open

    model = mlp()
    checkpoint.write(path, "toys:mlp", model, pruned(model), {"a": 1})
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == {*model.state_dict(), "mask/2", "mask/4"}
        assert file.get_tensor("mask/2").dtype == torch.bool
        assert json.loads(file.metadata()["tune_prune"]) == {"model": "toys:mlp", "notes": {"a": 1}}
