"""Tables as files, and the script that writes them elsewhere."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from deadlines import scaled
from torch import nn
from toys import Conv, fault, mlp

from tune_prune.export.latency.measuring import measure_table, write_script
from tune_prune.export.latency.programs import record_program
from tune_prune.export.latency.table import LatencyTable, fingerprint, read_table, write_table

INPUTS = torch.randn(2, 1, 8, 8)


def smaller() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.ReLU(), nn.Linear(3, 4))


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return measure_table(mlp(), [smaller(), smaller()], INPUTS, 2, lambda line: None)


def test_a_measured_table(table: LatencyTable) -> None:
    assert table.model == fingerprint(record_program(mlp(), INPUTS).costs)
    assert (table.batch, len(table.pruned), table.torch) == (2, 2, torch.__version__)
    assert table.dense_seconds == table.networks[0].total > 0
    assert table.pruned[0].costs == record_program(smaller(), INPUTS).costs
    assert fingerprint(table.pruned[0].costs) != table.model


def test_a_table_is_read_as_it_was_written(table: LatencyTable, tmp_path: Path) -> None:
    write_table(tmp_path / "t.json", table)
    found = read_table(tmp_path / "t.json")
    assert replace(found, networks=()) == replace(table, networks=())
    for one, other in zip(found.networks, table.networks, strict=True):
        assert (one.costs, [*one.seconds], one.total) == (other.costs, [*other.seconds], other.total)


def test_a_script_writes_a_table_without_this_package(tmp_path: Path) -> None:
    script = tmp_path / "time.py"
    write_script(script, [record_program(model, INPUTS) for model in (Conv(), Conv())], 2)
    run = (
        "import runpy, sys; sys.argv = ['time.py', '--out', 'made.json', '--device', 'cpu']; "
        "runpy.run_path('time.py', run_name='__main__'); "
        "assert 'tune_prune' not in sys.modules"
    )
    command = [sys.executable, "-c", run]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=scaled(60), check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1].startswith("table: made.json; copy it back")
    found = read_table(tmp_path / "made.json")
    assert found.model == fingerprint(record_program(Conv(), INPUTS).costs)
    assert (found.batch, len(found.pruned)) == (2, 1)
    assert found.pruned[0].total > 0


DAMAGES = {
    "no JSON": ("{", "is no latency table"),
    "of another format": ('{"format": 7}', "it has format 7, and this version reads 1"),
    "without networks": ('{"format": 1, "networks": []}', "fewer than two networks"),
    "without a key": ('{"format": 1}', "is no latency table ('networks')"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_table(kind: str, tmp_path: Path) -> None:
    text, said = DAMAGES[kind]
    path = tmp_path / "t.json"
    path.write_text(text)
    message = fault(lambda: read_table(path))
    assert message.startswith(f"{path}: ")
    assert said in message


@pytest.mark.parametrize("times", [[], [1.0], [-1.0] * 4, [float("nan")] * 4, ["x"] * 4])
def test_times_that_do_not_fit(times: list[object], table: LatencyTable, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    write_table(path, table)
    content = json.loads(path.read_text())
    content["networks"][1]["seconds"] = times
    path.write_text(json.dumps(content))
    assert fault(lambda: read_table(path)).startswith(f"{path}: is no latency table (")
