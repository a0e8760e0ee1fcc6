"""Chooses the data and settings by which a checkpoint is measured: what the user names, else what the file notes."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from tune_prune.common.entrypoints import is_address, is_handed_over
from tune_prune.common.errors import UserError, format_names
from tune_prune.pruning.checkpoint import read
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.settings import MEASURING, TaskSettings, read_settings
from tune_prune.tasks.splits import Data


def load_checkpoint_data(path: Path, data: str | None, given: TaskSettings, say: Callable[[str], None]) -> Data:
    """Loads the data to measure a checkpoint on: by `choose_data` and `choose_settings`; for `say` see `load_data`."""
    return load_data(choose_data(path, data), say, choose_settings(path, given), read(path).model)


def choose_data(path: Path, data: str | None) -> str:
    """Chooses the data to measure a checkpoint on: what the user named, else what the file names in its notes.

    Raises a `UserError` where the file names none and its model is not built in, and where what it names is code.
    """
    if data is not None:
        return data
    saved = read(path)
    named = saved.notes.get("data", None if is_address(saved.model) else "mnist")
    if not isinstance(named, str) or is_handed_over(named):
        raise UserError(f"{path}: does not say what data its model is for; name it: --data mnist, or an address")
    if is_address(named):
        raise UserError(f"{path}: its data is code, {named!r}; if you trust it, add --data {shlex.quote(named)}")
    return named


def choose_settings(path: Path, given: TaskSettings) -> TaskSettings:
    """Chooses what a checkpoint is measured by: what the user named, else what the file notes under `task`.

    Raises a `UserError` where a note makes no sense, and where it is code: the file may be a stranger's.
    """
    noted = read(path).notes.get("task", {})
    if isinstance(noted, Mapping):
        noted = {key: value for key, value in noted.items() if key in MEASURING}
    chosen = read_settings(noted, f"{path}: task.").override(given)
    code = {key: str(value) for key, value in chosen.given.items() if key not in given.given and is_address(str(value))}
    lost = [key for key, value in code.items() if is_handed_over(value)]
    if lost:
        flags = format_names([f"--{key}" for key in lost])
        raise UserError(f"{path}: its {format_names(lost)} came from Python as an object; name it with {flags}")
    if code:
        flags = " ".join(f"--{key} {shlex.quote(value)}" for key, value in code.items())
        raise UserError(f"{path}: its {format_names(code)} is code; if you trust it, add {flags}")
    return chosen
