import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import fault, images, mlp

from tune_prune.tasks import in_memory
from tune_prune.tasks.fingerprints import check_unchanged, fingerprint_task, hash_code, hash_function, hash_tensors
from tune_prune.tasks.models import build
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.splits import Split

MODULE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.layer = nn.Linear(64, width)

    def forward(self, inputs):
        return self.layer(inputs.flatten(1))

def chain():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], nn.Module]]:
    """Builds a model of the module `fingerprinted` with this text, as a new process would."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two texts of one second may have one cached form

    def load(text: str, name: str) -> nn.Module:
        (tmp_path / "fingerprinted.py").write_text(text)
        sys.modules.pop("fingerprinted", None)
        return build(name)

    yield load
    sys.modules.pop("fingerprinted", None)


def test_tensors_are_hashed_with_names_types_shapes_and_every_bit() -> None:
    tensors = {"a": torch.zeros(3), "b": torch.ones(2), "scalar": torch.tensor(2)}
    assert hash_tensors(tensors) == hash_tensors({key: value.clone() for key, value in tensors.items()})
    changed: list[dict[str, Tensor]] = [
        tensors | {"b": torch.tensor([1.0, 1.0000001])},
        tensors | {"a": torch.zeros(3, 1)},
        tensors | {"a": torch.zeros(3, dtype=torch.int32)},
        tensors | {"scalar": torch.tensor(3)},
        {"a": torch.zeros(3), "c": torch.ones(2), "scalar": torch.tensor(2)},
    ]
    assert len({hash_tensors(one) for one in [tensors, *changed]}) == 6


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64, torch.bfloat16, torch.float16, torch.float64])
def test_every_type_and_every_layout(dtype: torch.dtype) -> None:
    tensor = torch.arange(48).reshape(2, 2, 3, 4).to(dtype)
    assert hash_tensors({"": tensor}) == hash_tensors({"": tensor.contiguous(memory_format=torch.channels_last)})
    assert hash_tensors({"": tensor[1]}) == hash_tensors({"": tensor[1].clone()}) != hash_tensors({"": tensor[0]})
    assert hash_tensors({"": tensor[:0]}) != hash_tensors({"": tensor})


@pytest.mark.parametrize("name", ["fingerprinted:Net", "fingerprinted:chain"])
def test_the_text_of_a_models_module_counts(load: Callable[[str, str], nn.Module], name: str) -> None:
    first, again = (hash_code(load(MODULE, name), name) for _ in range(2))
    changed = hash_code(load(MODULE.replace("flatten(1)", "flatten(1).tanh()"), name), name)
    assert first == again != changed


def test_a_class_counts_without_its_name(load: Callable[[str, str], nn.Module]) -> None:
    first = hash_code(nn.Sequential(load(MODULE, "fingerprinted:Net")))
    assert hash_code(nn.Sequential(load(MODULE + "# more", "fingerprinted:Net"))) != first


def test_the_structure_counts() -> None:
    chains = [nn.Sequential(nn.Linear(4, 4), part, nn.Linear(4, 4)) for part in (nn.ReLU(), nn.Tanh(), nn.Dropout(0.1))]
    assert len({hash_code(chain) for chain in chains}) == 3


def test_addresses_in_memory_do_not_count() -> None:
    class Applied(nn.Module):
        def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.function = function

        def extra_repr(self) -> str:
            return repr(self.function)

    one, other = (Applied(lambda inputs: inputs) for _ in range(2))
    assert repr(one) != repr(other)
    assert hash_code(one) == hash_code(other)


def test_an_object_from_python() -> None:
    scope: dict[str, Any] = {"__name__": "notebook"}
    exec("from torch import nn\nclass Net(nn.Linear):\n    pass", scope)  # as a notebook does; it has no file
    model = scope["Net"](64, 4)
    name = in_memory.keep_model(model)
    assert hash_code(build(name), name) == hash_code(build(name), name)
    one, other = in_memory.keep_model(mlp), in_memory.keep_model(lambda: mlp())
    assert hash_code(build(one), one) != hash_code(build(other), other)  # defined in two files


def test_the_text_of_a_functions_module_counts(load: Callable[[str, str], nn.Module]) -> None:
    text = MODULE + "def loss(model, batch, scale=1):\n    return scale * model(batch).sum()\n"
    found = []
    for changed, address in ((text, ""), (text, ""), (text + "# more", ""), (text, "(scale=2)")):
        model = load(changed, "fingerprinted:chain")
        settings = TaskSettings(loss=f"fingerprinted:loss{address}")
        found.append(fingerprint_task("toys:mlp", model, None, {}, settings)["loss code"])
    first, again, *others = found
    assert first == again
    assert len({first, *others}) == 3
    assert fingerprint_task("toys:mlp", mlp(), None, {}).keys() == {"model code"}


def test_a_function_from_python_counts_by_its_source() -> None:
    one, same, other = (in_memory.keep_function(function) for function in (mlp, mlp, lambda: mlp()))
    assert hash_function(one) == hash_function(same) != hash_function(other)  # defined in two files


def test_every_part_of_a_task_has_a_name() -> None:
    data, model = images(), mlp()
    splits = {"training": data.train, "validation": data.validation, "test": data.load_test()}
    before = fingerprint_task("toys:mlp", model, model.state_dict(), splits)
    assert before == fingerprint_task("toys:mlp", model, model.state_dict(), dict(splits))
    for part, split in splits.items():
        inputs, labels = split.inputs.clone(), split.labels.clone()
        inputs[-1, -1, -1, -1] += 1
        labels[0] = (labels[0] + 1) % 4
        other = splits | {part: Split(inputs, labels)}
        said = fault(
            lambda other=other: check_unchanged(  # type: ignore[misc]
                before, fingerprint_task("toys:mlp", model, model.state_dict(), other), "run", "begin anew"
            )
        )
        assert said == f"run: changed since it was begun: {part} inputs, {part} labels; begin anew"
    with torch.no_grad():
        model[1].bias[0] += 1
    said = fault(
        lambda: check_unchanged(
            before, fingerprint_task("toys:mlp", model, model.state_dict(), splits), "run", "begin anew"
        )
    )
    assert said == "run: changed since it was begun: weights; begin anew"


def test_a_part_that_is_new_or_gone_and_another_version() -> None:
    check_unchanged({"a": 1}, {"a": 1}, "run", "begin anew")
    assert "begun: a; begin" in fault(lambda: check_unchanged({}, {"a": 1}, "run", "begin anew"))
    assert "begun: a; begin" in fault(lambda: check_unchanged({"a": 1}, {}, "run", "begin anew"))
    assert "another version" in fault(lambda: check_unchanged("0f3a", {"a": 1}, "run", "begin anew"))
