"""What the notes of a .conf may say, and how they say that its layers are pruned."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tune_prune.common.entrypoints import is_handed_over
from tune_prune.common.errors import UserError
from tune_prune.hpo.parameters import PARAMETERS, RATIO, Check, Number
from tune_prune.results import trial_params
from tune_prune.results.conf import UNITS, Conf


def _check_text(value: object) -> str | None:
    return None if isinstance(value, str) else f"must be text, got {value!r}"


def _check_switch(value: object) -> str | None:
    return None if isinstance(value, bool) else f"must be true or false, got {value!r}"


NOTES: Mapping[str, Check] = {
    **PARAMETERS,
    **dict.fromkeys(("model", "data", "weights", "weights_hash"), _check_text),
    **dict.fromkeys(("scale_dropout", "reload", "allow_empty"), _check_switch),
    **dict.fromkeys(("seed", "trial"), Number(0, whole=True)),
    **dict.fromkeys(("round", "iterations", "cached_sample"), Number(1, whole=True)),
    **dict.fromkeys(("epochs", "l2", "acc_tradeoff"), Number(0)),
    "compression": Number(0, 1),
    "val_error": Number(0, 100),
    "test_error": Number(0, 100),
}
"""The notes that a replay reads, with their checks, beside `ratio/<layer>`, `pruner/<layer>` and `history`.

Values of other metrics, `val_<name>` and `test_<name>`, are any numbers.
"""

MEASURED = ("val_", "test_")
"""How the notes begin of what was measured by the metric."""


def check_values(notes: Mapping[str, Any], source: str, prefix: str = "") -> None:
    """Raises a `UserError` that names `source` and the note, after `prefix`, for the first value that cannot be."""
    for key, value in notes.items():
        check = NOTES.get(key)
        if key.startswith(trial_params.RATIO):
            check = RATIO
        elif key.startswith(trial_params.PRUNER):
            check = PARAMETERS["pruner"]
        elif key.startswith(MEASURED) and check is None:
            check = Number(-math.inf)
        try:
            fault = check(value) if check else None
        except UserError as error:  # of a registry, which does not know where the name stands
            raise UserError(f"{source}: {prefix}{key}: {error}") from error
        if fault:
            raise UserError(f"{source}: {prefix}{key} {fault}")


def read_noted(
    conf: Conf, source: str, names: Sequence[str] = UNITS, flags: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """Returns the notes of these names that a conf has, and what `flags` give of the others; None gives nothing.

    Raises a `UserError` that names `source` for a note that cannot be, and for a flag that contradicts one.
    """
    noted: dict[str, Any] = {name: conf.notes[name] for name in names if name in conf.notes}
    check_values(noted, source)
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    for name, value in given.items():
        if noted.get(name, value) != value:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{source}: its ratios are for {flag} {noted[name]}, not {value}; leave {flag} out")
    return noted | given


def choose_named(conf: Conf, source: str, flag: str, given: str | None, default: str) -> str:
    """Returns the model or data that its flag names, else the default.

    Raises a `UserError` where the conf notes another one than the default: nothing that a file names runs unasked.
    """
    noted = conf.notes.get(flag.removeprefix("--"), default)
    if given is not None or noted == default:
        return given or default
    if is_handed_over(noted):
        raise UserError(f"{source}: its {flag.removeprefix('--')} came from Python as an object; name it with {flag}")
    raise UserError(f"{source}: was made with {flag} {noted}, not {default}; give {flag}, this one or another")
