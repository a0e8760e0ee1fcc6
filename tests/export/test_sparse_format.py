import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn
from toys import Conv, Tied, fault, mlp

import tune_prune
from tune_prune.export import sparse_format
from tune_prune.export.sparse_format import ENCODINGS, dumps, read
from tune_prune.pruning import checkpoint, iterative, masks
from tune_prune.pruning.plan import Plan
from tune_prune.tasks.models import build
from tune_prune.tasks.splits import Data


def pruned(model: nn.Module, ratio: float) -> dict[str, torch.Tensor]:
    found = masks.dense_masks(model)
    for label, weight in masks.prunable(model).items():
        found[label] = masks.shrink(found[label], weight.detach().abs(), ratio)
    masks.apply(model, found)
    return found


@given(st.lists(st.booleans(), max_size=2000), st.sampled_from([1, 300]))
def test_both_encodings_hold_every_mask(drawn: list[bool], stretch: int) -> None:
    kept = np.zeros(len(drawn) * stretch, dtype=bool)
    kept[::stretch] = drawn  # long gaps, too
    encoded = {"bits": np.packbits(kept), "gaps": sparse_format._encode_gaps(np.flatnonzero(kept))}
    assert set(encoded) == set(ENCODINGS)
    for encoding, index in encoded.items():
        assert np.array_equal(sparse_format._decode(encoding, index, len(kept)), kept)
    encoding, index = sparse_format._encode(np.flatnonzero(kept), len(kept))
    assert len(index) == min(len(one) for one in encoded.values())


def test_gaps_by_hand() -> None:
    assert sparse_format._encode_gaps(np.array([0, 1, 4, 260, 999])).tolist() == [0, 0, 2, 255, 0, 255, 255, 228]


@pytest.mark.parametrize(("address", "model"), [("toys:mlp", mlp), ("toys:Conv", Conv), ("toys:Tied", Tied)])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.95])
def test_back_bit_for_bit(address: str, model: type[nn.Module], ratio: float, tmp_path: Path) -> None:
    made = model()
    kept_masks = pruned(made, ratio)
    (tmp_path / "a.safetensors").write_bytes(dumps(address, made, kept_masks))
    again, mask = checkpoint.restore(read(tmp_path / "a.safetensors"), "a")
    assert made.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in made.state_dict().items())
    assert all(torch.equal(kept, mask[label]) for label, kept in kept_masks.items())


def test_fewer_bytes_the_more_is_removed() -> None:
    model = build("lenet5")
    sizes = [len(dumps("lenet5", model, pruned(model, ratio))) for ratio in (0.0, 0.5, 0.9, 0.98)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.035 * sizes[0]  # one weight of fifty, and a byte for its position


@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b[:-50], lambda b: b.replace(b".kept", b".lost")])
def test_damaged_files(damage, tmp_path: Path) -> None:
    model = mlp()
    path = tmp_path / "a.safetensors"
    path.write_bytes(damage(dumps("toys:mlp", model, pruned(model, 0.9))))
    assert fault(lambda: read(path)).startswith(f"{path}: ")


def test_a_checkpoint_is_no_sparse_file(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "a.safetensors", "toys:mlp", mlp(), {})
    assert "not a sparse file" in fault(lambda: read(tmp_path / "a.safetensors"))


@pytest.mark.parametrize(
    "shape", [[10**5, 10**4], [10**6, 10**6], [2**32, 2**32], [2**40, 2**40], [-4, -4], "16", [[4]], [4.0], None]
)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_shapes_that_a_file_cannot_hold(shape: object, encoding: str, tmp_path: Path) -> None:
    header = {"model": "lenet5", "shapes": {"0.weight": shape}, "layers": {"0.weight": "1"}}
    tensors = {"0.weight.kept": torch.zeros(0), f"0.weight.{encoding}": torch.zeros(0, dtype=torch.uint8)}
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(tensors, {"tune_prune": json.dumps(header)}))
    assert fault(lambda: read(path)).startswith(f"{path}: ")
    assert fault(lambda: tune_prune.load(path)).startswith(f"{path}: ")


def test_a_layer_without_weights_is_no_claim(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 100_000, bias=False))
    path = tmp_path / "a.safetensors"
    path.write_bytes(dumps("toys:mlp", model, pruned(model, 1 - 1e-6)))  # six of 6,400,000 are left
    assert int(read(path).masks["2"].sum()) == 6


@pytest.mark.parametrize("header", [{"model": 3}, {"layers": []}, {"layers": {"1.weight": []}}, {"tied": 3}])
def test_headers_of_other_types(header: dict[str, object], tmp_path: Path) -> None:
    path, model = tmp_path / "a.safetensors", mlp()
    path.write_bytes(dumps("toys:mlp", model, pruned(model, 0.9)))
    right, tensors = checkpoint.read_tensors(path, "tune_prune")
    path.write_bytes(save(tensors, {"tune_prune": json.dumps(right | header)}))
    assert fault(lambda: tune_prune.load(path)).startswith(f"{path}: ")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_bit_for_bit(dtype: torch.dtype, toy_data: Data, tmp_path: Path) -> None:
    name = f"toys:Halved(dtype={str(dtype).removeprefix('torch.')!r})"
    state = iterative.initial_state(build(name))
    plan = Plan({"net.1": 0.9}, {"net.1": "taylor1"}, rounds=1, final_steps=3, lr=0.01, weight_decay=0.01)
    list(iterative.prune(state, plan, toy_data.train, toy_data.validation, 0))
    weight = state.model.net[1].weight
    assert torch.equal(weight != 0, state.masks["net.1"] != 0)
    assert int((weight == 0).sum()) == round(0.9 * 1024)
    checkpoint.write(tmp_path / "a.safetensors", name, state.model, state.masks)
    (tmp_path / "b.safetensors").write_bytes(dumps(name, state.model, state.masks))
    for path in (tmp_path / "a.safetensors", tmp_path / "b.safetensors"):
        loaded = tune_prune.load(path).state_dict()
        for key, value in state.model.state_dict().items():
            assert loaded[key].dtype == dtype
            assert torch.equal(loaded[key].view(torch.int16), value.view(torch.int16))
