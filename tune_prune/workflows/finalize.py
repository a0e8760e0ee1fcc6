"""Ends a search: selects its front, tests it once on the test images, and writes every file of the run directory.

What is known is written before anything that may fail: the test of a model of one's own, a repetition, a picture.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from tune_prune.common import files
from tune_prune.common.errors import UserError
from tune_prune.distributed.parallel import Job, ParallelMap, Result, Work, worker_pool
from tune_prune.hpo.budget import SearchEnd
from tune_prune.hpo.config import Config
from tune_prune.hpo.space import Space
from tune_prune.results import pareto_plot, records, writer
from tune_prune.results.certificate import Claim
from tune_prune.results.confidence import Confirmation
from tune_prune.results.front import BEST_CONF, CERTIFIED_CONF, CLOSEST_CONF, Member
from tune_prune.results.outcome import SearchOutcome
from tune_prune.results.run_info import RunInfo
from tune_prune.results.summary import summarize
from tune_prune.tasks.splits import AnySplit
from tune_prune.tasks.task import Task
from tune_prune.workflows.confirm import confirm_front, read_confirmations
from tune_prune.workflows.console import SearchConsole
from tune_prune.workflows.latency import measure_front, with_measured_latency
from tune_prune.workflows.live_view import Phase
from tune_prune.workflows.next_commands import list_next_commands
from tune_prune.workflows.preparation import Prepared, cached_statistics
from tune_prune.workflows.refit import read_refits, refit_front
from tune_prune.workflows.report import write_report
from tune_prune.workflows.selection import SelectedFront
from tune_prune.workflows.sensitivity import find_hardest_layer
from tune_prune.workflows.testing import evaluate_front, read_front_test


def counted(parallel_map: ParallelMap, phase: Phase) -> ParallelMap:
    """The same map, which counts the jobs that are done; those that are not done again are no part of the phase."""

    def run(work: Work[Job, Result], jobs: Sequence[Job]) -> Iterator[tuple[Job, Result | Exception]]:
        phase.total = len(jobs)
        for done in parallel_map(work, jobs):
            yield done
            phase.advance()

    return run


SHOWN_FILES = ("report.html", "pareto.png", BEST_CONF, CERTIFIED_CONF, CLOSEST_CONF, "checkpoints/")
"""The files of a run directory that the last line names, where they are there."""


@dataclass(frozen=True)
class Ending:
    """Why a search ended, what it cost, and what was done with its front since.

    Seconds are wall-clock, of all processes of the run, and CPU of this process without its workers. `confirmed` are
    the repetitions of members and `refitted` the files of refitted weights, relative to the run directory, both by
    member id. `certify` is the confidence of certificates, None where none were asked for.
    """

    end: SearchEnd
    wall_seconds: float
    cpu_seconds: float
    confirmed: Mapping[str, Confirmation] = field(default_factory=dict)
    refitted: Mapping[str, str] = field(default_factory=dict)
    certify: float | None = None

    @property
    def is_final(self) -> bool:
        """Whether the front is the final one; only then the test images are read."""
        return self.end not in (SearchEnd.INTERRUPTED, SearchEnd.ERROR)


def write_results(
    run_dir: Path,
    task: Task,
    info: RunInfo,
    load_test: Callable[[], AnySplit],
    console: SearchConsole,
    front: SelectedFront,
    ending: Ending,
) -> int:
    """Tests a front that is final, and writes every file of a run directory; returns 0, or 3 where nothing is feasible.

    Tables, confs and summary are written first: a `RuntimeError`, or an error of the model's own, says what failed.
    """
    outcome = make_outcome(run_dir, task, info, front, ending)
    write_files(run_dir, outcome)
    with _failing_late():
        if ending.is_final:
            complete = _complete(run_dir, outcome, task, load_test, ending, console)
            if complete is not outcome:
                outcome = complete
                write_files(run_dir, outcome)
        with console.phase("writing checkpoints, picture and report"):
            writer.write_checkpoints(run_dir, outcome)
            pareto_plot.draw_pareto(run_dir / "pareto.png", outcome)
            write_report(run_dir)
    if outcome.members and outcome.is_tested:
        console.show_front(outcome)
        if outcome.interval_method:
            console.say(f"95 % interval of test {info.metric.name}: {outcome.interval_method}")
    _print_outcome(console, run_dir, outcome, list_next_commands(run_dir, outcome) if ending.is_final else [])
    return 0 if outcome.members else 3


def make_outcome(run_dir: Path, task: Task, info: RunInfo, front: SelectedFront, ending: Ending) -> SearchOutcome:
    """What a search came to, as far as the run directory holds it: test results are those of an earlier test."""
    members = with_measured_latency(run_dir, [_with_refit(member, ending.refitted) for member in front.members])
    claim = None if ending.certify is None else Claim(info.acc_tradeoff, ending.certify)
    known = read_front_test(run_dir, members, task, ending.refitted, claim)
    return SearchOutcome(
        info=info,
        records=front.records,
        members=members,
        tested=known.members,
        dense_test=known.dense,
        confirmed=ending.confirmed,
        claim=claim,
        certificates=known.certificates,
        wall_seconds=ending.wall_seconds,
        cpu_seconds=sum(record.cpu_seconds for record in front.records) + ending.cpu_seconds,
    )


def _complete(
    run_dir: Path,
    outcome: SearchOutcome,
    task: Task,
    load_test: Callable[[], AnySplit],
    ending: Ending,
    console: SearchConsole,
) -> SearchOutcome:
    """Measures what is missing of an outcome: test results, and the hardest layer where no point is feasible."""
    info, device = outcome.info, torch.device(outcome.info.device)
    if not outcome.is_tested:
        certify = outcome.claim is not None
        with console.phase("testing the front", len(outcome.members) + 1) as phase:
            evaluate_front(
                run_dir, outcome.members, task, load_test, device, with_outcomes=certify, on_tested=phase.advance
            )
        known = read_front_test(run_dir, outcome.members, task, ending.refitted, outcome.claim)
        outcome = replace(outcome, tested=known.members, dense_test=known.dense, certificates=known.certificates)
    if info.limits.latency:
        measure_front(run_dir, outcome.members, task, device)
        outcome = replace(outcome, members=with_measured_latency(run_dir, outcome.members))
    if outcome.closest:
        hardest = find_hardest_layer(task, outcome.closest, device, info.cached_sample)
        outcome = replace(outcome, hardest=hardest)
    return outcome


def write_files(run_dir: Path, outcome: SearchOutcome) -> None:
    """Writes tables, confs and summary: all that the measurements alone make."""
    writer.write_tables(run_dir, outcome)
    writer.write_front(run_dir, outcome)
    writer.write_summary(run_dir, summarize(outcome))


@contextmanager
def _failing_late() -> Iterator[None]:
    """Turns a `UserError` into a `RuntimeError`: nothing that the user gave is wrong, and results are written."""
    try:
        yield
    except UserError as error:
        raise RuntimeError(str(error)) from error


def _print_outcome(console: SearchConsole, run_dir: Path, outcome: SearchOutcome, commands: Sequence[str]) -> None:
    """Says what was found, what may come, which files there are, and what to type next."""
    for line in [*outcome.describe_best(), *outcome.describe_forecast(), *outcome.describe_certificates()]:
        console.say(line)
    shown = [name for name in SHOWN_FILES if (run_dir / name).exists()]
    console.say(f"files: {files.shorten(run_dir)} ({', '.join(shown)})")
    for line in ["what to type next:", *(f"  {command}" for command in commands)] if commands else []:
        console.say(line)


def describe_failure(run_dir: Path) -> str:
    """Says why the trials of a run failed, where all of them did; else ""."""
    found = records.read_all(run_dir)
    if not found or any(record.state != "failed" for record in found):
        return ""
    return f"all {len(found)} trials failed; the last: {found[-1].reason}"


def _with_refit(member: Member, files: Mapping[str, str]) -> Member:
    """A member with its refitted weights in place of those that it was chosen for, where there are some."""
    return replace(member, point=replace(member.point, checkpoint=files.get(member.id, member.point.checkpoint)))


def read_confirmed_and_refitted(
    run_dir: Path, space: Space, info: RunInfo, front: SelectedFront
) -> tuple[dict[str, Confirmation], dict[str, str]]:
    """Reads what this process or an earlier one has done with a front: confirmations and refitted files, by id."""
    by_trial = {record.trial: record for record in front.records}
    confirmed = read_confirmations(run_dir, front.members, by_trial, seed=info.seed, limits=info.limits)
    refine = space.refine
    refitted = read_refits(run_dir, front.members, seed=info.seed, steps=refine.total_steps, lr=refine.lr)
    return confirmed, refitted


def confirm_and_refit(
    run_dir: Path,
    config: Config,
    space: Space,
    prepared: Prepared,
    front: SelectedFront,
    is_interrupted: Callable[[], bool],
    console: SearchConsole,
) -> None:
    """Repeats and refits the front as far as `config` asks, and writes what comes of it to the run directory.

    What that holds is not done again. A member that fails is reported and left out, as is what is missing after an
    interruption.
    """
    members, say = front.members, console.say
    info, log = prepared.info, run_dir / "ray.log"
    with _failing_late(), ExitStack() as block:
        cached = cached_statistics(space, prepared.task, config, say)
        parallel_map = block.enter_context(worker_pool(prepared.task, config.resources, cached, log, is_interrupted))
        if config.confirm:
            by_trial = {record.trial: record for record in front.records}
            what = f"confirming {len(members)} members of the front from {config.confirm} seeds each"
            with console.phase(what, len(members) * config.confirm) as phase:
                failures = confirm_front(
                    run_dir, members, by_trial, info.metric,
                    seed=info.seed, count=config.confirm, parallel_map=counted(parallel_map, phase),
                )  # fmt: skip
            for failure in failures:
                say(failure)
        if config.refit and not is_interrupted():
            refine = space.refine
            what = f"refitting {len(members)} members of the front on training and validation images together"
            with console.phase(what, len(members)) as phase:
                failures = refit_front(
                    run_dir, members, seed=info.seed, steps=refine.total_steps, lr=refine.lr,
                    parallel_map=counted(parallel_map, phase),
                )  # fmt: skip
            for failure in failures:
                say(failure)
