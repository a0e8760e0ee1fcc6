"""Begins and resumes runs: run.json and space.toml of a run directory keep what a search was begun with."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from tune_prune.common import files
from tune_prune.common.errors import HeldError, UserError, format_names
from tune_prune.common.flags import build, declared_settings, flatten
from tune_prune.common.parsing import parse_toml, read_json, read_text
from tune_prune.hpo import storage
from tune_prune.hpo.config import Config
from tune_prune.hpo.space import Space
from tune_prune.hpo.space_reader import locate
from tune_prune.hpo.space_reader import read as read_space
from tune_prune.tasks.metrics import ERROR, Metric
from tune_prune.tasks.settings import DISTILL_SHARE, TaskSettings

FORMAT = 3
"""The format of a run directory, in run.json. The first one had no number; no version goes on with another's."""

OLD_TABLES = ("finish", "prior", "guess", "economy")
"""Tables of spaces of the first format."""


def start_run(name: str, given: Mapping[str, Any]) -> tuple[Config, Space, str]:
    """Reads the settings and the space of a new search, and the text of the space's file.

    `given` are the settings that the user named. Otherwise the space decides the processes of a trial, the tradeoff,
    which is of its own metric, and the budget where no time is given: a search for an hour ends after an hour, however
    many trials that makes.
    """
    path = locate(name)
    return begin_search(read_space(path), read_text(path), given)


def begin_search(space: Space, text: str, given: Mapping[str, Any]) -> tuple[Config, Space, str]:
    """The same for a space that has been read from this text."""
    if "storage" in given:
        given = dict(given) | {"study": f"tune_prune-{space.name}-{uuid4().hex[:8]}"}
    budget = None if "time_budget" in given else space.budget
    tradeoff = space.acc_tradeoff if given.get("metric") in (None, space.settings.metric) else None
    values = {"budget": budget, "acc_tradeoff": tradeoff, "workers_per_trial": space.workers_per_trial}
    config = build(Config, values | dict(given))
    return config, _adapt_space(space, config), text


def new_run_dir(path: Path | None, space: str) -> Path:
    """Chooses where a new run writes: an absolute path that is not in use. Makes nothing yet."""
    if path is None:
        path = Path("runs") / f"{space}-{datetime.now():%Y%m%d-%H%M%S}"
    if re.match(r"\w+:/", str(path)):
        raise UserError(f"--run-dir {path}: an object store is not a file system; name a directory, on a mount of it")
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"--run-dir {str(path)!a}: its name is not UTF-8; name another") from error
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"--run-dir {path} exists already; name another, or go on with --resume {path}")
    files.check_writable(path, "--run-dir")
    return path.absolute()


def save_run(run_dir: Path, config: Config, space: Space, text: str, metric: Metric = ERROR) -> None:
    """Writes what a run is begun with: run.json, with its `metric` unless that is the error, and the text of its space.

    Raises `HeldError` where another process has begun a run there meanwhile.
    """
    if (run_dir / "run.json").exists():
        raise HeldError(f"{run_dir}: another process has begun a run there meanwhile; name another --run-dir")
    values = {"format": FORMAT, "space": space.name} | flatten(config)
    values = {key: value for key, value in values.items() if key not in declared_settings(TaskSettings)}
    values |= {"task": dict(config.task.given)} | ({} if metric == ERROR else {"metric": metric.to_dict()})
    # a storage URL may hold a password, which has no place in a file: where it does, it is given again with --resume
    values["storage"] = config.storage and storage.without_password(config.storage)
    files.write_text(run_dir / "space.toml", text)
    files.write_text(run_dir / "run.json", json.dumps(values, indent=1) + "\n")


def resume_run(run_dir: Path, given: Mapping[str, Any], barred: Mapping[str, object]) -> tuple[Config, Space]:
    """Reads what a run was begun with, and changes what may change: the budget, the time, and where it runs.

    `barred` are options that make no sense with `--resume`, with their values: None where they were not given. Raises
    `UserError` for these, for settings that define the search, for a run that is damaged or of another format, and
    where its directory leads elsewhere: another person may have made it. A file of the run chooses no cluster and no
    database, but for a file in its directory; these are given again.
    """
    settings = declared_settings(Config)
    named = [option for option, value in barred.items() if value is not None]
    named += [setting.option for name, setting in settings.items() if setting.flag.fixed_on_resume and name in given]
    if named:
        raise UserError(f"--resume goes on with the search as it was begun; leave out {format_names(named)}")
    files.check_contained(run_dir)
    raw = _read_run(run_dir)
    files.check_writable(run_dir, "--resume")
    try:
        name = str(raw.pop("space"))
        raw.pop("metric", None)  # for readers of the directory; the space names it
        task = dict(raw.pop("task", {}))
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in (raw | task).items()}
        for key, setting in settings.items():
            if not setting.flag.kept_on_resume:
                values.pop(key, None)
        _check_elsewhere(run_dir, values, given)
        config = build(Config, values | dict(given))
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(run_dir / "run.json", error) from error
    if config.storage and not config.study:
        raise UserError(f"--resume {run_dir}: its study is its own study.db; leave out --storage")
    return config, _adapt_space(replace(read_space(run_dir / "space.toml"), name=name), config)


def _check_elsewhere(run_dir: Path, kept: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raises a `UserError` where run.json names a cluster or a storage outside the run that is not `given` again."""
    address, url = kept.get("address"), kept.get("storage")
    if address and "address" not in given:
        advice = f"give --address {address} again, or --address local for this machine alone"
        raise UserError(f"--resume {run_dir}: it ran on a Ray cluster, which run.json does not choose; {advice}")
    if url and "storage" not in given and not storage.is_file_within(str(url), run_dir):
        where = storage.without_password(str(url))
        advice = f"give --storage {where} again, with its password if it has one"
        raise UserError(f"--resume {run_dir}: its study is not in it, and run.json does not choose where; {advice}")


def read_acc_tradeoff(run_dir: Path, space: Space) -> float | None:
    """Reads the tradeoff of a run, in its metric's unit; that of its space where run.json is missing or damaged."""
    try:
        return float(read_json(run_dir / "run.json")["acc_tradeoff"])
    except (OSError, ValueError, TypeError, KeyError):
        return space.acc_tradeoff


def _read_run(run_dir: Path) -> dict[str, Any]:
    """Reads run.json but for its format; a `UserError` where it is missing, damaged, or of another format."""
    path = run_dir / "run.json"
    if not path.is_file():
        raise UserError(f"--resume {run_dir}: no run was begun there ({path.name} is missing)")
    try:
        raw = read_json(path)
        if not isinstance(raw, dict):
            raise ValueError(f"must be an object, got {raw!r}")
    except ValueError as error:
        raise _damaged(path, error) from error
    written = raw.pop("format", None)
    if written != FORMAT:
        found = "names no format" if written is None else f"names format {written}"
        raise _of_another_version(run_dir, f"run.json {found}, and this version goes on with format {FORMAT}")
    old = _old_tables(run_dir / "space.toml")
    if old:
        raise _of_another_version(run_dir, f"space.toml has {format_names(f'[{name}]' for name in old)}")
    return raw


def _old_tables(path: Path) -> list[str]:
    """Lists the tables of a space's file that only the first format has; none where the file cannot be read."""
    try:
        raw = parse_toml(read_text(path))
    except (OSError, ValueError):
        return []
    return [name for name in OLD_TABLES if name in raw]


def _of_another_version(run_dir: Path, why: str) -> UserError:
    advice = "go on with the version that began it, or begin again with a new --run-dir"
    return UserError(f"--resume {run_dir}: another version of tune-prune began this run ({why}); {advice}")


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: damaged ({error}); begin again with a new --run-dir")


def _adapt_space(space: Space, config: Config) -> Space:
    """Replaces what the settings decide instead of the space: pruners, batches, task, and the share of refinement."""
    if config.refine is not None:
        space = replace(space, refine=replace(space.refine, share=config.refine))
    if config.batch_size is not None:
        space = replace(space, parameters={**space.parameters, "batch_size": config.batch_size})
    space = replace(space, settings=space.settings.override(config.task))
    if space.settings.distill and "distill" not in space.parameters:  # its share would be 0, and it would do nothing
        space = replace(space, parameters={**space.parameters, "distill": DISTILL_SHARE})
    return space.with_pruners(config.pruners) if config.pruners else space
