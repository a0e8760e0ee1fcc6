"""A search without Ray: its trials' records are written by hand."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from toys import ended

from tune_prune.common import files
from tune_prune.distributed.searcher import StudySearcher
from tune_prune.hpo.budget import Budget
from tune_prune.hpo.gradual_pruning import GradualTrials
from tune_prune.hpo.parameters import Choice, Parameter, Range
from tune_prune.hpo.phases import Features, Refinement
from tune_prune.hpo.run_lock import RunLock
from tune_prune.hpo.search_settings import InitialPoint, SearchSettings
from tune_prune.hpo.trials import Trials
from tune_prune.results import records
from tune_prune.results.constraints import Constraints
from tune_prune.results.records import TrialRecord
from tune_prune.results.trial_params import TrialParams

PARAMETERS: dict[str, Parameter] = {
    "ratio/2": Range(0.1, 0.99),
    "pruner": Choice(("mag", "taylor1")),
    "rounds": 2,
    "lr": 0.1,
}
DENSE, LIMIT = 1.0, 2.0
OFF = Features(early_stopping=False, warm_start=False)
REFINE = Refinement(share=0.25, rounds=4, steps=7, lr=0.3)


@dataclass
class Driver:
    """One process that searches, in the place of Ray: `study` and `run_dir` outlive it."""

    run_dir: Path
    study: optuna.Study
    refine: Refinement = field(default_factory=Refinement)
    seed: int = 3
    initial_points: Sequence[InitialPoint] = ()
    levels: Sequence[InitialPoint] = ()
    features: Features = OFF
    changes: int = 0
    refinement_seconds: float = 0.0
    budget: Budget = field(default_factory=lambda: Budget(40))
    lock: RunLock | None = None
    gradual: GradualTrials | None = None

    def __post_init__(self) -> None:
        queue = self.initial_points, self.levels
        settings = SearchSettings(
            self.budget,
            DENSE,
            Constraints(LIMIT),
            self.refine,
            *queue,
            self.features,
            {"2": 1000},
            self.refinement_seconds,
            gradual=self.gradual,
        )
        self.trials = Trials(self.study, self.run_dir, PARAMETERS, settings, "tpe", self.seed, self.lock)
        self.searcher = StudySearcher(self.trials, self.changed)
        self.ids: dict[int, str] = {}
        self.names = (f"ray{number}" for number in itertools.count())

    def changed(self, trials: Trials) -> None:
        self.changes += 1

    def suggest(self) -> dict[str, Any]:
        """The next trial; Ray has a name of its own for it."""
        name = next(self.names)
        config = self.searcher.suggest(name)
        if isinstance(config, dict):
            self.ids[config["trial"]] = name
        elif self.searcher.fatal_error is not None:
            raise self.searcher.fatal_error
        assert isinstance(config, dict)
        return config

    def end(self, config: Mapping[str, Any], record: TrialRecord | None, error: bool = False, **result: object) -> None:
        """The trial's worker wrote this record, and its trial is over."""
        if record is not None:
            records.write(self.run_dir, record)
            for point in record.points:
                files.write_bytes(self.run_dir / str(point.checkpoint), b"weights")
        self.searcher.on_trial_complete(self.ids[config["trial"]], result, error)

    def run(self, trials: int) -> list[dict[str, Any]]:
        """Several trials, one after the other."""
        configs = []
        for _ in range(trials):
            configs.append(self.suggest())
            self.end(configs[-1], measured(configs[-1]))
        return configs

    def state(self, number: int) -> TrialState:
        return self.study.trials[number].state


def measured(config: Mapping[str, Any], state: str = "complete") -> TrialRecord:
    """What a trial measures: the more is removed the more errors, by a third fewer if it refines another."""
    ratio = config["params"]["ratio/2"]
    error = DENSE + 3 * ratio**2 * (1 if config["refines"] is None else 0.33)
    record = ended(config["trial"], (ratio / 2, 1.1), (ratio, error), limit=LIMIT, state=state)
    start = config["start"]
    parent, round_ = (start.trial, start.round) if start else (None, None)
    params = TrialParams.from_columns(config["params"])
    return replace(record, params=params, parent=parent, parent_round=round_, refines=config["refines"],
        gradual=config["gradual"],
    )  # fmt: skip


def level(ratio: float) -> InitialPoint:
    return {"ratio/2": ratio, "pruner": "mag"}
