"""What a trial measured: one JSON file a trial, written whole by its worker before it reports."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tune_prune.common import files
from tune_prune.common.errors import UserError

FINAL_STATES = ("complete", "stopped", "failed")
"""The states of a trial that has ended; until then its record says `running`."""

EXEMPT_PREFIX = "let through: "
"""How the reason of a trial begins that was to be stopped and went on."""


@dataclass(frozen=True)
class PointRecord:
    """A round: compression in [0, 1], validation error in percent and loss in nats, seconds of wall-clock.

    `ratios` are by layer label; `pooled` is the share removed of all weights in those layers where they are pruned as
    one (mode "global"), else None; `costs` are by name (`limits.py`), `within` says whether limits on them are kept,
    and `feasible` whether that on the error is, too; `checkpoint` is the file, relative to the run directory, that
    holds the round's weights and masks, or None where they were not kept.
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
        """The ratios in the plan's terms, in which trials are compared: where layers are pruned as one, of all."""
        return self.ratios if self.pooled is None else dict.fromkeys(self.ratios, self.pooled)


@dataclass(frozen=True)
class TrialRecord:
    """A trial: `state` is running, complete, stopped or failed, `reason` why it stopped or failed.

    `params` are flat, as trials.csv names them (`ratio/8`, `pruner`, `rounds`, `lr`, ...); `pruners` by layer label.
    `parent` and `parent_round` are the trial and the round whose weights and masks this one went on from; `finishes` is
    the trial whose ratios it has, where it finishes another. `cpu_seconds` of a worker's first trial are also what the
    worker took to start.
    """

    trial: int
    state: str
    params: dict[str, object]
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
        """ "finish" where it finishes another trial, else "explore"."""
        return "explore" if self.refines is None else "refine"

    @property
    def last(self) -> PointRecord:
        """The last round's point."""
        return self.points[-1]


def record_path(run_dir: Path, trial: int) -> Path:
    """Where a trial's record is."""
    return run_dir / "results" / f"{trial}.json"


def write(run_dir: Path, record: TrialRecord) -> None:
    """Write a record, whole or not at all."""
    files.write_text(record_path(run_dir, record.trial), json.dumps(asdict(record), indent=1) + "\n")


def read(path: Path) -> TrialRecord:
    """Read one record; a damaged file is a `UserError` that names it."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        points = [PointRecord(**point) for point in raw.pop("points")]
        return TrialRecord(points=points, **raw)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: damaged trial record ({error}); delete it and its trial is run again") from error


def read_all(run_dir: Path) -> list[TrialRecord]:
    """Every record of a run directory, in the order of trials."""
    found = [read(path) for path in (run_dir / "results").glob("*.json")]
    return sorted(found, key=lambda record: record.trial)


def lineage(record: TrialRecord, by_trial: Mapping[int, TrialRecord]) -> list[tuple[TrialRecord, int]]:
    """The trials, and the rounds of theirs, that a trial's weights came through before it, the earliest first."""
    path: list[tuple[TrialRecord, int]] = []
    while record.parent is not None:
        parent = by_trial[record.parent]
        path.append((parent, record.parent_round or parent.last.round))
        record = parent
    return path[::-1]
