from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tasks_of_users import Regressor
from torch import nn
from toys import mlp, seeded

from tune_prune.pruning import gates, statistics, statistics_cache
from tune_prune.pruning.criteria import score_layers
from tune_prune.pruning.masks import prunable
from tune_prune.pruning.statistics import Context
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.splits import Data, Split


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def context(model: nn.Module, data: Data, images: int = 50) -> Context:
    return Context(model, Split(data.train.inputs[:images], data.train.labels[:images]), seeded(0))


def files() -> list[str]:
    return sorted(path.name for path in statistics_cache.cache_dir().glob("*"))


def test_measured_once_and_the_same_from_disk(toy_data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    model, names = mlp(), ["gradient", "hessian", "loss_change"]
    first = statistics_cache.load_or_measure(names, context(model, toy_data))
    assert list(first) == ["hessian", "loss_change"]  # the gradient is cheap, and measured every time
    assert [name.partition("-")[0] for name in files()] == ["hessian", "loss_change", "loss_change"]  # two layers
    monkeypatch.setattr(statistics.Registry, "__getitem__", None)  # whatever is measured now fails
    again = statistics_cache.load_or_measure(names, context(model, toy_data))
    for name, values in first.items():
        assert all(torch.equal(values[label], again[name][label]) for label in values)


def test_a_statistic_does_not_depend_on_others(toy_data: Data) -> None:
    model = mlp()
    both = statistics_cache.load_or_measure(["hessian", "l1_gate"], context(model, toy_data))
    for path in statistics_cache.cache_dir().iterdir():
        path.unlink()
    single = statistics_cache.load_or_measure(["l1_gate"], context(model, toy_data))
    assert all(torch.equal(value, both["l1_gate"][label]) for label, value in single["l1_gate"].items())


def test_another_loss_is_another_file() -> None:
    names = ("mean_squared", "smooth_absolute")
    settings = [TaskSettings(loss=f"tasks_of_users:{name}", metric="tasks_of_users:rmse") for name in names]
    trains = [load_data("tasks_of_users:rows", settings=each).train for each in settings]
    torch.manual_seed(0)
    model = Regressor()
    found = [statistics_cache.measure_dense(["hessian"], model, train, 64)["hessian"] for train in trains]
    assert len(files()) == 2
    assert not torch.equal(found[0]["net.0"], found[1]["net.0"])


def test_another_content_is_another_file(toy_data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    model = mlp()
    statistics_cache.load_or_measure(["l1_gate"], context(model, toy_data))
    statistics_cache.load_or_measure(["l1_gate"], context(model, toy_data, images=51))
    with torch.no_grad():
        prunable(model)["2"][0, 0] += 1
    statistics_cache.load_or_measure(["l1_gate"], context(model, toy_data))
    monkeypatch.setattr(gates, "STEPS", 3)
    statistics_cache.load_or_measure(["l1_gate"], context(model, toy_data))
    statistics_cache.load_or_measure(["l2_gate"], context(model, toy_data))
    assert len(files()) == 5


def test_cached_statistics_are_not_measured(toy_data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    model = mlp()
    cached = {"hessian": {label: torch.rand_like(weight) for label, weight in prunable(model).items()}}
    made = context(model, toy_data)
    scores = score_layers({"2": "taylor2"}, Context(made.model, made.sample, made.generator, cached=cached))
    expected = (cached["hessian"]["2"] * prunable(model)["2"] ** 2 / 2).abs()
    assert torch.equal(scores["2"], expected.detach())


def test_a_layer_at_a_time(toy_data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    made = context(mlp(), toy_data)
    one = statistics_cache.load_or_measure(["loss_change", "hessian"], replace(made, layers=["4"]))
    assert list(one["loss_change"]) == ["4"]
    assert list(one["hessian"]) == ["2", "4"]
    before = files()
    both = statistics_cache.load_or_measure(["loss_change", "hessian"], made)
    assert len(files()) == len(before) + 1  # the other layer's
    assert torch.equal(both["loss_change"]["4"], one["loss_change"]["4"])


def test_every_expensive_statistic_is_one() -> None:
    assert set(statistics_cache.PER_LAYER) <= set(statistics_cache.EXPENSIVE) <= set(statistics.statistics)


def same(one: statistics.CachedStatistics, other: statistics.CachedStatistics) -> bool:
    """Whether two measurements are equal bit for bit."""
    return all(torch.equal(value, other[name][label]) for name in one for label, value in one[name].items())


def cut_off(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def emptied(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def without_a_hash(path: Path, other: Path) -> None:
    save_file(load_file(path), path)


def one_value_changed(path: Path, other: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])


def of_other_images(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("damage", [cut_off, emptied, without_a_hash, one_value_changed, of_other_images])
def test_a_damaged_file_is_named_and_measured_again(toy_data: Data, damage: Callable[[Path, Path], None]) -> None:
    model, lines = mlp(), list[str]()
    first = statistics_cache.load_or_measure(["hessian"], context(model, toy_data))
    (path,) = statistics_cache.cache_dir().iterdir()
    whole = path.read_bytes()
    statistics_cache.load_or_measure(["hessian"], context(model, toy_data, images=51))
    (other,) = set(statistics_cache.cache_dir().iterdir()) - {path}
    damage(path, other)
    again = statistics_cache.load_or_measure(["hessian"], replace(context(model, toy_data), say=lines.append))
    assert same(first, again)
    assert len(lines) == 2
    assert lines[0].startswith(f"{path}: damaged, ")
    assert lines[0].endswith("; removed, and measured again")
    assert path.read_bytes() == whole


def test_without_a_folder_for_the_files(toy_data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, lines, names = mlp(), list[str](), ["hessian", "loss_change"]
    first = statistics_cache.load_or_measure(names, context(model, toy_data))
    first_file = files()[0]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    again = statistics_cache.load_or_measure(names, replace(context(model, toy_data), say=lines.append))
    assert same(first, again)
    assert [line for line in lines if not line.startswith("measuring ")] == [
        f"statistics cannot be kept on disk ([Errno 20] Not a directory: '{tmp_path}/file/tune_prune/"
        f"{first_file}'); they are measured again next time (XDG_CACHE_HOME names another folder for them)"
    ]


def test_a_full_disk(toy_data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    model, lines = mlp(), list[str]()
    monkeypatch.setattr(statistics_cache.files, "write_bytes", fail)
    assert statistics_cache.load_or_measure(["hessian"], replace(context(model, toy_data), say=lines.append))
    assert lines[-1].startswith("statistics cannot be kept on disk ([Errno 28] No space left on device); ")


def test_a_user_without_a_home(toy_data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    model, lines = mlp(), list[str]()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "~")  # what `expanduser` makes of "~" where neither HOME nor the system knows better
    assert statistics_cache.load_or_measure(["hessian"], replace(context(model, toy_data), say=lines.append))
    assert lines[0] == "measuring hessian on the dense model"
    assert lines[-1].startswith("statistics cannot be kept on disk (the user has no home directory); ")
