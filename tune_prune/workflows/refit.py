"""Refits a front: trains its members further, on training and validation images together.

The search has made its choices, so that validation images are free for training; published networks, too, are trained
on all but the test images. From here on only test images can measure a member.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tune_prune.common.errors import UserError, describe_error
from tune_prune.common.seeding import derive_seed
from tune_prune.distributed.parallel import ParallelMap
from tune_prune.pruning import checkpoint, iterative, masks
from tune_prune.pruning.iterative import State, round_generator
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.statistics import CachedStatistics
from tune_prune.results.front import Member
from tune_prune.results.trial_params import TrialParams
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.metrics import Evaluation, evaluate
from tune_prune.tasks.models import to_device
from tune_prune.tasks.splits import AnySplit, Split
from tune_prune.tasks.task import Task
from tune_prune.training.loop import DivergedError, Teacher


def join_splits(task: Task) -> AnySplit:
    """Joins the splits: training samples, then validation samples."""
    train, validation = task.train, task.validation
    if isinstance(train, Split) and isinstance(validation, Split):
        if train.inputs.dtype != validation.inputs.dtype:  # `cat` would turn bytes into floats of another scale
            train, validation = (replace(part, inputs=part.as_float(part.inputs)) for part in (train, validation))
        return train.join(validation)
    assert isinstance(train, BatchSplit)
    assert isinstance(validation, BatchSplit)
    return train.join(validation)


def refit_plan(params: TrialParams, steps: int, lr: float) -> Plan:
    """The plan of a refit: the trial's own recipe, for `steps` steps from the learning rate `lr`."""
    return replace(params.to_plan(), rounds=1, final_steps=steps, lr=lr)


def refit(task: Task, state: State, plan: Plan, seed: int) -> Evaluation:
    """Trains the remaining weights on both splits as the plan's last round does; removed weights stay zero.

    The model is changed in place; it and the task are on one device. With distillation the dense model teaches on
    validation images too. Returns the metric and the loss in nats on the images trained on. Raises
    `DivergedError`.
    """
    split = join_splits(task)
    teacher: Teacher | None = None
    if plan.distill:
        teacher = task.make_teacher(plan.distill)
        if isinstance(teacher, Tensor) and isinstance(task.validation, Split):
            teacher = torch.cat([teacher, task.validation.scores(task.dense_model(task.train.device))])
    iterative.retrain(state, plan, plan.rounds, split, round_generator(seed, plan.rounds), teacher)
    measured = evaluate(state.model, split)
    if not math.isfinite(measured.loss):
        raise DivergedError(f"the loss became {measured.loss} at lr {plan.lr:g}")
    return measured


@dataclass(frozen=True)
class Refit:
    """The refit of one member: its file, the file to write, how to train, and the compression of both."""

    trial: int
    round: int
    source: Path
    target: Path
    plan: Plan
    seed: int
    compression: float

    @property
    def notes(self) -> dict[str, object]:
        """The notes of the written file; a file with other notes was made in another way."""
        member = {"refit": True, "trial": self.trial, "round": self.round}
        return {**member, "steps": self.plan.final_steps, "lr": self.plan.lr, "seed": self.seed}


def refit_member(task: Task, job: Refit, device: torch.device, cached: CachedStatistics) -> None:
    """Refits one member, from file to file."""
    model, kept = checkpoint.restore(checkpoint.read(job.source), str(job.source))
    state = iterative.initial_state(to_device(model, device))
    for label, mask in kept.items():
        state.masks[label].copy_(mask)
    refit(task, state, job.plan, job.seed)
    if masks.compression(state.masks) != job.compression:
        raise RuntimeError(f"{job.source}: holds another compression than its trial measured")
    checkpoint.write(job.target, task.model, state.model, state.masks, job.notes | task.notes)


def refit_front(
    run_dir: Path, members: Sequence[Member], *, seed: int, steps: int, lr: float, parallel_map: ParallelMap
) -> list[str]:
    """Refits every member by its own trial's recipe, for `steps` of SGD from the learning rate `lr`.

    `seed` is the search's; a member draws from `derive_seed(seed, -2, trial, round)`. A member whose file is written
    already is not trained again. Returns a line for each member that failed.
    """
    jobs = _list_refits(run_dir, members, seed, steps, lr)
    failures = []
    for job, raised in parallel_map(refit_member, [job for job in jobs.values() if not _is_done(job)]):
        if raised is not None:
            failures.append(f"trial {job.trial}, round {job.round} failed: {describe_error(raised)}")
    return failures


def read_refits(run_dir: Path, members: Sequence[Member], *, seed: int, steps: int, lr: float) -> dict[str, str]:
    """The files of refitted weights by member id, relative to the run directory, whichever process wrote them."""
    jobs = _list_refits(run_dir, members, seed, steps, lr)
    return {id_: str(job.target.relative_to(run_dir.absolute())) for id_, job in jobs.items() if _is_done(job)}


def _list_refits(run_dir: Path, members: Sequence[Member], seed: int, steps: int, lr: float) -> dict[str, Refit]:
    jobs = {}
    for member in members:
        trial, round_ = member.record.trial, member.point.round
        jobs[member.id] = Refit(
            trial=trial,
            round=round_,
            source=(run_dir / str(member.point.checkpoint)).absolute(),
            target=(run_dir / "refits" / f"{trial}-{round_}.safetensors").absolute(),
            plan=refit_plan(member.record.params, steps, lr),
            seed=derive_seed(seed, -2, trial, round_),
            compression=member.point.compression,
        )
    return jobs


def _is_done(job: Refit) -> bool:
    """Whether the file is there and whole, and was made as this job would make it."""
    if not job.target.is_file():
        return False
    try:
        saved = checkpoint.read(job.target)
        _, kept = checkpoint.restore(saved, str(job.target))
    except UserError:
        return False
    return job.notes.items() <= saved.notes.items() and masks.compression(kept) == job.compression
