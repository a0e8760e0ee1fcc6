from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from searches import SPACE, searched, without_ray
from toys import ended, mlp, task_of

from tune_prune.hpo import space_reader
from tune_prune.hpo.config import Config
from tune_prune.hpo.space import Space
from tune_prune.pruning import checkpoint, statistics_cache
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.statistics import CachedStatistics
from tune_prune.results import conf
from tune_prune.results.conf import Conf
from tune_prune.results.front import Member
from tune_prune.workflows.preparation import cached_statistics, prepare
from tune_prune.workflows.prune import open_model
from tune_prune.workflows.replay import replay
from tune_prune.workflows.sensitivity import find_hardest_layer

CPU = torch.device("cpu")
TASK = task_of(mlp(), "toys:mlp")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many training images each call took to measure statistics of the dense model."""
    counts: list[int] = []
    measure = statistics_cache.measure_dense

    def counted(names: Any, model: Any, train: Any, count: int, *more: Any) -> CachedStatistics:
        counts.append(count)
        return measure(names, model, train, count, *more)

    monkeypatch.setattr(statistics_cache, "measure_dense", counted)
    return counts


def space_text(sample: str) -> str:
    return SPACE.replace("[space]", f"[space]\n{sample}").replace('["mag", "taylor1"]', '"taylor2"')


def parse(sample: str) -> Space:
    return space_reader.parse(space_text(sample), "toy", "toy.toml")


SAMPLES = {
    "": Plan.sample,
    "sample = 50": 50,
    "sample = [100, 30]": 100,
    "sample = {low = 20, high = 150, log = true}": 150,
    "sample = {low = 20, high = 150, step = 50}": 120,  # 170 is above the range
}


@pytest.mark.parametrize(("sample", "count"), SAMPLES.items())
def test_cached_statistics_are_measured_on_the_largest_sample(sample: str, count: int) -> None:
    space, config = parse(sample), Config(budget=8, acc_tradeoff=5, force=True)
    cached = cached_statistics(space, TASK, config, print)
    files = {path.name for path in statistics_cache.cache_dir().iterdir()}
    expected = statistics_cache.measure_dense(["hessian"], TASK.dense_model(CPU), TASK.train, count)
    assert {path.name for path in statistics_cache.cache_dir().iterdir()} == files  # read, for the key is the same
    assert torch.equal(cached["hessian"]["2"], expected["hessian"]["2"])
    assert prepare(config, space, print).info.cached_sample == space.largest_sample == count


def test_the_hardest_layer_is_found_with_the_statistics_of_the_search(images: list[int]) -> None:
    record = ended(0, (0.5, 60.0))
    record = replace(record, pruners={"2": "taylor2"})
    assert find_hardest_layer(TASK, Member("001", record, record.last), CPU, 40) is not None
    assert images == [40]


@pytest.mark.parametrize("sample", ["sample = 50", "sample = [30, 100]"])
def test_a_replay_measures_on_as_many_images_as_the_search(tmp_path: Path, images: list[int], sample: str) -> None:
    toml = tmp_path / "toy.toml"
    toml.write_text(space_text(sample))
    with without_ray():
        code, run_dir = searched(toml, budget=5)
    assert code == 0
    assert images
    for path in sorted((run_dir / "confs").glob("*.conf")):
        found = conf.read(path)
        assert [one.line() for one in replay(found, CPU, path) if one.differs] == []
    assert set(images) == {parse(sample).largest_sample}


def test_a_conf_without_the_note_measures_on_its_own_sample(images: list[int]) -> None:
    notes = {"model": "toys:mlp", "data": "toys:images", "seed": 0, "trial": 0, "round": 1, "rounds": 1}
    notes |= {"val_error": 50.0, "weights_hash": checkpoint.hash_weights(*open_model("toys:mlp", None))}
    for more in ({}, {"sample": 40}, {"sample": 40, "cached_sample": 90}):
        replay(Conf({"2": 0.5}, {"2": "taylor2"}, notes | more), CPU, Path("a.conf"))
    assert images == [Plan.sample, 40, 90]
