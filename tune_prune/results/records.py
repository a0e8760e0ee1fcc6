"""Records of what trials measured: one JSON file a trial, written whole by its worker before it reports."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tune_prune.common import files
from tune_prune.common.errors import UserError
from tune_prune.common.parsing import read_json
from tune_prune.results.trial_params import TrialParams

FINAL_STATES = ("complete", "stopped", "failed")
"""The states of a trial that has ended; until then its record says `running`."""

EXEMPT_PREFIX = "exempt: "
"""How the reason of a trial begins that would have been stopped early and went on."""


@dataclass(frozen=True)
class PointRecord:
    """A round: compression in [0, 1], validation error in percent and loss in nats, seconds of wall-clock.

    `ratios` are by layer label. Where layers share one ratio (mode "global"), `pooled` is the share removed of all
    their weights, else None. `costs` are by name (`constraints.py`); `within` says whether the limits on them are kept,
    `feasible` whether the limit on the error is kept as well. `checkpoint` is the file, relative to the run directory,
    with the round's weights and masks, or None where they were not kept.
    """

    round: int
    compression: float
    factor: float
    val_error: float
    val_loss: float
    feasible: bool
    seconds: float
    ratios: dict[str, float]
    checkpoint: str | None = None
    pooled: float | None = None
    costs: dict[str, float] = field(default_factory=dict)
    within: bool = True

    @property
    def reached(self) -> dict[str, float]:
        """The ratios as a plan states them, in which trials are compared: the pooled ratio where layers share one."""
        return self.ratios if self.pooled is None else dict.fromkeys(self.ratios, self.pooled)


@dataclass(frozen=True)
class TrialRecord:
    """A trial: `state` is running, complete, stopped or failed, `reason` why it stopped or failed.

    `pruners` are by layer label. `parent` and `parent_round` are the trial and the round whose weights and masks this
    one started from; `refines` is the trial whose ratios it has, where it refines another. `seconds` are wall-clock;
    `cpu_seconds` of a worker's first trial include the start of the worker.
    """

    trial: int
    state: str
    params: TrialParams
    pruners: dict[str, str]
    points: list[PointRecord] = field(default_factory=list)
    reason: str = ""
    parent: int | None = None
    parent_round: int | None = None
    refines: int | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def kind(self) -> str:
        """ "refine" where it refines another trial, else "explore"."""
        return "explore" if self.refines is None else "refine"

    @property
    def last(self) -> PointRecord:
        """The point of the last round."""
        return self.points[-1]


def record_path(run_dir: Path, trial: int) -> Path:
    """The path of a trial's record."""
    return run_dir / "results" / f"{trial}.json"


def write(run_dir: Path, record: TrialRecord) -> None:
    """Writes a record, whole or not at all."""
    files.write_text(record_path(run_dir, record.trial), json.dumps(asdict(record), indent=1) + "\n")


def read(path: Path) -> TrialRecord:
    """Reads one record; raises a `UserError` that names the file where it is damaged."""
    try:
        raw = read_json(path)
        points = [PointRecord(**point) for point in raw.pop("points")]
        params = TrialParams(**raw.pop("params"))
        return TrialRecord(points=points, params=params, **raw)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: damaged trial record ({error}); delete it and its trial is run again") from error


def read_all(run_dir: Path) -> list[TrialRecord]:
    """Every record of a run directory, in the order of trials."""
    found = [read(path) for path in (run_dir / "results").glob("*.json")]
    return sorted(found, key=lambda record: record.trial)


def lineage(record: TrialRecord, by_trial: Mapping[int, TrialRecord]) -> list[tuple[TrialRecord, int]]:
    """The trials that a trial's weights came through before it, each with its last round there, the earliest first."""
    path: list[tuple[TrialRecord, int]] = []
    while record.parent is not None:
        parent = by_trial[record.parent]
        path.append((parent, record.parent_round or parent.last.round))
        record = parent
    return path[::-1]
