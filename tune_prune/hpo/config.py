"""The settings of a search: each field declares its flag of the command line, and nothing else has to name it.

Imports no large library: `tune-prune --help` reads the declarations.
"""

import math
import re
from dataclasses import dataclass, field
from importlib.util import find_spec

from tune_prune.common.errors import UserError
from tune_prune.common.flags import check_settings, flag
from tune_prune.results.forecast import check_foresight
from tune_prune.tasks.settings import TASK, TaskSettings
from tune_prune.training.resources import MACHINE, Resources

SAMPLERS = ("tpe", "nsga2", "gp", "random")

SEARCHED = "What is searched, and for how long"
ENDED = "Once the search has ended"
FILES = "Files and screen"
PANELS = (SEARCHED, TASK, ENDED, FILES, MACHINE)
"""The groups of flags, in the order in which `--help` shows them."""


def parse_duration(text: str, option: str = "--time-budget") -> float:
    """Reads the seconds of a duration such as `90`, `90s`, `15m` or `1h30m`."""
    number = r"(\d+(?:\.\d+)?)"
    match = re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s?)?", text.strip())
    parts = zip(match.groups(), (3600, 60, 1), strict=True) if match else ()
    seconds = sum(float(part or 0) * unit for part, unit in parts)
    if seconds <= 0:
        raise UserError(f"{option} must be a duration such as 90s, 15m or 1h30m, got {text!r}")
    return seconds


def parse_share(text: str, option: str) -> float:
    """Reads a share such as `1%` or `0.01`."""
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        return float(number) / (100 if percent else 1)
    except ValueError as error:
        raise UserError(f"{option} must be a share such as 1% or 0.01, got {text!r}") from error


def split_names(text: str, option: str) -> tuple[str, ...]:
    """Splits names at commas."""
    return tuple(text.split(","))


def _are_names(value: tuple[str, ...]) -> bool:
    return all(isinstance(name, str) for name in value)


@dataclass(frozen=True, kw_only=True)
class Config:
    """How to search. Raises `UserError` where a value is out of bounds.

    `budget` in trials and `time_budget` in seconds, of which at least one is given; `stop_when` the least gain of
    hypervolume, as a share of it, for which as much training again is worth it; `acc_tradeoff` in the unit of the
    metric, of errors in percentage points, None for the metric's default; `refine` the share of the trials that refine
    others, None where the space decides. `confirm` is how many other seeds the front is repeated from, `refit` whether
    it is trained on all but test images, `certify` the confidence with which its members are tested against the
    tradeoff. A trial is given up after `trial_timeout` seconds, a search once more than
    `max_failures` of its trials have failed. `study` is its name in `storage`, which no other run has. `logger` are
    names that `distributed.loggers` checks. `task` and `batch_size` replace what the space says; None leaves it.
    """

    budget: int | None = field(
        metadata=flag(
            "Trials to finish.  [default: the space's]", SEARCHED, check=lambda n: n >= 1, rule="at least 1 trial"
        )
    )
    time_budget: float | None = field(
        default=None,
        metadata=flag(
            "End after this long: 90s, 15m, 1h30m; without --budget, not before.",
            SEARCHED,
            parse=parse_duration,
            kept_on_resume=False,
        ),
    )
    stop_when: float | None = field(
        default=None,
        metadata=flag(
            "End once as much training again is expected to gain less hypervolume than this: 1%.",
            SEARCHED,
            parse=parse_share,
            check=lambda share: 0 < share < 1,
            rule="above 0 and below 1, or a percentage such as 1%",
        ),
    )
    acc_tradeoff: float | None = field(
        default=None,
        metadata=flag(
            "Points of error, or of another metric, to give up.  [default: the space's]",
            SEARCHED,
            check=lambda tradeoff: 0 <= tradeoff < math.inf,
            rule="a number from 0, of errors at most 100 points",
            fixed_on_resume=True,
        ),
    )
    refine: float | None = field(
        default=None,
        metadata=flag(
            "Share of the trials that train what looks best on.  [default: the space's]",
            SEARCHED,
            check=lambda share: 0 <= share <= 0.9,
            rule="between 0 and 0.9 of the trials",
            fixed_on_resume=True,
        ),
    )
    pruners: tuple[str, ...] | None = field(
        default=None,
        metadata=flag(
            "Pruners to choose from: mag,taylor1,...",
            SEARCHED,
            parse=split_names,
            check=_are_names,
            rule="a list of names",
            fixed_on_resume=True,
        ),
    )
    sampler: str = field(
        default="tpe",
        metadata=flag(
            "tpe, nsga2, gp or random.  [default: tpe]",
            SEARCHED,
            choices=lambda: SAMPLERS,
            fixed_on_resume=True,
        ),
    )
    force: bool = field(
        default=False,
        metadata=flag("Go on with a model that is no better than chance.", SEARCHED),
    )
    batch_size: int | None = field(
        default=None,
        metadata=flag(
            "Training samples in a batch.  [default: the space's]",
            SEARCHED,
            check=lambda size: size >= 1,
            rule="at least 1 sample",
            fixed_on_resume=True,
        ),
    )
    latency_on: str | None = field(
        default=None,
        metadata=flag(
            "Latency table of another device, by `tune-prune latency`.  [default: measured here]",
            SEARCHED,
            fixed_on_resume=True,
        ),
    )
    task: TaskSettings = field(default_factory=TaskSettings)
    seed: int = field(
        default=0,
        metadata=flag(
            "[default: 0]",
            SEARCHED,
            check=lambda seed: 0 <= seed < 2**32,
            rule="between 0 and 4294967295",
            fixed_on_resume=True,
        ),
    )
    confirm: int = field(
        default=0,
        metadata=flag(
            "Afterwards, retrain what was found from so many other seeds.",
            ENDED,
            check=lambda seeds: seeds == 0 or seeds >= 2,
            rule="at least 2: one has no spread",
        ),
    )
    refit: bool = field(
        default=False, metadata=flag("Afterwards, train what was found on validation images too.", ENDED)
    )
    certify: float | None = field(
        default=None,
        metadata=flag(
            "Test on unseen data, with this confidence, that what was found keeps the tradeoff: 0.95.",
            ENDED,
            check=lambda level: 0.5 < level < 1,
            rule="above 0.5 and below 1",
        ),
    )
    resources: Resources = field(default_factory=Resources)
    storage: str | None = field(
        default=None, metadata=flag("URL of the study.  [default: the run's study.db]", MACHINE)
    )
    study: str | None = None
    trial_timeout: float | None = field(
        default=None,
        metadata=flag(
            "Give up a trial that takes longer: 90s, 15m, 1h30m.  [default: never]", MACHINE, parse=parse_duration
        ),
    )
    max_failures: float = field(
        default=0.5,
        metadata=flag(
            "End once more than this share of the trials has failed.  [default: 0.5]",
            MACHINE,
            check=lambda share: 0 <= share <= 1,
            rule="between 0 and 1 of the trials",
        ),
    )
    logger: tuple[str, ...] = field(
        default=(),
        metadata=flag(
            "Also write to tensorboard, mlflow, wandb.",
            FILES,
            parse=split_names,
            check=_are_names,
            rule="a list of names",
        ),
    )
    dashboard: bool = field(
        default=False, metadata=flag("Serve Optuna's dashboard meanwhile.", FILES, kept_on_resume=False)
    )

    def __post_init__(self) -> None:
        if self.budget is None and self.time_budget is None:
            raise UserError("give --budget or --time-budget: nothing else says when this search ends")
        check_settings(self)
        if self.stop_when is not None and self.budget is not None:
            check_foresight(self.budget, f"a --budget of {self.budget} trials")
        if self.sampler == "gp" and find_spec("scipy") is None:
            raise UserError("--sampler gp needs scipy, which is not installed; pip install scipy, or choose tpe")
        if self.certify is not None and find_spec("scipy") is None:
            raise UserError("--certify needs scipy, which is not installed: pip install 'tune-prune[certify]'")
