"""Run a .conf again as its own comment lines say, and compare what comes out with what they state."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tune_prune.common.errors import UserError
from tune_prune.hpo.parameters import PARAMETERS
from tune_prune.hpo.space import to_plan
from tune_prune.hpo.warm_start import Stage, retrace
from tune_prune.pruning import criteria, masks, statistics_cache
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.pruning.iterative import State
from tune_prune.pruning.plan import Plan
from tune_prune.results.conf import Conf
from tune_prune.tasks import task
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.metrics import evaluate
from tune_prune.training.resources import one_thread
from tune_prune.workflows.prune import PruneOptions, prune

MEASURES = ("compression", "val_error", "test_error")


@dataclass(frozen=True)
class Comparison:
    """A number as the conf states it, None where it does not, and as it came out now."""

    name: str
    stated: float | None
    replayed: float

    @property
    def same(self) -> bool:
        """Whether the conf states this very number."""
        return self.stated == self.replayed

    def line(self) -> str:
        """What to say of it."""
        stated = "nothing" if self.stated is None else repr(self.stated)
        return f"{self.name}: stated {stated}, replayed {self.replayed!r}" + ("" if self.same else "  <- differs")


def replay(found: Conf, device: torch.device, source: str) -> list[Comparison]:
    """Prune and retrain again; errors in percent. A `UserError` where the conf does not say how it was made."""
    notes: dict[str, Any] = dict(found.notes)
    missing = [name for name in ("model", "data", "seed") if name not in notes]
    if missing or not ({"trial", "epochs"} & notes.keys()):
        what = missing[0] if missing else "trial or epochs"
        raise UserError(f"{source}: cannot be replayed, it does not note its {what}; confs of a search or of prune do")
    with one_thread():  # as trials run by default: sums in another order can tip a weight or an image
        state = (
            _replay_trial(found, notes, device, source)
            if "trial" in notes
            else _replay_prune(found, notes, device, source)
        )
        data = load_data(notes["data"])
        now = {
            "compression": masks.compression(state.masks),
            "val_error": evaluate(state.model, data.validation.to(device)).error,
            "test_error": evaluate(state.model, data.load_test().to(device)).error,
        }
    return [Comparison(name, notes.get(name), now[name]) for name in MEASURES]


def _replay_prune(found: Conf, notes: Mapping[str, Any], device: torch.device, source: str) -> State:
    """What `tune-prune prune` did."""
    settings = PruneOptions(**{f.name: notes[f.name] for f in fields(PruneOptions) if f.name in notes})
    start = Path(notes["start"]) if "start" in notes else None
    wanted = Conf({label: notes.get(f"ratio/{label}", ratio) for label, ratio in found.ratios.items()}, found.pruners)
    state, _, points = prune(notes["model"], start, load_data(notes["data"]), wanted, settings, device, source)
    for _ in points:
        pass
    return state


def _replay_trial(found: Conf, notes: Mapping[str, Any], device: torch.device, source: str) -> State:
    """What a trial of a search did up to the round of the conf, the trials that it went on from first."""
    name = notes["model"]
    made, _ = task.prepare_task(name, load_dense_model(name, None, source), notes["data"], device)
    made = made.to(device)
    params: dict[str, Any] = {key: value for key, value in notes.items() if key in PARAMETERS}
    params |= {f"ratio/{label}": notes.get(f"ratio/{label}", ratio) for label, ratio in found.ratios.items()}
    params |= {f"pruner/{label}": name for label, name in (found.pruners or {}).items()}
    whole = [*notes.get("history", []), params | {"trial": notes["trial"], "round": notes["round"]}]
    stages = [Stage(stage["trial"], stage["round"], stage) for stage in whole]
    known: dict[str, dict[str, Tensor]] = {}
    for stage in stages:
        names = sorted(criteria.required_statistics(to_plan(stage.params).pruners.values()))
        known |= statistics_cache.measure_dense(names, made.dense_model(device), made.train, Plan.sample)
    return retrace(made, stages, notes["seed"], device, known)
