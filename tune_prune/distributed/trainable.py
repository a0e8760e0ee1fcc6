"""The Ray Tune trainable: an adapter around `TrialRunner`. One step of Ray Tune is one round of a trial."""

from collections.abc import Sequence
from typing import Any

import ray
from ray import tune

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
        "start": config.start,
    }


def from_ray(raw: dict[str, Any]) -> TrialConfig:
    """The configuration that `to_ray` made."""
    return TrialConfig(**raw | {"params": TrialParams.from_columns(raw["params"])})


class PruneTrainable(tune.Trainable):
    """Runs trials in a worker of Ray, which goes on with another trial when one has ended."""

    _ranks: Ranks | None = None

    def setup(
        self, config: dict[str, Any], worker_data: WorkerData | None = None, stored: Sequence[ray.ObjectRef] = ()
    ) -> None:
        """Called once a worker, with its first trial and what all trials share: `worker_data`, or a reference to it.

        With a reference, the trial's other processes are started as well, and train along.
        """
        if worker_data is not None:
            self._runner = TrialRunner(worker_data, from_ray(config))
            return
        worker_data = ray.get(stored[0])
        self._ranks = Ranks(stored[0])
        self._runner = TrialRunner(worker_data, from_ray(config), self._ranks.retrain, self._ranks.cpu_seconds)

    def cleanup(self) -> None:
        """Called when the worker ends."""
        if self._ranks is not None:
            self._ranks.stop()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Goes on with another trial."""
        self._runner.begin(from_ray(new_config))
        return True

    def step(self) -> dict[str, Any]:
        """Runs one round; what it measured is in the trial's record as well."""
        return self._runner.run_round().to_dict(self._runner.metric)
