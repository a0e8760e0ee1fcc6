"""The settings of a run, checked before anything starts, and kept in the run directory for `--resume`."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from tune_prune.common import files
from tune_prune.common.errors import UserError, format_names
from tune_prune.hpo import storage
from tune_prune.hpo.space import Space
from tune_prune.hpo.space_reader import locate
from tune_prune.hpo.space_reader import read as read_space

SAMPLERS = ("tpe", "nsga2", "gp", "random")


@dataclass(frozen=True)
class Config:
    """How to search: everything `tune-prune search` is told beside the space. Raises `UserError` out of bounds.

    `budget` in trials and `time_budget` in seconds, of which at least one is given; `acc_tradeoff` in percentage
    points; `finish` the share of the trials that finish others. None means that the machine or the space decides.
    `confirm` is how many other seeds the front is repeated from, `refit` whether it is trained on all but test images.
    A trial is given up after `trial_timeout` seconds, a search once more than `max_failures` of its trials have failed.
    `study` is its name in `storage`, which no other run has. `logger` are names of `loggers.py`, checked there.
    """

    budget: int | None
    acc_tradeoff: float
    refine: float | None = None
    confirm: int = 0
    refit: bool = False
    pruners: tuple[str, ...] | None = None
    sampler: str = "tpe"
    seed: int = 0
    time_budget: float | None = None
    device: str = "auto"
    cpus_per_trial: float = 1.0
    gpus_per_trial: float | None = None
    max_concurrent: int | None = None
    trial_timeout: float | None = None
    max_failures: float = 0.5
    address: str | None = None
    storage: str | None = None
    study: str | None = None
    logger: tuple[str, ...] = ()
    dashboard: bool = False

    def __post_init__(self) -> None:
        if self.budget is None and self.time_budget is None:
            raise UserError("give --budget or --time-budget: nothing else says when this search ends")
        _require(self.budget is None or self.budget >= 1, "--budget", "at least 1 trial", self.budget)
        _require(0 <= (self.refine or 0) <= 0.9, "--refine", "between 0 and 0.9 of the trials", self.refine)
        _require(self.confirm == 0 or self.confirm >= 2, "--confirm", "at least 2: one has no spread", self.confirm)
        _require(0 <= self.acc_tradeoff <= 100, "--acc-tradeoff", "between 0 and 100 points", self.acc_tradeoff)
        _require(self.sampler in SAMPLERS, "--sampler", f"one of {format_names(SAMPLERS)}", self.sampler)
        _require(0 <= self.seed < 2**32, "--seed", "between 0 and 4294967295", self.seed)
        _require(self.device in ("auto", "cpu", "cuda"), "--device", "one of auto, cpu, cuda", self.device)
        _require(0 <= self.max_failures <= 1, "--max-failures", "between 0 and 1 of the trials", self.max_failures)
        _require(self.cpus_per_trial > 0, "--cpus-per-trial", "above 0", self.cpus_per_trial)
        _require((self.gpus_per_trial or 0) >= 0, "--gpus-per-trial", "at least 0", self.gpus_per_trial)
        if self.sampler == "gp" and find_spec("scipy") is None:
            raise UserError("--sampler gp needs scipy, which is not installed; pip install scipy, or choose tpe")
        concurrent = self.max_concurrent is None or self.max_concurrent >= 1
        _require(concurrent, "--max-concurrent", "at least 1", self.max_concurrent)
        if self.address:  # its processors are on other machines
            self._check_share()
        else:
            self._check_cpus(os.cpu_count() or 1)
            self._check_gpus(torch.cuda.device_count())

    def _check_share(self) -> None:
        if self.device == "cuda" and self.gpus_per_trial is None and not torch.cuda.is_available():
            raise UserError("--device cuda: no GPU here to measure what a trial needs; give --gpus-per-trial as well")

    def _check_cpus(self, there: int) -> None:
        if self.cpus_per_trial > there:
            raise UserError(f"--cpus-per-trial {self.cpus_per_trial:g}: this machine has {there}; ask for at most that")

    def _check_gpus(self, there: int) -> None:
        if self.device == "cuda" and not there:
            raise UserError("--device cuda: this machine has no GPU that torch can use; use --device cpu or auto")
        if (self.gpus_per_trial or 0) > there:
            raise UserError(f"--gpus-per-trial {self.gpus_per_trial:g}: this machine has {there}; ask for at most that")
        if self.device == "cpu" and self.gpus_per_trial:
            raise UserError(f"--gpus-per-trial {self.gpus_per_trial:g} with --device cpu; leave one of them out")

    @property
    def torch_device(self) -> str:
        """The device that trials run on: `cpu` or `cuda`."""
        if self.device != "auto":
            return self.device
        wanted = torch.cuda.is_available() if self.gpus_per_trial is None else self.gpus_per_trial > 0
        return "cuda" if wanted else "cpu"

    @property
    def own_device(self) -> str:
        """The device of this process, which measures the dense model; on a cluster, trials may have others."""
        return self.torch_device if torch.cuda.is_available() else "cpu"

    @property
    def gpu_share(self) -> float:
        """GPUs a trial takes: as the user said; a quarter until what it needs is measured."""
        if self.torch_device == "cpu":
            return 0.0
        return 0.25 if self.gpus_per_trial is None else self.gpus_per_trial


def _require(holds: bool, flag: str, rule: str, value: object) -> None:
    if not holds:
        raise UserError(f"{flag} must be {rule}, got {value}")


def parse_duration(text: str, flag: str = "--time-budget") -> float:
    """Seconds of a duration such as `90`, `90s`, `15m` or `1h30m`."""
    number = r"(\d+(?:\.\d+)?)"
    match = re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s?)?", text.strip())
    parts = zip(match.groups(), (3600, 60, 1), strict=True) if match else ()
    seconds = sum(float(part or 0) * unit for part, unit in parts)
    if seconds <= 0:
        raise UserError(f"{flag} must be a duration such as 90s, 15m or 1h30m, got {text!r}")
    return seconds


FIXED_ON_RESUME = {
    "acc_tradeoff": "--acc-tradeoff",
    "refine": "--refine",
    "pruners": "--pruners",
    "sampler": "--sampler",
    "seed": "--seed",
}
"""What defines a search, and so stays as it was begun when it is resumed."""


def start_run(name: str, given: Mapping[str, Any]) -> tuple[Config, Space, str]:
    """The settings and the space of a new search, and the text of the space's file.

    `given` are the fields of `Config` that the user named; the space decides the tradeoff otherwise, and the budget
    where no time is given: a search for an hour ends after an hour, however many trials that makes.
    """
    path = locate(name)
    space = read_space(path)
    if "storage" in given:
        given = dict(given) | {"study": f"tune_prune-{space.name}-{uuid4().hex[:8]}"}
    budget = None if "time_budget" in given else space.budget
    config = Config(**{"budget": budget, "acc_tradeoff": space.acc_tradeoff} | dict(given))
    return config, _fitted(space, config), path.read_text(encoding="utf-8")


def new_run_dir(path: Path | None, space: str) -> Path:
    """Where a new run writes: an absolute path that is not in use. Nothing is made yet."""
    if path is None:
        path = Path("runs") / f"{space}-{datetime.now():%Y%m%d-%H%M%S}"
    if re.match(r"\w+:/", str(path)):
        raise UserError(f"--run-dir {path}: an object store is not a file system; name a directory, on a mount of it")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"--run-dir {path} exists already; name another, or go on with --resume {path}")
    return path.absolute()


def save_run(run_dir: Path, config: Config, space: Space, text: str) -> None:
    """Keep what a run was begun with: `run.json` and the text of its space."""
    # a storage URL may hold a password, which has no place in a file: where it does, it is given again with --resume
    kept = (
        {"space": space.name}
        | asdict(config)
        | {"storage": config.storage and storage.without_password(config.storage)}
    )
    files.write_text(run_dir / "space.toml", text)
    files.write_text(run_dir / "run.json", json.dumps(kept, indent=1) + "\n")


def resume_run(run_dir: Path, given: Mapping[str, Any], barred: Mapping[str, object]) -> tuple[Config, Space]:
    """What a run was begun with, and what may change: the budget, the time, and where it runs.

    `barred` are flags that make no sense with `--resume`, with their values: None where they were not given.
    """
    named = [flag for flag, value in barred.items() if value is not None]
    named += [flag for field, flag in FIXED_ON_RESUME.items() if field in given]
    if named:
        raise UserError(f"--resume goes on with the search as it was begun; leave out {format_names(named)}")
    path = run_dir / "run.json"
    if not path.is_file():
        raise UserError(f"--resume {run_dir}: no run was begun there ({path.name} is missing)")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        name = str(raw.pop("space"))
        # a time budget was that process's; the resumed one has its own or none
        raw |= {"pruners": tuple(raw["pruners"]) if raw["pruners"] else None, "logger": tuple(raw.get("logger", ()))}
        raw |= {"time_budget": None, "dashboard": False, **given}
        config = Config(**raw)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: damaged ({error}); begin again with a new --run-dir") from error
    if config.storage and not config.study:
        raise UserError(f"--resume {run_dir}: its study is its own study.db; leave out --storage")
    return config, _fitted(replace(read_space(run_dir / "space.toml"), name=name), config)


def _fitted(space: Space, config: Config) -> Space:
    """A space with what the settings say instead: its pruners, and how much finishes."""
    if config.refine is not None:
        space = replace(space, refine=replace(space.refine, share=config.refine))
    return space.with_pruners(config.pruners) if config.pruners else space
