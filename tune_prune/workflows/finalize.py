"""The end of a search: the front meets the test images, once, and every file of the run directory is written.

What is done with a front once it is chosen, where it is asked for: confirmed from other seeds, and refitted.

Which layer stands most in the way, where no point keeps the tradeoff.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from tune_prune.distributed.parallel import worker_pool
from tune_prune.hpo.config import Config
from tune_prune.hpo.space import Space, to_plan
from tune_prune.pruning import checkpoint, criteria, masks, sensitivity, statistics_cache
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.sensitivity import SensitivityJob, SensitivityResult
from tune_prune.results import pareto_plot, records, writer
from tune_prune.results.confidence import Confirmation, wilson_interval
from tune_prune.results.constraints import Constraints
from tune_prune.results.front import Member, TestResult, find_closest, find_front, most_compressed
from tune_prune.results.records import TrialRecord
from tune_prune.results.report import html
from tune_prune.results.run_info import RunInfo
from tune_prune.results.summary import summarize
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.models import to_device
from tune_prune.tasks.splits import Split
from tune_prune.tasks.task import Task
from tune_prune.workflows.confirm import confirm_front
from tune_prune.workflows.console import SearchConsole
from tune_prune.workflows.preparation import Prepared, cached_statistics
from tune_prune.workflows.refit import refit_front


@dataclass(frozen=True)
class Ending:
    """How a search ended: why before its budget, or nothing; what it cost; what was done with its front since.

    Seconds are wall-clock, and CPU of this process, workers not counted. `confirmed` and `refitted` are by member id:
    what repetitions measured, and files of refitted weights relative to the run directory.
    """

    reason: str
    wall_seconds: float
    cpu_seconds: float
    confirmed: Mapping[str, Confirmation] = field(default_factory=dict)
    refitted: Mapping[str, str] = field(default_factory=dict)


def select_front(run_dir: Path, reason: str, limits: Constraints) -> tuple[list[TrialRecord], list[Member]]:
    """What a search that ended for this reason has measured, and its front."""
    found = [_close_record(record, reason) for record in records.read_all(run_dir)]
    return found, find_front(found, limits)


def write_results(
    run_dir: Path, task: Task, info: RunInfo, load_test: Callable[[], Split], console: SearchConsole, ending: Ending
) -> int:
    """Write every file of a run directory; returns 0, or 3 where no point keeps the tradeoff.

    After an interruption the test images are not read: the front is not the final one yet.
    """
    found, members = select_front(run_dir, ending.reason, info.limits)
    members = [_with_refit(member, ending.refitted) for member in members]
    tested: dict[str, TestResult] = {}
    dense: TestResult | None = None
    if ending.reason != "interrupted":
        tested, dense = _test_members(run_dir, members, task, load_test, torch.device(info.device))
        tested = {id_: replace(test, refit=id_ in ending.refitted) for id_, test in tested.items()}
    nearest = None if members or ending.reason == "interrupted" else find_closest(found, info.limits)
    hardest = None if nearest is None else find_hardest_layer(task, nearest, torch.device(info.device))
    spent = sum(record.cpu_seconds for record in found) + ending.cpu_seconds
    summary = summarize(
        found,
        members,
        tested,
        info,
        dense_test_error=dense.error if dense else None,
        wall_seconds=ending.wall_seconds + _earlier_wall(run_dir),
        cpu_seconds=spent,
        hardest=hardest,
        confirmed=ending.confirmed,
    )
    writer.write_tables(run_dir, found, info)
    writer.write_front(run_dir, found, members, tested, info, ending.confirmed)
    writer.write_summary(run_dir, summary)
    pareto_plot.draw_pareto(run_dir / "pareto.png", found, members, info, tested, dense.error if dense else None)
    html.write_report(run_dir)
    if tested and dense:
        console.front(members, tested, dense, info.dense_val_error, ending.confirmed)
    _print_outcome(console, run_dir, found, members, info, summary)
    return 0 if members else 3


def read_final_summary(run_dir: Path) -> dict[str, Any] | None:
    """The summary of a run that has been told to its end, test images and all, as it is now; else None."""
    summary = _read_summary(run_dir)
    if summary is None:
        return None
    found = records.read_all(run_dir)
    trials = summary["trials"]
    counted = trials["completed"] + trials["stopped"] + trials["failed"]
    whole = counted == len(found) and all(record.state in records.FINAL_STATES for record in found)
    return summary if whole and summary["dense"]["test_error"] is not None else None


def _close_record(record: TrialRecord, reason: str) -> TrialRecord:
    """A trial that was running when the search ended counts as stopped; its record on disk is left as it is."""
    return (
        record if record.state in records.FINAL_STATES else replace(record, state="stopped", reason=reason or "cut off")
    )


def _earlier_wall(run_dir: Path) -> float:
    """The wall-clock seconds of earlier processes of a resumed run, as far as they came to write a summary."""
    summary = _read_summary(run_dir)
    return 0.0 if summary is None else float(summary["wall_seconds"])


def _read_summary(run_dir: Path) -> dict[str, Any] | None:
    """The summary that there is; a damaged one is none, for it is about to be written anew from the records."""
    try:
        summary: dict[str, Any] = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return summary


def _with_refit(member: Member, files: Mapping[str, str]) -> Member:
    """A member with its refitted weights in the place of those that it was chosen for, where there are some."""
    return replace(member, point=replace(member.point, checkpoint=files.get(member.id, member.point.checkpoint)))


def _test_members(
    run_dir: Path, members: Sequence[Member], task: Task, load_test: Callable[[], Split], device: torch.device
) -> tuple[dict[str, TestResult], TestResult]:
    """The one reading of the test images: each member's checkpoint as it is on disk, and the dense model."""
    split = load_test().to(device)
    tested = {}
    for member in members:
        path = run_dir / str(member.point.checkpoint)
        model, mask = checkpoint.restore(checkpoint.read(path), str(path))
        if masks.compression(mask) != member.point.compression:
            raise RuntimeError(f"{path}: holds another compression than its trial measured")
        tested[member.id] = _test_result(evaluate(to_device(model, device), split).error, len(split.labels))
    return tested, _test_result(evaluate(task.dense_model(device), split).error, len(split.labels))


def _test_result(error: float, n: int) -> TestResult:
    return TestResult(error, *wilson_interval(round(error * n / 100), n))


def _print_outcome(
    console: SearchConsole,
    run_dir: Path,
    found: Sequence[TrialRecord],
    members: Sequence[Member],
    info: RunInfo,
    summary: dict[str, object],
) -> None:
    best, nearest = most_compressed(members), find_closest(found, info.limits)
    if best:
        console.say(f"most compressed: {best.point.factor:.1f}x at {best.point.val_error:.2f} % validation error")
    elif nearest and not nearest.point.within:
        limits = " and ".join(f"{name} of {limit:g}" for name, limit in info.at_most.items())
        costs = " and ".join(f"{name} of {nearest.point.costs[name]:.4g}" for name in info.at_most)
        console.say(f"no point keeps {limits} at most; the nearest has {costs}: allow higher ratios, or more")
    elif nearest:
        found_best = f"{nearest.point.factor:.1f}x at {nearest.point.val_error:.2f} %"
        console.say(
            f"no point keeps the tradeoff of {info.acc_tradeoff:g} points; "
            f"the best found, {found_best}, would keep one of {summary['smallest_tradeoff']:g}"
        )
        hardest = summary["hardest_layer"]
        if isinstance(hardest, dict):
            alone = f"by {hardest['ratio']:g}, and not retrained, it makes {hardest['val_error']:.2f} %"
            console.say(f"layer {hardest['layer']} stands most in the way: pruned alone {alone}")
    else:
        console.say("no round ended")
    console.say(f"files: {run_dir} (report.html, pareto.png, best.conf, checkpoints/)")


def confirm_and_refit(
    run_dir: Path,
    config: Config,
    space: Space,
    prepared: Prepared,
    records: Sequence[TrialRecord],
    members: Sequence[Member],
    stopped: Callable[[], bool],
    say: Callable[[str], None],
) -> tuple[dict[str, Confirmation], dict[str, str]]:
    """By member id: what repetitions measured, and the files of refitted weights, relative to the run directory.

    What the run directory has is not done again. What fails is said and left out, as is what is missing when `stopped`
    says that there is no going on.
    """
    confirmed: dict[str, Confirmation] = {}
    refitted: dict[str, str] = {}
    if not members or not (config.confirm or config.refit):
        return confirmed, refitted
    known = cached_statistics(space, prepared.task, config, say)
    info = prepared.info
    with worker_pool(prepared.task, config, known, run_dir / "ray.log", stopped) as each:
        if config.confirm:
            say(f"confirming {len(members)} members of the front from {config.confirm} seeds each")
            by_trial = {record.trial: record for record in records}
            confirmed, failures = confirm_front(
                run_dir, members, by_trial, seed=info.seed, limit=info.limit, count=config.confirm, each=each
            )
            for line in failures:
                say(line)
        if config.refit and not stopped():
            say(f"refitting {len(members)} members of the front on training and validation images together")
            refine = space.refine
            refitted, failures = refit_front(
                run_dir, members, seed=info.seed, steps=refine.steps, lr=refine.lr, each=each
            )
            for line in failures:
                say(line)
    return confirmed, refitted


def find_hardest_layer(task: Task, member: Member, device: torch.device) -> SensitivityResult | None:
    """Of the layers of a point, pruned each alone as there and not retrained, the one with the highest loss.

    None where the point prunes nothing. Validation error in percent, loss in nats.
    """
    pruners = member.record.pruners
    as_one = to_plan(member.record.params).granularity
    pruned = {label: ratio for label, ratio in member.point.ratios.items() if ratio > 0}
    cells = [SensitivityJob(label, pruners[label], ratio, granularity=as_one) for label, ratio in pruned.items()]
    names = sorted(criteria.required_statistics({cell.pruner for cell in cells}))
    known = statistics_cache.measure_dense(names, task.dense_model(device), task.train.to(device), Plan.sample)
    found = sensitivity.measure_without_retraining(task.to(device), cells, device, known)
    return max(found, key=lambda sensed: sensed.val_loss, default=None)
