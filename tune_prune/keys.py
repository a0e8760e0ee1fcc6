"""What `[space]` may hold beside the ratios, and what its values must be."""

from collections.abc import Mapping

from tune_prune.common.errors import format_names
from tune_prune.knobs import Check, Number
from tune_prune.pruning.criteria import find_criterion
from tune_prune.pruning.granularity import granularities
from tune_prune.pruning.plan import MODES, schedules

RATIO = Number(0, 1, open_high=True)


def pruner(value: object) -> str | None:
    """Whether there is such a pruner: what is wrong with it, or None."""
    find_criterion(str(value))  # raises a UserError that lists what there is
    return None


def _schedule(value: object) -> str | None:
    schedules[str(value)]
    return None


def _granularity(value: object) -> str | None:
    granularities[str(value)]
    return None


def _mode(value: object) -> str | None:
    return None if value in MODES else f"must be one of {format_names(MODES)}, got {value!r}"


KNOBS: Mapping[str, Check] = {
    "pruner": pruner,
    "schedule": _schedule,
    "rounds": Number(1, whole=True),
    "steps": Number(0, whole=True),
    "final_steps": Number(0, whole=True),
    "lr": Number(0),
    "momentum": Number(0, 1, open_high=True),
    "weight_decay": Number(0),
    "l1": Number(0),
    "batch_size": Number(1, whole=True),
    "distill": Number(0, 1),
    "temperature": Number(0.01),
    "sample": Number(1, whole=True),
    "mode": _mode,
    "granularity": _granularity,
}
"""What `[space]` may hold beside the ratios: the fields of `plan.Plan`, and the pruner."""

SCOPES = ("model", "layer")
"""Whether a trial takes one pruner for the whole model, or one for each layer."""
