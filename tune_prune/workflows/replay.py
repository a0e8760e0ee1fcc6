"""Replays a .conf: prunes and retrains as its comment lines say, and compares the result with what they state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tune_prune.common.entrypoints import is_address
from tune_prune.common.errors import UserError, format_names
from tune_prune.hpo.parameters import PARAMETERS
from tune_prune.hpo.warm_start import Stage, retrace
from tune_prune.pruning import checkpoint, criteria, masks, statistics_cache
from tune_prune.pruning.granularity import GROUPED
from tune_prune.pruning.iterative import State
from tune_prune.pruning.plan import Plan
from tune_prune.results import conf as conf_files
from tune_prune.results import trial_params
from tune_prune.results.conf import Conf, noted_path
from tune_prune.results.trial_params import TrialParams
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.further_metrics import measure_further
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.settings import TaskSettings, read_settings
from tune_prune.tasks.splits import Data
from tune_prune.tasks.task import prepare_task
from tune_prune.training.resources import limit_threads
from tune_prune.workflows.conf_notes import MEASURED, check_values
from tune_prune.workflows.prune import open_model, prune
from tune_prune.workflows.prune_target import PruneOptions


@dataclass(frozen=True)
class Comparison:
    """A number as the conf states it, None where it states none, and as the replay measured it."""

    name: str
    stated: float | None
    replayed: float

    @property
    def differs(self) -> bool:
        """Whether the conf states another number than this."""
        return self.stated is not None and self.stated != self.replayed

    def line(self) -> str:
        """One line for the user, marked where the numbers differ."""
        stated = "nothing" if self.stated is None else repr(self.stated)
        return f"{self.name}: stated {stated}, replayed {self.replayed!r}" + ("  <- differs" if self.differs else "")


def replay(
    conf: Conf,
    device: torch.device,
    path: Path,
    start: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Comparison]:
    """Prunes and retrains again as the conf at `path` says, and compares compression and metrics.

    `start` is the file with the weights that the conf was made from, where it is not the one that the conf notes.
    Raises a `UserError` where the conf does not note how it was made, where its notes make no sense, and where the
    weights are not those that it was made from.
    """
    source, notes = str(path), check_notes(conf, str(path))
    dense = _load_weights(notes, path, start)
    with limit_threads(1):  # as trials run by default: sums in another order can tip a weight or an image
        state = (
            _replay_trial(conf, notes, dense.model, device, source, say)
            if "trial" in notes
            else _replay_prune(conf, notes, dense.file, device, source)
        )
        data = _load_data(notes, source)
        metric = data.validation.objective.metric
        validation, test = data.validation.to(device), data.load_test().to(device)
        measured = {
            "compression": masks.compression(state.masks),
            metric.val: evaluate(state.model, validation).metric,
            **measure_further(state.model, validation, "val"),
            metric.test: evaluate(state.model, test).metric,
            **measure_further(state.model, test, "test"),
        }
    return [Comparison(name, notes.get(name), value) for name, value in measured.items()]


def check_notes(conf: Conf, source: str) -> dict[str, Any]:
    """Returns the notes of a conf that can be replayed.

    Raises a `UserError` that names `source` and the note where one is missing or cannot be what it says.
    """
    notes: dict[str, Any] = dict(conf.notes)
    check_values(notes, source)
    conf_files.check_named(conf, source)
    measures = [key for key in notes if key.startswith(MEASURED)] or ["val_error", "test_error"]
    needed = [("model",), ("data",), ("seed",), ("trial", "epochs"), ("compression", *measures)]
    needed += [("round",)] if "trial" in notes else []
    for names in needed:
        if not notes.keys() & set(names):
            made = "confs of a search or of prune do"
            raise UserError(f"{source}: cannot be replayed, it does not note its {' or '.join(names)}; {made}")
    history = notes.get("history", [])
    if not isinstance(history, list) or not all(isinstance(one, dict) for one in history):
        raise UserError(f"{source}: history must be a list of tables, got {history!r}")
    for number, one in enumerate(history):
        check_values(one, source, f"history[{number}].")
        if not {"trial", "round"} <= one.keys():
            raise UserError(f"{source}: history[{number}] must note trial and round, has {format_names(one)}")
    return notes


def _read_settings(notes: Mapping[str, Any], source: str) -> TaskSettings:
    return read_settings(notes.get("task", {}), f"{source}: task.")


def _load_data(notes: Mapping[str, Any], source: str) -> Data:
    return load_data(notes["data"], settings=_read_settings(notes, source), model=notes["model"])


@dataclass(frozen=True)
class _Start:
    """The model that a conf was made from, and the file of its weights, None where they come with the model."""

    model: nn.Module
    file: Path | None


def _load_weights(notes: Mapping[str, Any], path: Path, start: Path | None) -> _Start:
    """Loads the model that a conf was made from; `start` is a file of its weights that the user names.

    Raises a `UserError` where those weights are not known, not there, or others.
    """
    name, noted = notes["model"], notes.get("weights")
    file, advice = start, "give them with --checkpoint FILE"
    if file is None and noted is not None:
        file = noted_path(noted, path)
        if not file.is_file():
            raise UserError(f"{path}: its weights are not there: {file}; {advice}")
    if file is None and "weights_hash" not in notes and is_address(name):
        raise UserError(f"{path}: does not note the weights of {name!r} that it was made from; {advice}")
    if "trial" in notes:
        model = checkpoint.load_dense_model(name, None if file is None else str(file), f"{path}: ")
        mask = masks.dense_masks(model)
    else:
        model, mask = open_model(name, file)
    if notes.get("weights_hash") not in (None, checkpoint.hash_weights(model, mask)):
        found = f"{file} holds other weights" if file else f"the weights of {name!r} are others"
        raise UserError(f"{path}: {found} than those that it was made from; {advice}")
    return _Start(model, file)


def _replay_prune(conf: Conf, notes: Mapping[str, Any], start: Path | None, device: torch.device, source: str) -> State:
    """Prunes as `tune-prune prune` did."""
    options = PruneOptions(**{f.name: notes[f.name] for f in fields(PruneOptions) if f.name in notes})
    target = Conf({label: notes.get(f"ratio/{label}", ratio) for label, ratio in conf.ratios.items()}, conf.pruners)
    state, _, steps = prune(notes["model"], start, _load_data(notes, source), target, options, device, source)
    for _ in steps:
        pass
    return state


def _replay_trial(
    conf: Conf,
    notes: Mapping[str, Any],
    dense: nn.Module,
    device: torch.device,
    source: str,
    say: Callable[[str], None],
) -> State:
    """Prunes and retrains as a trial did up to the conf's round, after the earlier trials that it started from."""
    own: dict[str, Any] = {f"{trial_params.RATIO}{label}": ratio for label, ratio in conf.ratios.items()}
    own |= notes
    own |= {f"{trial_params.PRUNER}{label}": name for label, name in (conf.pruners or {}).items()}
    stages = [_read_stage(one, dense, source) for one in [*notes.get("history", []), own]]
    settings = _read_settings(notes, source)
    task, _ = prepare_task(notes["model"], dense, notes["data"], device, settings=settings)
    task = task.to(device)
    # the search measured its cached statistics once, for all of its trials
    images = notes.get("cached_sample", notes.get("sample", Plan.sample))
    cached: dict[str, dict[str, Tensor]] = {}
    for stage in stages:
        names = sorted(criteria.required_statistics(stage.params.to_plan().pruners.values()))
        cached |= statistics_cache.measure_dense(names, task.dense_model(device), task.train, images, say)
    return retrace(task, stages, notes["seed"], device, cached)


def _read_stage(notes: Mapping[str, Any], model: nn.Module, source: str) -> Stage:
    """Reads the trial, the round and the parameters of a stage; a `UserError` where they fit no model or no plan."""
    by_layer = (trial_params.RATIO, trial_params.PRUNER)
    params = TrialParams.from_columns(
        {key: value for key, value in notes.items() if key in PARAMETERS or key.startswith(by_layer)}
    )
    try:
        plan = params.to_plan()
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error
    if plan.granularity not in GROUPED:
        masks.require_layers(model, params.ratios, source)
    for label, pruner in plan.pruners.items():
        if pruner is None:
            raise UserError(f"{source}: names no pruner for layer {label}; line 3 holds one for each layer")
    return Stage(notes["trial"], notes["round"], params)
