"""Ends a search: selects its front, tests it once on the test images, and writes every file of the run directory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from tune_prune.common.parsing import read_json
from tune_prune.distributed.parallel import worker_pool
from tune_prune.hpo.budget import SearchEnd
from tune_prune.hpo.config import Config
from tune_prune.hpo.space import Space
from tune_prune.pruning import checkpoint, masks
from tune_prune.results import pareto_plot, records, writer
from tune_prune.results.confidence import Confirmation, wilson_interval
from tune_prune.results.constraints import Constraints
from tune_prune.results.front import BEST_CONF, CLOSEST_CONF, Member, TestResult, find_front
from tune_prune.results.outcome import SearchOutcome
from tune_prune.results.records import TrialRecord
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
from tune_prune.workflows.report import write_report
from tune_prune.workflows.sensitivity import find_hardest_layer

SHOWN_FILES = ("report.html", "pareto.png", BEST_CONF, CLOSEST_CONF, "checkpoints/")
"""The files of a run directory that the last line names, where they are there."""


@dataclass(frozen=True)
class SelectedFront:
    """What a search has measured, and the front of it, ascending in compression."""

    records: Sequence[TrialRecord]
    members: Sequence[Member]


@dataclass(frozen=True)
class Ending:
    """Why a search ended, what it cost, and what was done with its front since.

    Seconds are wall-clock, and CPU of this process without its workers. `confirmed` are the repetitions of members and
    `refitted` the files of refitted weights, relative to the run directory, both by member id.
    """

    end: SearchEnd
    wall_seconds: float
    cpu_seconds: float
    confirmed: Mapping[str, Confirmation] = field(default_factory=dict)
    refitted: Mapping[str, str] = field(default_factory=dict)


def select_front(run_dir: Path, limits: Constraints, end: SearchEnd, failure: str = "") -> SelectedFront:
    """Reads the records of a search that has ended, and selects its front.

    A trial that was running then counts as stopped, because of the search's end or `failure`; its record on disk stays
    as it is.
    """
    reason = failure or ("cut off" if end is SearchEnd.BUDGET else end.value)
    found = [
        record if record.state in records.FINAL_STATES else replace(record, state="stopped", reason=reason)
        for record in records.read_all(run_dir)
    ]
    return SelectedFront(found, find_front(found, limits))


def write_results(
    run_dir: Path,
    task: Task,
    info: RunInfo,
    load_test: Callable[[], Split],
    console: SearchConsole,
    front: SelectedFront,
    ending: Ending,
) -> int:
    """Tests the front, and writes every file of a run directory; returns 0, or 3 where no point is feasible.

    After an interruption the test images are not read: the front is not the final one yet.
    """
    device, interrupted = torch.device(info.device), ending.end is SearchEnd.INTERRUPTED
    members = [_with_refit(member, ending.refitted) for member in front.members]
    tested: dict[str, TestResult] = {}
    dense_test: TestResult | None = None
    if not interrupted:
        tested, dense_test = _test_members(run_dir, members, task, load_test, device)
        tested = {id_: replace(test, refit=id_ in ending.refitted) for id_, test in tested.items()}
    outcome = SearchOutcome(
        info=info,
        records=front.records,
        members=members,
        tested=tested,
        dense_test=dense_test,
        confirmed=ending.confirmed,
        wall_seconds=ending.wall_seconds + _earlier_wall_seconds(run_dir),
        cpu_seconds=sum(record.cpu_seconds for record in front.records) + ending.cpu_seconds,
    )
    if outcome.closest and not interrupted:
        hardest = find_hardest_layer(task, outcome.closest, device, info.cached_sample)
        outcome = replace(outcome, hardest=hardest)
    _write_files(run_dir, outcome)
    if tested and dense_test:
        console.show_front(members, tested, dense_test, info.dense_val_error, ending.confirmed)
    _print_outcome(console, run_dir, outcome)
    return 0 if members else 3


def _write_files(run_dir: Path, outcome: SearchOutcome) -> None:
    writer.write_tables(run_dir, outcome)
    writer.write_front(run_dir, outcome)
    writer.write_summary(run_dir, summarize(outcome))
    pareto_plot.draw_pareto(run_dir / "pareto.png", outcome)
    write_report(run_dir)


def _print_outcome(console: SearchConsole, run_dir: Path, outcome: SearchOutcome) -> None:
    best, closest, info = outcome.best, outcome.closest, outcome.info
    if best:
        console.say(f"most compressed: {best.point.factor:.1f}x at {best.point.val_error:.2f} % validation error")
    elif closest and outcome.smallest_tradeoff is None:
        limits = " and ".join(f"{name} of {limit:g}" for name, limit in info.at_most.items())
        costs = " and ".join(f"{name} of {closest.point.costs[name]:.4g}" for name in info.at_most)
        console.say(f"no point keeps {limits} at most; the nearest has {costs}: allow higher ratios, or more")
    elif closest:
        console.say(
            f"no point keeps the tradeoff of {info.acc_tradeoff:g} points; the best found, "
            f"{closest.point.factor:.1f}x at {closest.point.val_error:.2f} %, would keep one of "
            f"{outcome.smallest_tradeoff:g}"
        )
        if outcome.hardest:
            job = outcome.hardest.job
            effect = f"by {job.ratio:g}, and not retrained, it makes {outcome.hardest.val_error:.2f} %"
            console.say(f"layer {job.layer} stands most in the way: pruned alone {effect}")
    else:
        console.say("no round ended")
    shown = [name for name in SHOWN_FILES if (run_dir / name).exists()]
    console.say(f"files: {run_dir} ({', '.join(shown)})")


def read_final_summary(run_dir: Path) -> dict[str, Any] | None:
    """The summary of a run that is finished and tested, as its records are now; else None."""
    summary = _read_summary(run_dir)
    if summary is None:
        return None
    found = records.read_all(run_dir)
    trials = summary["trials"]
    counted = trials["completed"] + trials["stopped"] + trials["failed"]
    complete = counted == len(found) and all(record.state in records.FINAL_STATES for record in found)
    return summary if complete and summary["dense"]["test_error"] is not None else None


def _earlier_wall_seconds(run_dir: Path) -> float:
    """The wall-clock seconds of earlier processes of a resumed run, as far as they came to write a summary."""
    summary = _read_summary(run_dir)
    return 0.0 if summary is None else float(summary["wall_seconds"])


def _read_summary(run_dir: Path) -> dict[str, Any] | None:
    """summary.json, None where it is missing or damaged: it is written again from the records."""
    try:
        summary: dict[str, Any] = read_json(run_dir / "summary.json")
    except (FileNotFoundError, ValueError):
        return None
    return summary


def _with_refit(member: Member, files: Mapping[str, str]) -> Member:
    """A member with its refitted weights in place of those that it was chosen for, where there are some."""
    return replace(member, point=replace(member.point, checkpoint=files.get(member.id, member.point.checkpoint)))


def _test_members(
    run_dir: Path, members: Sequence[Member], task: Task, load_test: Callable[[], Split], device: torch.device
) -> tuple[dict[str, TestResult], TestResult]:
    """Reads the test images, once, and tests each member's checkpoint as it is on disk, and the dense model."""
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


def confirm_and_refit(
    run_dir: Path,
    config: Config,
    space: Space,
    prepared: Prepared,
    front: SelectedFront,
    is_interrupted: Callable[[], bool],
    say: Callable[[str], None],
) -> tuple[dict[str, Confirmation], dict[str, str]]:
    """Repeats and refits the front as far as `config` asks: confirmations, and files of refitted weights, by member id.

    Files are relative to the run directory; what it holds is not done again. A member that fails is reported and left
    out, as is what is missing after an interruption.
    """
    confirmed: dict[str, Confirmation] = {}
    refitted: dict[str, str] = {}
    members = front.members
    if not members or not (config.confirm or config.refit):
        return confirmed, refitted
    cached, info = cached_statistics(space, prepared.task, config, say), prepared.info
    failures: list[str] = []
    with worker_pool(prepared.task, config.resources, cached, run_dir / "ray.log", is_interrupted) as parallel_map:
        if config.confirm:
            say(f"confirming {len(members)} members of the front from {config.confirm} seeds each")
            by_trial = {record.trial: record for record in front.records}
            confirmed, failures = confirm_front(
                run_dir, members, by_trial, seed=info.seed, limit=info.limit, count=config.confirm,
                parallel_map=parallel_map,
            )  # fmt: skip
            for failure in failures:
                say(failure)
        if config.refit and not is_interrupted():
            say(f"refitting {len(members)} members of the front on training and validation images together")
            refine = space.refine
            refitted, failures = refit_front(
                run_dir, members, seed=info.seed, steps=refine.steps, lr=refine.lr, parallel_map=parallel_map
            )
            for failure in failures:
                say(failure)
    return confirmed, refitted
