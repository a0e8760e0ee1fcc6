"""Every file of a run directory damaged in four ways, one at a time: a resume loses nothing that is elsewhere."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from searches import SPACE, Trials, resumed, searched, summary_of, without_ray

from tune_prune.common.errors import UserError
from tune_prune.results import records

pytestmark = pytest.mark.faults


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(max(64, path.stat().st_size)))


DAMAGE: dict[str, Callable[[Path], None]] = {
    "truncated": truncated,
    "emptied": emptied,
    "deleted": Path.unlink,
    "noise": noise,
}


@pytest.fixture(scope="module")
def trials() -> Iterator[Trials]:
    with without_ray() as made:
        yield made


@pytest.fixture(scope="module")
def finished(trials: Trials, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of six trials, which may be longer."""
    toml = tmp_path_factory.mktemp("damage") / "toy.toml"
    toml.write_text(SPACE)
    code, run_dir = searched(toml, budget=6)
    assert code == 0
    return run_dir


def content(run_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run_dir / "results").iterdir()}


@pytest.mark.parametrize("kind", DAMAGE)
def test_every_file(kind: str, finished: Path, trials: Trials, tmp_path: Path) -> None:
    names = sorted(str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file())
    assert len(names) > 20
    messages: dict[str, str] = {}
    for number, name in enumerate(names):
        run_dir = tmp_path / str(number)
        shutil.copytree(finished, run_dir)
        before = content(run_dir)
        DAMAGE[kind](run_dir / name)
        began = trials.started
        try:
            code = resumed(run_dir, budget=8)
        except (UserError, RuntimeError) as error:  # the latter where the results are written already
            # one line that names the file, and what is there stays as it was
            said = str(error)
            assert Path(name).name in said, (name, said)
            assert "\n" not in said
            messages[name] = said
            left = content(run_dir)
            assert {key: left.get(key) for key in before if f"results/{key}" != name} == {
                key: value for key, value in before.items() if f"results/{key}" != name
            }
            continue
        assert code == 0, name
        after = content(run_dir)
        lost = {key for key in before if after.get(key) != before[key]}
        assert lost <= {Path(name).name}, (name, lost)  # a damaged record's trial is run again, no other
        assert trials.started - began == 2 + len(lost), name
        assert [record.trial for record in records.read_all(run_dir)] == list(range(8)), name
        assert sum(summary_of(run_dir)["trials"][state] for state in ("completed", "stopped", "failed")) == 8
        for member in summary_of(run_dir)["front"]:
            assert (run_dir / member["checkpoint"]).is_file()
    print(f"{kind}: {len(names)} files, {len(messages)} named in one line")
    for name, said in messages.items():
        print(f"  {name}: {said}")
