import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import fault

from tune_prune.hpo import config as configs
from tune_prune.hpo.config import FIXED_ON_RESUME, SAMPLERS, Config, new_run_dir, parse_duration
from tune_prune.hpo.parameters import Choice
from tune_prune.hpo.space import Space

SPACE = """
[task]
model = "toys:mlp"
data = "toys:images"
[space]
pruner = ["mag", "random"]
[space.ratio]
"*" = {low = 0.1, high = 0.9}
[goal]
acc_tradeoff = 3
budget = 12
"""


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(SPACE)
    return path


def begun(toml: Path, **given: Any) -> tuple[Config, Space, Path]:
    """A run that was begun: its settings, its space and where it is kept."""
    run_dir = toml.parent / "run"
    config, space, text = configs.start_run(str(toml), given)
    configs.save_run(run_dir, config, space, text)
    return config, space, run_dir


# Bounds


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"budget": 0}, "--budget must be at least 1 trial, got 0"),
        ({"budget": -3}, "--budget must be at least 1 trial, got -3"),
        ({"budget": None}, "give --budget or --time-budget: nothing else says when this search ends"),
        ({"confirm": 1}, "--confirm must be at least 2: one has no spread, got 1"),
        ({"confirm": -2}, "--confirm must be at least 2: one has no spread, got -2"),
        ({"refine": 0.91}, "--refine must be between 0 and 0.9 of the trials, got 0.91"),
        ({"refine": -0.1}, "--refine must be between 0 and 0.9 of the trials, got -0.1"),
        ({"acc_tradeoff": -0.1}, "--acc-tradeoff must be between 0 and 100 points, got -0.1"),
        ({"acc_tradeoff": 101}, "--acc-tradeoff must be between 0 and 100 points, got 101"),
        ({"acc_tradeoff": float("nan")}, "--acc-tradeoff must be between 0 and 100 points, got nan"),
        ({"sampler": "grid"}, "--sampler must be one of tpe, nsga2, gp, random, got grid"),
        ({"seed": -1}, "--seed must be between 0 and 4294967295, got -1"),
        ({"seed": 2**32}, "--seed must be between 0 and 4294967295, got 4294967296"),
        ({"device": "tpu"}, "--device must be one of auto, cpu, cuda, got tpu"),
        ({"cpus_per_trial": 0}, "--cpus-per-trial must be above 0, got 0"),
        ({"cpus_per_trial": float("nan")}, "--cpus-per-trial must be above 0, got nan"),
        ({"gpus_per_trial": -0.5}, "--gpus-per-trial must be at least 0, got -0.5"),
        ({"max_concurrent": 0}, "--max-concurrent must be at least 1, got 0"),
    ],
)
def test_out_of_bounds(given: dict[str, Any], said: str) -> None:
    assert fault(lambda: Config(**{"budget": 10, "acc_tradeoff": 0.5} | given)) == said


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_may_be_named(sampler: str) -> None:
    if sampler == "gp":
        pytest.importorskip("scipy")
    assert Config(1, 0.0, sampler=sampler).sampler == sampler


def test_a_sampler_whose_library_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configs, "find_spec", lambda name: None)
    assert "scipy" in fault(lambda: Config(1, 0.0, sampler="gp"))


# Devices


@pytest.mark.parametrize(
    ("there", "given", "device", "share"),
    [
        (0, {}, "cpu", 0),
        (0, {"device": "cpu", "gpus_per_trial": 0.0}, "cpu", 0),
        (1, {}, "cuda", 0.25),
        (1, {"device": "cpu"}, "cpu", 0),
        (1, {"gpus_per_trial": 0.0}, "cpu", 0),
        (2, {"gpus_per_trial": 2.0}, "cuda", 2),
        (2, {"device": "cuda", "gpus_per_trial": 0.5}, "cuda", 0.5),
        (0, {"device": "cuda", "gpus_per_trial": 4.0, "address": "auto"}, "cuda", 4),
    ],
)
def test_devices(monkeypatch: pytest.MonkeyPatch, there: int, given: dict[str, Any], device: str, share: float) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    config = Config(10, 0.5, **given)
    assert (config.torch_device, config.gpu_share) == (device, share)


@pytest.mark.parametrize(
    ("there", "given", "said"),
    [
        (0, {"device": "cuda"}, "--device cuda: this machine has no GPU that torch can use; use --device cpu or auto"),
        (0, {"gpus_per_trial": 0.5}, "--gpus-per-trial 0.5: this machine has 0; ask for at most that"),
        (1, {"gpus_per_trial": 2.0}, "--gpus-per-trial 2: this machine has 1; ask for at most that"),
        (
            *(1, {"device": "cpu", "gpus_per_trial": 1.0}),
            "--gpus-per-trial 1 with --device cpu; leave one of them out",
        ),
    ],
)
def test_gpus_that_are_not_there(monkeypatch: pytest.MonkeyPatch, there: int, given: dict[str, Any], said: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    assert fault(lambda: Config(10, 0.5, **given)) == said


# Durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1h30m", 5400), ("1h30m15s", 5415), ("1m30", 90)),
        *(("1h1s", 3601), ("0.5h", 1800), ("1.5m", 90), (" 5s ", 5), ("0h0m1s", 1)),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 99))
def test_durations_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == 3600 * hours + 60 * minutes + seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-5", "soon", "5d", "m", "1m1h", "1,5h", "inf", "nan", "1e3", "5 m"])
def test_what_is_no_duration(text: str) -> None:
    said = fault(lambda: parse_duration(text))
    assert said == f"--time-budget must be a duration such as 90s, 15m or 1h30m, got {text!r}"


# A run's settings


def test_the_space_decides_what_is_not_given(toml: Path) -> None:
    config, space, text = configs.start_run(str(toml), {})
    assert config == Config(budget=12, acc_tradeoff=3)
    assert (space.name, text) == ("toy", SPACE)
    config, space, _ = configs.start_run(str(toml), {"budget": 3, "acc_tradeoff": 0.25, "pruners": ("random",)})
    assert (config.budget, config.acc_tradeoff) == (3, 0.25)
    assert space.parameters["pruner"] == "random"


def test_what_was_begun_is_resumed(toml: Path) -> None:
    given = {"seed": 5, "sampler": "random", "pruners": ("random", "mag"), "max_concurrent": 1, "cpus_per_trial": 0.5}
    config, space, run_dir = begun(toml, **given)
    toml.write_text("changed since")
    again, known = configs.resume_run(run_dir, {}, {})
    assert again == config
    assert replace(known, source=space.source) == space
    assert known.parameters["pruner"] == Choice(("random", "mag"))


def test_time_alone_says_when_a_search_ends(toml: Path) -> None:
    timed, _, run_dir = begun(toml, time_budget=60.0)
    assert (timed.budget, timed.time_budget) == (None, 60.0)
    assert fault(lambda: configs.resume_run(run_dir, {}, {})).startswith("give --budget or --time-budget")
    assert configs.resume_run(run_dir, {"time_budget": 5.0}, {})[0].budget is None


def test_the_share_that_finishes(toml: Path) -> None:
    _, space, run_dir = begun(toml, refine=0.3)
    assert space.refine.share == 0.3
    assert configs.resume_run(run_dir, {}, {})[1].refine == space.refine
    assert "--refine" in fault(lambda: configs.resume_run(run_dir, {"refine": 0.1}, {}))


def test_the_budget_may_grow_and_the_time_is_new(toml: Path) -> None:
    _, _, run_dir = begun(toml, budget=12, time_budget=60.0)
    assert configs.resume_run(run_dir, {}, {})[0].time_budget is None
    more = configs.resume_run(run_dir, {"budget": 50, "time_budget": 30.0, "max_concurrent": 2}, {})[0]
    assert (more.budget, more.time_budget, more.max_concurrent) == (50, 30.0, 2)


def test_no_password_is_kept(toml: Path) -> None:
    _, _, run_dir = begun(toml, storage="postgresql://me:secret@host/db")
    assert "secret" not in "".join(path.read_text() for path in run_dir.iterdir())
    settings = configs.resume_run(run_dir, {}, {})[0]
    assert settings.storage == "postgresql://me@host/db"  # as psycopg, a file or a variable may know the password
    again = configs.resume_run(run_dir, {"storage": "postgresql://me:other@host/db"}, {})[0]
    assert again.storage == "postgresql://me:other@host/db"
    assert again.study == settings.study
    assert str(settings.study).startswith("tune_prune-toy-")


def test_a_study_of_its_own_stays_where_it_is(toml: Path) -> None:
    _, _, run_dir = begun(toml)
    said = fault(lambda: configs.resume_run(run_dir, {"storage": "sqlite:///x.db"}, {}))
    assert said == f"--resume {run_dir}: its study is its own study.db; leave out --storage"


def test_an_object_store_is_no_directory() -> None:
    said = fault(lambda: configs.new_run_dir(Path("s3://bucket/run"), "toy"))
    assert said == "--run-dir s3:/bucket/run: an object store is not a file system; name a directory, on a mount of it"


@pytest.mark.parametrize("field", FIXED_ON_RESUME)
def test_what_defines_a_search_stays(toml: Path, field: str) -> None:
    _, _, run_dir = begun(toml)
    said = fault(lambda: configs.resume_run(run_dir, {field: 1}, {"--space": None}))
    assert said == f"--resume goes on with the search as it was begun; leave out {FIXED_ON_RESUME[field]}"


def test_flags_that_make_no_sense_with_resume(toml: Path) -> None:
    _, _, run_dir = begun(toml)
    said = fault(lambda: configs.resume_run(run_dir, {"seed": 1}, {"--space": "toy", "--run-dir": None}))
    assert said.endswith("leave out --space, --seed")


def test_a_directory_without_a_run(tmp_path: Path) -> None:
    said = fault(lambda: configs.resume_run(tmp_path / "none", {}, {}))
    assert said == f"--resume {tmp_path / 'none'}: no run was begun there (run.json is missing)"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"space": "toy"}', "\udcff", '{"space": 1, "pruners": 3}'])
def test_a_damaged_run(toml: Path, content: str) -> None:
    _, _, run_dir = begun(toml)
    (run_dir / "run.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert fault(lambda: configs.resume_run(run_dir, {}, {})).startswith(f"{run_dir / 'run.json'}: damaged (")


def test_a_run_of_another_version(toml: Path) -> None:
    _, _, run_dir = begun(toml)
    raw = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text(json.dumps(raw | {"colour": "red"}))
    assert "colour" in fault(lambda: configs.resume_run(run_dir, {}, {}))


# Where it writes


def test_a_new_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = new_run_dir(None, "toy")
    assert found.parent == tmp_path / "runs"
    assert found.name.startswith("toy-20")
    assert new_run_dir(Path("mine"), "toy") == tmp_path / "mine"
    assert not list(tmp_path.iterdir())
    (tmp_path / "empty").mkdir()
    assert new_run_dir(Path("empty"), "toy") == tmp_path / "empty"


def test_a_directory_in_use(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    for path in (tmp_path, tmp_path / "a"):
        said = fault(lambda path=path: new_run_dir(path, "toy"))
        assert said == f"--run-dir {path} exists already; name another, or go on with --resume {path}"
