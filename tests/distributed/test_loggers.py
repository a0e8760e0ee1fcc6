from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event
from toys import fault

from tune_prune.distributed import loggers
from tune_prune.distributed.loggers import TensorBoard, check_loggers, make_callbacks

METRICS = ("compression", "factor", "val_error", "val_loss")


def events(folder: Path) -> list[tuple[int, str, float]]:
    """(step, name, value) of the scalars in a folder: each record is a length, its checksum, the data, its checksum."""
    found = []
    for path in sorted(folder.glob("events*")):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value if v.tag in METRICS]
            data = data[16 + length :]
    return found


def result(round_: int, done: bool) -> dict[str, Any]:
    return {"trial": 7, "rounds": round_, "done": done} | dict.fromkeys(METRICS, round_ / 4)


def test_event_files_of_a_trial(tmp_path: Path) -> None:
    trial = SimpleNamespace(trial_id="a", config={"params": {"lr": 0.1, "pruner": "mag"}})
    board = TensorBoard(tmp_path)
    board.on_trial_result(0, [], trial, {"trial": 7, "rounds": 0, "done": False})
    board.on_trial_result(1, [], trial, result(1, False))
    board.on_trial_result(2, [], trial, result(2, True))
    board.on_trial_complete(2, [], trial)
    assert [path.name for path in tmp_path.iterdir()] == ["00007"]
    assert events(tmp_path / "00007") == [(n, name, n / 4) for n in (1, 2) for name in METRICS]


def test_mlflow_s_callback_is_ray_s(tmp_path: Path) -> None:
    (made,) = make_callbacks(("mlflow",), tmp_path / "lenet5-20260101-120000")
    assert type(made).__name__ == "MLflowLoggerCallback"
    assert made.experiment_name == "lenet5-20260101-120000"


def test_loggers_that_are_unknown_or_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    check_loggers(("tensorboard", "mlflow"))
    assert fault(lambda: check_loggers(("csv",))) == "unknown logger 'csv'; known: tensorboard, mlflow, wandb"
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    assert fault(lambda: check_loggers(("wandb",))) == (
        "--logger wandb needs wandb, which is not installed: pip install 'tune-prune[wandb]'"
    )
