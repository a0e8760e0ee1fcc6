import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toys import fault

from tune_prune.common.flags import Setting, declared_settings
from tune_prune.hpo import run_files, storage
from tune_prune.hpo.config import Config
from tune_prune.hpo.parameters import Choice
from tune_prune.hpo.run_files import new_run_dir, resume_run
from tune_prune.hpo.space import Space
from tune_prune.tasks.settings import TaskSettings
from tune_prune.training.resources import Resources

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


def start(toml: Path, **given: Any) -> tuple[Config, Space, Path]:
    """Begins a run: its settings, its space and its directory."""
    run_dir = toml.parent / "run"
    config, space, text = run_files.start_run(str(toml), given)
    run_files.save_run(run_dir, config, space, text)
    return config, space, run_dir


def test_the_space_decides_what_is_not_given(toml: Path) -> None:
    config, space, text = run_files.start_run(str(toml), {})
    assert config == Config(budget=12, acc_tradeoff=3)
    assert (space.name, text) == ("toy", SPACE)
    config, space, _ = run_files.start_run(str(toml), {"budget": 3, "acc_tradeoff": 0.25, "pruners": ("random",)})
    assert (config.budget, config.acc_tradeoff) == (3, 0.25)
    assert space.parameters["pruner"] == "random"


def test_flags_of_the_task_replace_what_the_space_says(toml: Path) -> None:
    own = 'loss = "mine:loss"\nmetric = "mine:f1"\nbetter = "higher"\n[space]\n'
    toml.write_text(SPACE.replace("[space]\n", own))
    assert run_files.start_run(str(toml), {"loss": "other:loss"})[1].settings == TaskSettings(
        loss="other:loss", metric="mine:f1", better="higher"
    )
    _, space, run_dir = start(toml, metric="other:rmse", precision="bf16", batch_size=7)
    assert space.settings == TaskSettings(loss="mine:loss", metric="other:rmse", precision="bf16")
    assert space.parameters["batch_size"] == 7  # and `better`, which belongs to the other metric, is gone
    assert resume_run(run_dir, {}, {})[1] == replace(space, source=str(run_dir / "space.toml"))
    assert json.loads((run_dir / "run.json").read_text())["task"] == {"metric": "other:rmse", "precision": "bf16"}


@pytest.mark.parametrize(("share", "expected"), [("", 0.5), ("distill = 0.2", 0.2)])
def test_a_function_that_distils_has_a_share(toml: Path, share: str, expected: float) -> None:
    toml.write_text(SPACE.replace("[space]\n", f"[space]\n{share}\n"))
    assert run_files.start_run(str(toml), {"distill": "mine:distill"})[1].parameters["distill"] == expected


def test_what_was_begun_is_resumed(toml: Path) -> None:
    given = {"seed": 5, "sampler": "random", "pruners": ("random", "mag"), "max_concurrent": 1, "cpus_per_trial": 0.5}
    config, space, run_dir = start(toml, **given)
    toml.write_text("changed since")
    again, resumed = resume_run(run_dir, {}, {})
    assert again == config
    assert replace(resumed, source=space.source) == space
    assert resumed.parameters["pruner"] == Choice(("random", "mag"))


def test_time_alone_says_when_a_search_ends(toml: Path) -> None:
    timed, _, run_dir = start(toml, time_budget=60.0)
    assert (timed.budget, timed.time_budget) == (None, 60.0)
    assert fault(lambda: resume_run(run_dir, {}, {})).startswith("give --budget or --time-budget")
    assert resume_run(run_dir, {"time_budget": 5.0}, {})[0].budget is None


def test_the_share_of_refinement(toml: Path) -> None:
    _, space, run_dir = start(toml, refine=0.3)
    assert space.refine.share == 0.3
    assert resume_run(run_dir, {}, {})[1].refine == space.refine
    assert "--refine" in fault(lambda: resume_run(run_dir, {"refine": 0.1}, {}))


def test_the_budget_may_grow_and_the_time_is_new(toml: Path) -> None:
    _, _, run_dir = start(toml, budget=12, time_budget=60.0)
    assert resume_run(run_dir, {}, {})[0].time_budget is None
    more = resume_run(run_dir, {"budget": 50, "time_budget": 30.0, "max_concurrent": 2}, {})[0]
    assert (more.budget, more.time_budget, more.resources.max_concurrent) == (50, 30.0, 2)


def test_no_password_is_kept(toml: Path) -> None:
    _, _, run_dir = start(toml, storage="postgresql://me:secret@host/db")
    assert "secret" not in "".join(path.read_text() for path in run_dir.iterdir())
    again = resume_run(run_dir, {"storage": "postgresql://me:other@host/db"}, {})[0]
    assert again.storage == "postgresql://me:other@host/db"
    assert str(again.study).startswith("tune_prune-toy-")


def test_a_study_of_its_own_stays_where_it_is(toml: Path) -> None:
    _, _, run_dir = start(toml)
    said = fault(lambda: resume_run(run_dir, {"storage": "sqlite:///x.db"}, {}))
    assert said == f"--resume {run_dir}: its study is its own study.db; leave out --storage"


# What a stranger's run may choose


@pytest.mark.parametrize("url", ["postgresql://me:secret@host/db", "sqlite:////tmp/elsewhere.db", "sqlite:///x.db"])
def test_a_run_does_not_choose_its_database(toml: Path, url: str) -> None:
    _, _, run_dir = start(toml, storage=url)
    advice = f"give --storage {storage.without_password(url)} again, with its password if it has one"
    said = f"--resume {run_dir}: its study is not in it, and run.json does not choose where; {advice}"
    assert fault(lambda: resume_run(run_dir, {}, {})) == said
    assert resume_run(run_dir, {"storage": url}, {})[0].storage == url


def test_a_database_inside_of_the_run(toml: Path) -> None:
    inside = f"sqlite:///{toml.parent / 'run' / 'other.db'}"
    _, _, run_dir = start(toml, storage=inside)
    assert resume_run(run_dir, {}, {})[0].storage == inside


@pytest.mark.parametrize("rest", ["../x.db", "x.db?uri=true", "../run-2/x.db", "y/../../x.db"])
def test_a_database_that_only_looks_inside(toml: Path, rest: str) -> None:
    _, _, run_dir = start(toml, storage=f"sqlite:///{toml.parent / 'run'}/{rest}")
    assert "run.json does not choose where" in fault(lambda: resume_run(run_dir, {}, {}))


def test_a_run_does_not_choose_its_cluster(toml: Path) -> None:
    _, _, run_dir = start(toml, address="10.0.0.1:6379")
    advice = "give --address 10.0.0.1:6379 again, or --address local for this machine alone"
    said = f"--resume {run_dir}: it ran on a Ray cluster, which run.json does not choose; {advice}"
    assert fault(lambda: resume_run(run_dir, {}, {})) == said
    assert resume_run(run_dir, {"address": "auto"}, {})[0].resources.address == "auto"
    assert resume_run(run_dir, {"address": None}, {})[0].resources.address is None


@pytest.mark.parametrize("name", ["study.db", "results", "rounds", "run.json", "space.toml", ".lock", "checkpoints/1"])
def test_links_out_of_a_run_are_not_followed(toml: Path, name: str) -> None:
    _, _, run_dir = start(toml)
    path, outside = run_dir / name, toml.parent / "outside"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(outside)
    said = f"{path}: a link out of this directory, which is not followed; put a copy in its place"
    assert fault(lambda: resume_run(run_dir, {}, {})) == said
    assert not outside.exists()


def test_a_run_directory_may_be_a_link_itself(toml: Path) -> None:
    config, _, run_dir = start(toml)
    (toml.parent / "link").symlink_to(run_dir)
    assert resume_run(toml.parent / "link", {}, {})[0] == config


def test_an_object_store_is_no_directory() -> None:
    said = fault(lambda: new_run_dir(Path("s3://bucket/run"), "toy"))
    assert said == "--run-dir s3:/bucket/run: an object store is not a file system; name a directory, on a mount of it"


FIXED = [setting for setting in declared_settings(Config).values() if setting.flag.fixed_on_resume]


def test_what_defines_a_search() -> None:
    task = [setting.option for setting in declared_settings(TaskSettings).values()]
    searched = ["--acc-tradeoff", "--refine", "--pruners", "--sampler", "--batch-size", "--seed", "--latency-on"]
    assert {setting.option for setting in FIXED} == {*searched, *task}


@pytest.mark.parametrize("setting", FIXED, ids=lambda setting: setting.name)
def test_what_defines_a_search_stays(toml: Path, setting: Setting) -> None:
    _, _, run_dir = start(toml)
    said = fault(lambda: resume_run(run_dir, {setting.name: 1}, {"--space": None}))
    assert said == f"--resume goes on with the search as it was begun; leave out {setting.option}"


def test_flags_that_make_no_sense_with_resume(toml: Path) -> None:
    _, _, run_dir = start(toml)
    said = fault(lambda: resume_run(run_dir, {"seed": 1}, {"--space": "toy", "--run-dir": None}))
    assert said.endswith("leave out --space, --seed")


def test_a_directory_without_a_run(tmp_path: Path) -> None:
    said = fault(lambda: resume_run(tmp_path / "none", {}, {}))
    assert said == f"--resume {tmp_path / 'none'}: no run was begun there (run.json is missing)"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "\udcff",
        '{"format": 3}',
        '{"format": 3, "space": "toy"}',
        '{"format": 3, "space": 1, "pruners": 3}',
    ],
)
def test_a_damaged_run(toml: Path, content: str) -> None:
    _, _, run_dir = start(toml)
    (run_dir / "run.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert fault(lambda: resume_run(run_dir, {}, {})).startswith(f"{run_dir / 'run.json'}: damaged (")


@pytest.mark.parametrize(
    "change",
    [{"colour": "red"}, {"pruners": 3}, {"logger": 3}, {"budget": "many"}, {"seed": "x"}, {"max_concurrent": "x"}],
)
def test_a_setting_that_makes_no_sense(toml: Path, change: dict[str, object]) -> None:
    _, _, run_dir = start(toml)
    raw = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text(json.dumps(raw | change))
    assert fault(lambda: resume_run(run_dir, {}, {})).startswith(f"{run_dir / 'run.json'}: damaged (")


def test_an_unknown_setting_is_named(toml: Path) -> None:
    _, _, run_dir = start(toml)
    raw = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text(json.dumps(raw | {"colour": "red"}))
    assert "colour" in fault(lambda: resume_run(run_dir, {}, {}))


def test_how_many_processes_train_a_trial(toml: Path) -> None:
    toml.write_text(SPACE.replace("[space]\n", "workers_per_trial = 2\n[space]\n"))
    config, _, run_dir = start(toml, cpus_per_trial=0.5)
    assert config.resources.workers_per_trial == 2
    assert resume_run(run_dir, {}, {})[0] == config
    assert resume_run(run_dir, {"workers_per_trial": 1}, {})[0].resources.workers_per_trial == 1  # on fewer GPUs
    config, _, _ = run_files.start_run(str(toml), {"workers_per_trial": 4, "address": "auto"})
    assert config.resources == Resources(workers_per_trial=4, address="auto")


# A run of another version

OLD_RUN = {
    "space": "toy", "budget": 12, "acc_tradeoff": 3, "finish": None, "confirm": 0, "refit": False, "pruners": None,
    "sampler": "tpe", "seed": 5, "time_budget": None, "device": "auto", "cpus_per_trial": 1.0, "gpus_per_trial": None,
    "max_concurrent": 1, "trial_timeout": None, "max_failures": 0.5, "address": None, "storage": None, "study": None,
    "logger": [], "dashboard": False,
}  # fmt: skip
OLD_SPACE = f"""{SPACE}
[finish]
share = 0.2
rounds = 12
[prior]
levels = 16
first = 3
farthest = 100
[economy]
rounds = false
[[guess]]
pruner = "mag"
ratio = 0.9
"""


def refusal(run_dir: Path, why: str) -> str:
    advice = "go on with the version that began it, or begin again with a new --run-dir"
    return f"--resume {run_dir}: another version of tune-prune began this run ({why}); {advice}"


def test_a_run_of_an_earlier_version(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(OLD_RUN, indent=1) + "\n")
    (tmp_path / "space.toml").write_text(OLD_SPACE)
    why = "run.json names no format, and this version goes on with format 3"
    assert fault(lambda: resume_run(tmp_path, {"budget": 20}, {})) == refusal(tmp_path, why)


def test_a_run_of_a_later_version(toml: Path) -> None:
    _, _, run_dir = start(toml)
    raw = json.loads((run_dir / "run.json").read_text())
    assert raw["format"] == 3
    (run_dir / "run.json").write_text(json.dumps(raw | {"format": 4}))
    why = "run.json names format 4, and this version goes on with format 3"
    assert fault(lambda: resume_run(run_dir, {}, {})) == refusal(run_dir, why)


def test_a_space_of_an_earlier_version(toml: Path) -> None:
    _, _, run_dir = start(toml)
    (run_dir / "space.toml").write_text(OLD_SPACE)
    why = "space.toml has [finish], [prior], [guess], [economy]"
    assert fault(lambda: resume_run(run_dir, {}, {})) == refusal(run_dir, why)


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


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    said = fault(lambda: new_run_dir(tmp_path / os.fsdecode(b"\xff"), "toy"))
    assert said == f"--run-dir '{tmp_path}/\\udcff': its name is not UTF-8; name another"


def test_a_directory_in_use(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    for path in (tmp_path, tmp_path / "a"):
        said = fault(lambda path=path: new_run_dir(path, "toy"))
        assert said == f"--run-dir {path} exists already; name another, or go on with --resume {path}"
