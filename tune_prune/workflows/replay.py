"""Replays a .conf: prunes and retrains as its comment lines say, and compares the result with what they state."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tune_prune.common.errors import UserError
from tune_prune.hpo.parameters import PARAMETERS
from tune_prune.hpo.warm_start import Stage, retrace
from tune_prune.pruning import criteria, masks, statistics_cache
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.pruning.iterative import State
from tune_prune.pruning.plan import Plan
from tune_prune.results.conf import Conf
from tune_prune.results.trial_params import TrialParams
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.task import prepare_task
from tune_prune.training.resources import one_thread
from tune_prune.workflows.prune import PruneOptions, prune

MEASURES = ("compression", "val_error", "test_error")


@dataclass(frozen=True)
class Comparison:
    """A number as the conf states it, None where it states none, and as the replay measured it."""

    name: str
    stated: float | None
    replayed: float

    @property
    def agrees(self) -> bool:
        """Whether the conf states exactly this number."""
        return self.stated == self.replayed

    def line(self) -> str:
        """One line for the user, marked where the numbers differ."""
        stated = "nothing" if self.stated is None else repr(self.stated)
        return f"{self.name}: stated {stated}, replayed {self.replayed!r}" + ("" if self.agrees else "  <- differs")


def replay(conf: Conf, device: torch.device, source: str) -> list[Comparison]:
    """Prunes and retrains again as a conf says, and compares compression and errors in percent.

    Raises a `UserError` where the conf does not note how it was made.
    """
    notes: dict[str, Any] = dict(conf.notes)
    missing = [name for name in ("model", "data", "seed") if name not in notes]
    if missing or not ({"trial", "epochs"} & notes.keys()):
        what = missing[0] if missing else "trial or epochs"
        raise UserError(f"{source}: cannot be replayed, it does not note its {what}; confs of a search or of prune do")
    with one_thread():  # as trials run by default: sums in another order can tip a weight or an image
        state = (
            _replay_trial(conf, notes, device, source)
            if "trial" in notes
            else _replay_prune(conf, notes, device, source)
        )
        data = load_data(notes["data"])
        measured = {
            "compression": masks.compression(state.masks),
            "val_error": evaluate(state.model, data.validation.to(device)).error,
            "test_error": evaluate(state.model, data.load_test().to(device)).error,
        }
    return [Comparison(name, notes.get(name), measured[name]) for name in MEASURES]


def _replay_prune(conf: Conf, notes: Mapping[str, Any], device: torch.device, source: str) -> State:
    """Prunes as `tune-prune prune` did."""
    options = PruneOptions(**{f.name: notes[f.name] for f in fields(PruneOptions) if f.name in notes})
    start = Path(notes["start"]) if "start" in notes else None
    target = Conf({label: notes.get(f"ratio/{label}", ratio) for label, ratio in conf.ratios.items()}, conf.pruners)
    state, _, steps = prune(notes["model"], start, load_data(notes["data"]), target, options, device, source)
    for _ in steps:
        pass
    return state


def _replay_trial(conf: Conf, notes: Mapping[str, Any], device: torch.device, source: str) -> State:
    """Prunes and retrains as a trial did up to the conf's round, after the earlier trials that it started from."""
    name = notes["model"]
    task, _ = prepare_task(name, load_dense_model(name, None, source), notes["data"], device)
    task = task.to(device)
    params = TrialParams(
        ratios={label: notes.get(f"ratio/{label}", ratio) for label, ratio in conf.ratios.items()},
        pruner=notes.get("pruner"),
        pruners=conf.pruners or {},
        training={key: value for key, value in notes.items() if key in PARAMETERS and key != "pruner"},
    )
    earlier = [Stage(one["trial"], one["round"], TrialParams.from_columns(one)) for one in notes.get("history", [])]
    stages = [*earlier, Stage(notes["trial"], notes["round"], params)]
    # the search measured its cached statistics once, for all of its trials
    images = notes.get("cached_sample", notes.get("sample", Plan.sample))
    cached: dict[str, dict[str, Tensor]] = {}
    for stage in stages:
        names = sorted(criteria.required_statistics(stage.params.to_plan().pruners.values()))
        cached |= statistics_cache.measure_dense(names, task.dense_model(device), task.train, images)
    return retrace(task, stages, notes["seed"], device, cached)
