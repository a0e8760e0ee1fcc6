"""Records of what trials measured: one JSON file a trial, written whole by its worker before it reports."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tune_prune.common import files
from tune_prune.common.errors import UserError, format_names
from tune_prune.common.parsing import read_json
from tune_prune.common.typecheck import check_fields
from tune_prune.results.trial_params import TrialParams

FORMAT = 2
"""The format of a record, in its file; a record without a number has the first one."""

FINAL_STATES = ("complete", "stopped", "failed")
"""The states of a trial that has ended; until then its record says `running`."""

EXEMPT_PREFIX = "exempt: "
"""How the reason of a trial begins that would have been stopped early and went on."""


@dataclass(frozen=True)
class PointRecord:
    """A round: compression in [0, 1], validation metric and loss in nats, seconds of wall-clock.

    `ratios` are by layer label. Where layers share one ratio (mode "global"), `pooled` is the share removed of all
    their weights, else None. `costs` are by name (`constraints.py`); `within` says whether the limits on them are kept,
    `feasible` whether the limit on the metric is kept as well. `checkpoint` is the file, relative to the run directory,
    with the round's weights and masks, or None where they were not kept. `estimate` is of the error on unseen images
    (`estimates.py`), None where there is none: it follows from other trials, and is not in the file.
    """

    round: int
    compression: float
    factor: float
    val_metric: float
    val_loss: float
    feasible: bool
    seconds: float
    ratios: dict[str, float]
    checkpoint: str | None = None
    pooled: float | None = None
    costs: dict[str, float] = field(default_factory=dict)
    within: bool = True
    estimate: float | None = None

    @property
    def judged(self) -> float:
        """The metric by which points are compared: its estimate, where there is one."""
        return self.val_metric if self.estimate is None else self.estimate

    @property
    def reached(self) -> dict[str, float]:
        """The ratios as a plan states them, in which trials are compared: the pooled ratio where layers share one."""
        return self.ratios if self.pooled is None else dict.fromkeys(self.ratios, self.pooled)


@dataclass(frozen=True)
class TrialRecord:
    """A trial: `state` is running, complete, stopped or failed, `reason` why it stopped or failed.

    `pruners` are by layer label. `parent` and `parent_round` are the trial and the round whose weights and masks this
    one started from; `refines` is the trial whose ratios it has, where it refines another; `gradual` says that it is a
    round of gradual pruning. `seconds` are wall-clock;
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
    gradual: bool = False
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def kind(self) -> str:
        """ "refine" where it refines another trial, "gradual" where it is a round of that, else "explore"."""
        if self.gradual:
            return "gradual"
        return "explore" if self.refines is None else "refine"

    @property
    def last(self) -> PointRecord:
        """The point of the last round."""
        return self.points[-1]


def record_path(run_dir: Path, trial: int) -> Path:
    """The path of a trial's record."""
    return run_dir / "results" / f"{trial}.json"


def checkpoint_name(trial: int, round_: int) -> str:
    """The file of a round's weights and masks, relative to the run directory."""
    return f"rounds/{trial}-{round_}.safetensors"


def write(run_dir: Path, record: TrialRecord) -> None:
    """Writes a record, whole or not at all."""
    content = {"format": FORMAT} | asdict(record)
    for point in content["points"]:
        del point["estimate"]
    files.write_text(record_path(run_dir, record.trial), json.dumps(content, indent=1) + "\n")


def read(path: Path) -> TrialRecord:
    """Reads one record; raises a `UserError` that names the file where it is damaged, or of a newer version.

    A record is a file of the run directory, which another person may have made. It names no file but those that its
    own trial writes.
    """
    try:
        raw = read_json(path)
        newer = _find_newer(raw)
        if newer:
            advice = "go on with that version; nothing was changed"
            raise UserError(f"{path}: a newer version of tune-prune wrote this record ({newer}); {advice}")
        if raw.pop("format", 1) == 1:
            for point in raw["points"]:  # it named what it was judged by after the error
                point["val_metric"] = point.pop("val_error")
        points = [PointRecord(**point) for point in raw.pop("points")]
        params = TrialParams(**raw.pop("params"))
        record = TrialRecord(points=points, params=params, **raw)
        for part in (record, params, *points):
            check_fields(part)
        _check_names(record, path.stem)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: damaged trial record ({error}); delete it and its trial is run again") from error
    return record


def _find_newer(raw: dict[str, Any]) -> str:
    """Says by what a record is of a newer version: its format, or fields beside all those that this one needs."""
    written = raw.get("format", 1)
    if type(written) is int and written > FORMAT:
        return f"format {written}, and this one reads format {FORMAT}"
    kinds = [(TrialRecord, raw.keys() - {"format"}), *((PointRecord, point.keys()) for point in raw["points"])]
    for kind, names in kinds:
        unknown = names - {each.name for each in fields(kind)}
        if unknown and names >= {each.name for each in fields(kind) if each.default is each.default_factory is MISSING}:
            return f"it has {format_names(sorted(unknown))}"
    return ""


def _check_names(record: TrialRecord, stem: str) -> None:
    """Raises ValueError where a record is not of its file's trial, or names another trial or file than it may."""
    if str(record.trial) != stem or record.trial < 0:
        raise ValueError(f"it is of trial {record.trial}")
    if record.state not in ("running", *FINAL_STATES):
        raise ValueError(f"unknown state {record.state!r}")
    for name, earlier in {"parent": record.parent, "refines": record.refines}.items():
        if earlier is not None and not 0 <= earlier < record.trial:
            raise ValueError(f"{name} must be an earlier trial, got {earlier}")
    for point in record.points:
        expected = checkpoint_name(record.trial, point.round)
        if point.round < 1 or point.checkpoint not in (None, expected):
            raise ValueError(f"the checkpoint of round {point.round} must be {expected}, got {point.checkpoint}")


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
