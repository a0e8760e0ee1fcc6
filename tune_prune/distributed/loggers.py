"""Loggers of trials beside the run's own files: TensorBoard, MLflow, Weights & Biases, as callbacks of Ray Tune."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ray import tune

from tune_prune.common.errors import UserError
from tune_prune.common.registry import Registry

loggers = Registry[tuple[str, Callable[[Path], tune.Callback]]]("logger")
"""By name, the module that a logger needs, and the function that makes its callback for a run directory."""


class TensorBoard(tune.Callback):
    """Writes a folder of event files for each trial: the measures of its rounds, and its parameters as text."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Called when a round has ended; writes its measures."""
        from tensorboardX import SummaryWriter

        measures = [name for name in result if name in ("compression", "factor") or name.startswith("val_")]
        if not measures:
            return  # the round ended without a measure
        if trial.trial_id not in self._writers:
            writer = SummaryWriter(str(self._folder / f"{result['trial']:05d}"))
            params = [f"    {name} = {value}" for name, value in trial.config["params"].items()]
            writer.add_text("parameters", "\n".join(params))
            self._writers[trial.trial_id] = writer
        for name in measures:
            self._writers[trial.trial_id].add_scalar(name, result[name], result["rounds"])
        if result["done"]:
            self._close(trial)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called when a trial has ended or was stopped; closes its file."""
        self._close(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called when a trial's worker has died; closes its file."""
        self._close(trial)

    def _close(self, trial: Any) -> None:
        writer = self._writers.pop(trial.trial_id, None)
        if writer is not None:
            writer.close()


def _mlflow(run_dir: Path) -> tune.Callback:
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    # where the variable is not set, MLflow writes beside the working directory's other runs
    return MLflowLoggerCallback(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI"), experiment_name=run_dir.name)


def _wandb(run_dir: Path) -> tune.Callback:
    from ray.air.integrations.wandb import WandbLoggerCallback

    return WandbLoggerCallback(project="tune_prune", group=run_dir.name, dir=str(run_dir))


loggers.add("tensorboard", ("tensorboardX", lambda run_dir: TensorBoard(run_dir / "tensorboard")))
loggers.add("mlflow", ("mlflow", _mlflow))
loggers.add("wandb", ("wandb", _wandb))


def check_loggers(names: tuple[str, ...]) -> None:
    """Raises a `UserError` for an unknown logger, and for one whose package is not installed."""
    for name in names:
        module, _ = loggers[name]
        if find_spec(module) is None:
            raise UserError(f"--logger {name} needs {module}, which is not installed: pip install 'tune-prune[{name}]'")


def make_callbacks(names: tuple[str, ...], run_dir: Path) -> list[tune.Callback]:
    """Makes the callbacks of these loggers for a run directory."""
    return [loggers[name][1](run_dir) for name in names]
