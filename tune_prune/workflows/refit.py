"""The members of a front trained further, on training and validation images together.

Nothing is chosen any more, so that validation images are free to be trained on, as where published networks are
trained on all but the test images. From here on only test images can say how good a member is.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tune_prune.common.errors import UserError
from tune_prune.common.seeding import derive_seed
from tune_prune.hpo.space import to_plan
from tune_prune.pruning import checkpoint, iterative, masks
from tune_prune.pruning.iterative import State, round_generator
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.statistics import CachedStatistics
from tune_prune.results.front import Member
from tune_prune.tasks.metrics import Evaluation, evaluate, logits
from tune_prune.tasks.models import to_device
from tune_prune.tasks.splits import Split, as_float
from tune_prune.tasks.task import Task
from tune_prune.training.loop import DivergedError


def join_splits(task: Task) -> Split:
    """Training images, then validation images."""
    inputs = [task.train.inputs, task.validation.inputs]
    if inputs[0].dtype != inputs[1].dtype:  # joined as they are, bytes would become floats of another scale
        inputs = [as_float(part) for part in inputs]
    return Split(torch.cat(inputs), torch.cat([task.train.labels, task.validation.labels]))


def refit_plan(params: Mapping[str, Any], steps: int, lr: float) -> Plan:
    """How a trial's parameters have it refitted: the trial's recipe, for so many steps from that learning rate."""
    return replace(to_plan(params), rounds=1, final_steps=steps, lr=lr)


def refit(task: Task, state: State, plan: Plan, seed: int) -> Evaluation:
    """Train what is left as the plan's last round does, on `everything`; masks stay, and removed weights stay zero.

    The model is changed in place; it and the task are on one device. Where the plan distills, the dense model is the
    teacher on validation images too. Returns the error in percent and the loss in nats on the images trained on.
    Raises `DivergedError`.
    """
    split, teacher = join_splits(task), None
    if plan.distill:
        dense = task.dense_model(split.labels.device)
        teacher = torch.cat([task.teacher, logits(dense, task.validation.inputs)])
    iterative.retrain(state, plan, plan.rounds, split, round_generator(seed, plan.rounds), teacher)
    measured = evaluate(state.model, split)
    if not math.isfinite(measured.loss):
        raise DivergedError(f"the loss became {measured.loss} at lr {plan.lr:g}")
    return measured


@dataclass(frozen=True)
class Refit:
    """One member to refit: its file, the file that is written, how to train, and the compression of both."""

    trial: int
    round: int
    source: Path
    target: Path
    plan: Plan
    seed: int
    compression: float

    @property
    def notes(self) -> dict[str, object]:
        """What the written file says of itself: a file with other notes was made in another way."""
        where = {"refit": True, "trial": self.trial, "round": self.round}
        return {**where, "steps": self.plan.final_steps, "lr": self.plan.lr, "seed": self.seed}


Each = Callable[
    [Callable[[Task, Refit, torch.device, CachedStatistics], None], Sequence[Refit]],
    Iterable[tuple[Refit, Exception | None]],
]
"""What spreads members over workers, as `fanout.workers` does: each with None, or what it raised."""


def refit_member(task: Task, job: Refit, device: torch.device, known: CachedStatistics) -> None:
    """Refit one member, from file to file."""
    model, kept = checkpoint.restore(checkpoint.read(job.source), str(job.source))
    state = iterative.initial_state(to_device(model, device))
    for label, mask in kept.items():
        state.masks[label].copy_(mask)
    refit(task, state, job.plan, job.seed)
    if masks.compression(state.masks) != job.compression:
        raise RuntimeError(f"{job.source}: holds another compression than its trial measured")
    checkpoint.write(job.target, task.model, state.model, state.masks, job.notes)


def refit_front(
    run_dir: Path, members: Sequence[Member], *, seed: int, steps: int, lr: float, each: Each
) -> tuple[dict[str, str], list[str]]:
    """Refit every member by its own trial's recipe, for `steps` of SGD from the learning rate `lr`.

    `seed` is the search's; a member draws from `derive_seed(seed, -2, trial, round)`. What is there already is not
    trained again. Returns the files by member id, relative to the run directory, without the members that are missing,
    and a line for each that failed.
    """
    jobs, files = {}, {}
    for member in members:
        trial, round_ = member.record.trial, member.point.round
        files[member.id] = f"refits/{trial}-{round_}.safetensors"
        jobs[member.id] = Refit(
            trial=trial,
            round=round_,
            source=(run_dir / str(member.point.checkpoint)).absolute(),
            target=(run_dir / files[member.id]).absolute(),
            plan=refit_plan(member.record.params, steps, lr),
            seed=derive_seed(seed, -2, trial, round_),
            compression=member.point.compression,
        )
    failures = []
    for job, raised in each(refit_member, [job for job in jobs.values() if not _is_done(job)]):
        if raised is not None:
            reason = " ".join(f"{type(raised).__name__}: {raised}".split())
            failures.append(f"trial {job.trial}, round {job.round} failed: {reason}")
    return {id_: files[id_] for id_, job in jobs.items() if _is_done(job)}, failures


def _is_done(job: Refit) -> bool:
    """Whether the file was written as this job would write it, and is whole."""
    try:
        found = checkpoint.read(job.target)
        _, kept = checkpoint.restore(found, str(job.target))
    except UserError:
        return False
    return found.notes == job.notes and masks.compression(kept) == job.compression
