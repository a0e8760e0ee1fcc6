"""The Ray Tune trainable: an adapter around `TrialRunner`. One step of Ray Tune is one round of a trial."""

from collections.abc import Sequence
from typing import Any

import ray
from ray import tune
from ray.tune.utils import flatten_dict

from tune_prune.distributed.ranks import Ranks
from tune_prune.distributed.trial_runner import TrialRunner
from tune_prune.distributed.worker_data import WorkerData
from tune_prune.hpo.trials import TrialConfig
from tune_prune.results.trial_params import TrialParams


def to_ray(config: TrialConfig) -> dict[str, Any]:
    """A trial's configuration as Ray and its loggers take it, with parameters under flat names."""
    return {
        "trial": config.trial,
        "seed": config.seed,
        "params": config.params.to_columns(),
        "refines": config.refines,
        "gradual": config.gradual,
        "start": config.start,
    }


def from_ray(raw: dict[str, Any]) -> TrialConfig:
    """The configuration that `to_ray` made."""
    return TrialConfig(**raw | {"params": TrialParams.from_columns(raw["params"])})


def from_parameters(raw: dict[str, Any], trial_id: str) -> TrialConfig:
    """The configuration of parameters by name, as a user's own searcher suggests them, with or without `seed`.

    The trial's number follows from its id: `8f3a1_00004` of Ray's own draws is 4; its searchers' ids are hexadecimal.
    """
    params = flatten_dict(raw)  # some of Ray's searchers nest names at their slashes
    _, line, counted = trial_id.rpartition("_")
    number, seed = int(counted) if line else int(trial_id, 16), params.pop("seed", 0)
    return TrialConfig(number, seed, TrialParams.from_columns(params))


def share_data(worker_data: WorkerData) -> type[tune.Trainable]:
    """A trainable that has its data, for a `tune.Tuner`."""
    made: type[tune.Trainable] = tune.with_parameters(PruneTrainable, worker_data=worker_data)
    return made


class PruneTrainable(tune.Trainable):
    """Runs trials in a worker of Ray, which goes on with another trial when one has ended.

    A step is a round: it prunes, retrains and measures, and reports `trial`, `rounds` (those done), `compression` in
    [0, 1], `factor`, `val_error` in percent or the metric of the task, `val_loss` in nats, and `done` after the last
    round, or where the trial fails; its record in the run directory says why. `tune_prune.prepare_search` makes one
    that has its task.
    """

    _ranks: Ranks | None = None

    def setup(
        self, config: dict[str, Any], worker_data: WorkerData | None = None, stored: Sequence[ray.ObjectRef] = ()
    ) -> None:
        """Called once a worker, with its first trial and what all trials share: `worker_data`, or a reference to it.

        With a reference, the trial's other processes are started as well, and train along.
        """
        if worker_data is not None:
            self._runner = TrialRunner(worker_data, self._read(config))
            return
        worker_data = ray.get(stored[0])
        self._ranks = Ranks(stored[0])
        self._runner = TrialRunner(worker_data, self._read(config), self._ranks.retrain, self._ranks.cpu_seconds)

    def _read(self, config: dict[str, Any]) -> TrialConfig:
        return from_ray(config) if "params" in config else from_parameters(config, self.trial_id)

    def cleanup(self) -> None:
        """Called when the worker ends."""
        if self._ranks is not None:
            self._ranks.stop()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Goes on with another trial."""
        self._runner.begin(self._read(new_config))
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Saves nothing: record and weights of each round are in the run directory, from which a trial goes on."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Loads nothing: see `save_checkpoint`."""

    def step(self) -> dict[str, Any]:
        """Runs one round; what it measured is in the trial's record as well."""
        return self._runner.run_round().to_dict(self._runner.metric)
