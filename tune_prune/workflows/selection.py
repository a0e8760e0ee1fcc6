"""Selects the front of a search that has ended, by the estimates of its points' errors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tune_prune.hpo.budget import SearchEnd
from tune_prune.results import records
from tune_prune.results.estimates import estimate_all
from tune_prune.results.front import Member, find_front
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.results.run_info import RunInfo


@dataclass(frozen=True)
class SelectedFront:
    """What a search has measured, with estimates, and the front of it, ascending in compression."""

    records: Sequence[TrialRecord]
    members: Sequence[Member]


def select_front(run_dir: Path, info: RunInfo, end: SearchEnd, failure: str = "") -> SelectedFront:
    """Reads the records of a search that has ended, and selects its front.

    A trial that was running then counts as stopped, because of the search's end or `failure`; its record on disk stays
    as it is. Of points whose checkpoints are not there any more, only those are selected that have to be there: those
    that are on the front as they were measured.
    """
    reason = failure or ("cut off" if end is SearchEnd.BUDGET else end.value)
    found = [
        record if record.state in records.FINAL_STATES else replace(record, state="stopped", reason=reason)
        for record in records.read_all(run_dir)
    ]
    measured = {member.point.checkpoint for member in find_front(found, info.limits)}

    def is_kept(point: PointRecord) -> bool:
        return point.checkpoint in measured or (run_dir / str(point.checkpoint)).is_file()

    estimated = estimate_all(found, info.limits, info.samples)
    return SelectedFront(estimated, find_front(estimated, info.limits, is_kept))
