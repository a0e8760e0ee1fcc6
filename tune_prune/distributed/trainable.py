"""Something that is done when something else takes too long.

The Ray Tune trainable: an adapter around pruning.py, with no science in it. One step is one round.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from ray import tune

from tune_prune.common.errors import UserError
from tune_prune.distributed.worker_data import WorkerData
from tune_prune.export import costs, sparse_format
from tune_prune.export.costs import LatencyMeter
from tune_prune.hpo.space import to_plan
from tune_prune.hpo.warm_start import WarmStart
from tune_prune.pruning import checkpoint
from tune_prune.pruning.checkpoint import Checkpoint
from tune_prune.pruning.iterative import Point, State, initial_state, prune
from tune_prune.pruning.plan import Plan
from tune_prune.results import records
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.tasks.splits import as_float


class Watchdog:
    """Calls `bite` in a thread of its own, `seconds` from now, unless it is stopped before; None is never."""

    def __init__(self, seconds: float | None, bite: Callable[[], None]) -> None:
        self._bite, self._over = bite, threading.Lock()
        self._timer = None if seconds is None else threading.Timer(seconds, self._late)
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def stop(self) -> None:
        """It was in time. Where it was not, this waits for what is done about it."""
        with self._over:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _late(self) -> None:
        with self._over:
            if self._timer is not None:
                self._bite()


def _one_line(error: Exception) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


class PruneTrainable(tune.Trainable):
    """One trial: the rounds of a plan, a record of them on disk, and the weights of the rounds that may be wanted."""

    def setup(self, config: dict[str, Any], worker_data: WorkerData) -> None:
        """Called once a worker: what all its trials share."""
        torch.set_num_threads(worker_data.threads)
        self._worker_data, self._loaded = worker_data, False
        self._going = list[Path]()
        self._begin(config)
        self._cpu_began = 0.0  # what the worker took to start is its first trial's

    def _load(self) -> None:
        """Bring what all trials share to the device: in a step, not in `setup`, for there may be no room for it."""
        if self._loaded:
            return
        self._task, self._known = self._worker_data.task(), self._worker_data.statistics()
        self._latency: LatencyMeter | None = None
        if self._worker_data.limits.latency:
            dense = self._task.dense_model(torch.device(self._worker_data.device))
            self._latency = LatencyMeter(dense, as_float(self._task.validation.inputs[:8]))
        self._loaded = True

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The worker goes on with another trial."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._drop(0)  # of a trial that was stopped
        self._trial: int = config["trial"]
        self._params: dict[str, Any] = config["params"]
        self._finishes: int | None = config.get("refines")
        self._start_from: WarmStart | None = config.get("start")
        self._plan: Plan = to_plan(self._params)
        self._points: list[PointRecord] = []
        path = records.record_path(self._worker_data.run_dir, self._trial)
        self._began, self._cpu_began = time.perf_counter(), time.process_time()
        # written by a process that gave it up, where Ray begins it again: it has ended
        self._ended = path.is_file() and records.read(path).state in records.FINAL_STATES
        self._watchdog = Watchdog(self._worker_data.timeout, self._give_up)
        self._seed: int = config["seed"]
        self._rounds: Iterator[Point] | None = None

    def _first(self) -> Iterator[Point]:
        """The trial's rounds, none of them begun."""
        self._load()
        task, self._state = self._task, self._start()
        return prune(self._state, self._plan, task.train, task.validation, self._seed, task.teacher, self._known)

    def _start(self) -> State:
        """From where the trial was cut off, else from a recorded round of another, else from the dense model.

        Rounds that are behind it are not run again.
        """
        state = initial_state(self._task.dense_model(torch.device(self._worker_data.device)))
        saved = self._cut_off()
        if saved is not None:
            state.rounds_done = self._points[-1].round
        elif self._start_from is not None:
            saved = checkpoint.read(self._worker_data.run_dir / self._start_from.checkpoint)
            state.rounds_done = self._plan.rounds_within(self._start_from.ratios)
        if saved is not None:
            checkpoint.load_weights(state.model, saved, f"trial {self._trial}")
            for label, kept in saved.masks.items():
                state.masks[label].copy_(kept)
        return state

    def _cut_off(self) -> Checkpoint | None:
        """The weights after the trial's last round, where it was cut off after one; its points are taken up."""
        path = records.record_path(self._worker_data.run_dir, self._trial)
        record = records.read(path) if path.is_file() else None
        if record is None or record.state != "running" or not record.points or record.params != self._params:
            return None
        going = self._going_at(record.last.round)
        try:
            saved = checkpoint.read(
                self._worker_data.run_dir / record.last.checkpoint if record.last.checkpoint else going
            )
        except UserError:  # gone or damaged: its rounds are measured again
            return None
        self._points, self._going = record.points, [going]
        self._began -= record.seconds
        self._cpu_began -= record.cpu_seconds
        return saved

    def _going_at(self, round_: int) -> Path:
        """Where the weights of a round are that are wanted only until the next."""
        return self._worker_data.run_dir / "rounds" / f"{self._trial}-{round_}.going"

    def _drop(self, most: int) -> None:
        """Delete such weights but for so many newest."""
        while len(self._going) > most:
            self._going.pop(0).unlink(missing_ok=True)

    def _give_up(self) -> None:
        """End this process: what hangs cannot be asked to stop. The trial's record says why."""
        try:
            self._report("failed", f"it took longer than --trial-timeout, {self._worker_data.timeout:g} s")
        finally:
            os._exit(1)

    def step(self) -> dict[str, Any]:
        """One round. What a trial raises is its own failure, told in its record; the others go on.

        A run directory that cannot be written is no trial's failure: the search is told, as "io_error".
        """
        if self._ended:
            return {"trial": self._trial, "rounds": 0, "done": True}
        try:
            return self._round()
        except OSError as error:
            self._watchdog.stop()
            return {"trial": self._trial, "rounds": len(self._points), "done": True, "io_error": str(error)}

    def _round(self) -> dict[str, Any]:
        try:
            self._rounds = self._rounds or self._first()
            point = next(self._rounds)
        except torch.OutOfMemoryError as error:  # whether others had it, the search knows
            self._watchdog.stop()
            return self._report("running", _one_line(error)) | {"done": True, "out_of_memory": _one_line(error)}
        except Exception as error:
            self._watchdog.stop()
            return self._report("failed", _one_line(error))
        last = point.round == self._plan.rounds
        if last:
            self._watchdog.stop()
        self._points.append(self._record_point(point, keep=last))
        said = self._report("complete" if last else "running")
        self._drop(0 if self._points[-1].checkpoint else 1)  # not before the record says that there is a newer round
        return said

    def _record_point(self, point: Point, keep: bool) -> PointRecord:
        limits, state = self._worker_data.limits, self._state
        spent = {
            "macs": costs.multiply_adds_share(state.masks, self._worker_data.uses),
            "bytes": len(sparse_format.dumps(self._task.model, state.model, state.masks)),
        }
        if self._latency:
            spent["latency"] = self._latency.share(state.model)
        feasible = limits.feasible(point.error, spent)
        saved = f"rounds/{self._trial}-{point.round}.safetensors" if keep or feasible else None
        path = self._worker_data.run_dir / saved if saved else self._going_at(point.round)
        checkpoint.write(path, self._task.model, state.model, state.masks)
        self._going += [] if saved else [path]
        return PointRecord(
            point.round, point.compression, point.factor, point.error, point.loss, feasible, point.seconds,
            point.ratios, saved, point.pooled, spent, limits.within(spent),
        )  # fmt: skip

    def _report(self, state: str, reason: str = "") -> dict[str, Any]:
        record = TrialRecord(
            self._trial, state, self._params, dict(self._plan.pruners), self._points, reason,
            parent=self._start_from.trial if self._start_from else None,
            parent_round=self._start_from.round if self._start_from else None,
            refines=self._finishes,
            seconds=time.perf_counter() - self._began,
            cpu_seconds=time.process_time() - self._cpu_began,
        )  # fmt: skip
        records.write(self._worker_data.run_dir, record)
        said = {"trial": self._trial, "rounds": len(self._points), "done": state != "running"}
        if self._points:  # for who follows the trials elsewhere
            last = self._points[-1]
            said |= {name: getattr(last, name) for name in ("compression", "factor", "val_error", "val_loss")}
        return said
