from pathlib import Path
from typing import Any

import pytest
import torch
from toys import fault, mlp

from tune_prune.common.import_path import NO_CODE
from tune_prune.pruning.checkpoint import load_dense_model

STATE = {key: torch.full_like(value, 0.25) for key, value in mlp().state_dict().items()}

WRAPPED: dict[str, Any] = {
    "plain": STATE,
    "state_dict": {"state_dict": STATE, "epoch": 7},
    "model": {"model": STATE, "optimizer": {"lr": 0.1}},
    "nested": {"checkpoint": None, "model": {"state_dict": STATE}},
    "data parallel": {f"module.{key}": value for key, value in STATE.items()},
    "compiled": {"state_dict": {f"module._orig_mod.{key}": value for key, value in STATE.items()}},
}


@pytest.mark.parametrize("suffix", ["pth", "pt", "ckpt"])
@pytest.mark.parametrize("kind", WRAPPED)
def test_state_dicts_are_read(tmp_path: Path, kind: str, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"dense.{suffix}"
    torch.save(WRAPPED[kind], path)
    found = load_dense_model("toys:mlp", str(path), "a.toml: task.").state_dict()
    assert all(torch.equal(found[key], value) for key, value in STATE.items())


class Harmful:
    def __reduce__(self) -> Any:
        return (exec, ("raise AssertionError('unpickled')",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"state_dict": STATE, "more": Harmful()}, "holds more than tensors; save it as torch.save(model.state_dict()"),
        (mlp(), "holds more than tensors"),
        ({"weights": STATE}, "holds no state dict, neither as a whole nor under state_dict, "),
        ([1, 2], "holds no state dict"),
        ({}, "holds no state dict"),
        ({**STATE, "9.weight": torch.zeros(1)}, "does not fit the model; differing: 9.weight"),
        ({**STATE, "1.bias": torch.full((16,), torch.nan)}, "NaN or infinity in 1.bias"),
    ],
)
def test_what_else_is_in_a_file(tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "dense.pth"
    torch.save(content, path)
    assert fault(lambda: load_dense_model("toys:mlp", str(path), "a.toml: task.")).startswith(
        f"a.toml: task.weights: {path}: {said}"
    )


@pytest.mark.parametrize("content", [b"", b"not a file of torch's", b"PK\x03\x04 torn"])
def test_files_that_are_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dense.pth"
    assert (
        fault(lambda: load_dense_model("toys:mlp", str(path), "a.toml: task."))
        == f"a.toml: task.weights: {path}: no such file of weights"
    )
    path.write_bytes(content)
    assert fault(lambda: load_dense_model("toys:mlp", str(path), "a.toml: task.")).startswith(
        f"a.toml: task.weights: {path}: "
    )


def test_no_code_allows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import squeezenet1_1

    monkeypatch.setenv(NO_CODE, "1")
    path = tmp_path / "dense.pth"
    saved = squeezenet1_1(num_classes=2).state_dict()
    torch.save(saved, path)
    found = load_dense_model("torchvision:squeezenet1_1(num_classes=2)", str(path), "a.toml: task.").state_dict()
    assert all(torch.equal(found[key], value) for key, value in saved.items())
