"""Runs one trial round by round, without Ray: prunes, retrains, and writes the trial's record after every round."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tune_prune.common.errors import UserError, describe_error
from tune_prune.common.source_lines import find_failure
from tune_prune.distributed.watchdog import Watchdog
from tune_prune.distributed.worker_data import WorkerData
from tune_prune.export import costs, sparse_format
from tune_prune.export.latency.prediction import LatencyPredictor
from tune_prune.hpo.trials import TrialConfig
from tune_prune.pruning import checkpoint
from tune_prune.pruning.channels.groups import Group
from tune_prune.pruning.channels.tracer import find_inputs
from tune_prune.pruning.checkpoint import Checkpoint
from tune_prune.pruning.iterative import Point, Retrain, State, find_state_groups, initial_state, prune, retrain
from tune_prune.results import records
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.tasks.further_metrics import measure_further
from tune_prune.tasks.metrics import ERROR, Metric
from tune_prune.training.data_parallel import LostRankError


@dataclass(frozen=True)
class RoundResult:
    """What a worker reports after a round: the trial, its rounds so far, and whether it runs no more.

    `io_error` and `out_of_memory` are errors that end the trial without a failure of its own: a run directory that
    cannot be written, a device without memory for it. The measures are those of the last round, None before the first:
    compression in [0, 1], factor, validation metric and loss in nats.
    """

    trial: int
    rounds: int
    done: bool
    io_error: str = ""
    out_of_memory: str = ""
    compression: float | None = None
    factor: float | None = None
    val_metric: float | None = None
    val_loss: float | None = None

    def to_dict(self, metric: Metric = ERROR) -> dict[str, Any]:
        """The result as Ray Tune takes it, without what is empty; the metric under its own name, as `val_error`."""
        named = {(metric.val if key == "val_metric" else key): value for key, value in asdict(self).items()}
        return {key: value for key, value in named.items() if value not in (None, "")}


class TrialRunner:
    """Runs trials one after the other in a worker process: their rounds, their records, the weights of their rounds.

    An error that a trial raises is its own failure, and its record says so; other trials go on. `retrain` trains a
    round, and `cpu_clock` tells the processor time of all processes that do.
    """

    def __init__(
        self,
        worker_data: WorkerData,
        config: TrialConfig,
        retrain: Retrain = retrain,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        torch.set_num_threads(worker_data.threads)
        self._worker_data, self._loaded, self._groups = worker_data, False, dict[str, Sequence[Group]]()
        self._retrain, self._cpu_clock = retrain, cpu_clock
        self._partial = list[Path]()
        self.begin(config)
        self._cpu_started = 0.0  # the start of the worker counts for its first trial

    @property
    def metric(self) -> Metric:
        """What models are judged by."""
        return self._worker_data.limits.metric

    def begin(self, config: TrialConfig) -> None:
        """Begins a trial; none of its rounds runs yet."""
        self._drop_partial(0)  # of a trial that was stopped
        self._config, self._plan = config, config.params.to_plan()
        self._points: list[PointRecord] = []
        path = records.record_path(self._worker_data.run_dir, config.trial)
        self._started, self._cpu_started = time.perf_counter(), self._cpu_clock()
        # the record of a process that gave the trial up, where Ray begins it again
        self._has_ended = path.is_file() and records.read(path).state in records.FINAL_STATES
        self._watchdog = Watchdog(self._worker_data.timeout, self._give_up)
        self._rounds: Iterator[Point] | None = None

    def run_round(self) -> RoundResult:
        """Runs the next round and writes the record; an error of the file system is reported, not raised.

        A trial that was cut off reports its last recorded round first, without running it: the process that was to
        judge whether the trial goes on from there may have died before it did. Raises `LostRankError`, after which Ray
        begins the trial again.
        """
        if self._has_ended:
            return RoundResult(self._config.trial, 0, done=True)
        try:
            return self._run_round()
        except OSError as error:
            self._watchdog.stop()
            return RoundResult(self._config.trial, len(self._points), done=True, io_error=str(error))

    def _run_round(self) -> RoundResult:
        try:
            if self._rounds is None:
                self._rounds = self._start_rounds()
                if self._points:
                    return self._result(done=False)
            point = next(self._rounds)
        except torch.OutOfMemoryError as error:  # the search knows whether other trials took the memory
            self._watchdog.stop()
            return self._report("running", describe_error(error), out_of_memory=describe_error(error))
        except LostRankError:
            self._watchdog.stop()
            raise
        except Exception as error:
            self._watchdog.stop()
            place = "" if isinstance(error, UserError) else find_failure(error)
            return self._report("failed", f"{describe_error(error)}{place}")
        last = point.round == self._plan.rounds
        if last:
            self._watchdog.stop()
        self._points.append(self._save_point(point, keep=last))
        result = self._report("complete" if last else "running")
        self._drop_partial(0 if self._points[-1].checkpoint else 1)  # not before the record names the newer round
        return result

    def _load(self) -> None:
        """Brings what all trials share to the device: in a round, for the device may have no memory for it."""
        if self._loaded:
            return
        data = self._worker_data
        self._task, self._statistics = data.make_task(), data.make_statistics()
        self._latency = None
        if data.latency is not None:
            dense = self._task.dense_model(torch.device(data.device))
            inputs = find_inputs(dense, self._task.validation, data.latency.batch)
            self._latency = LatencyPredictor(data.latency, inputs)
        self._loaded = True

    def _start_rounds(self) -> Iterator[Point]:
        """The trial's rounds; none of them runs yet."""
        self._load()
        task, self._state = self._task, self._start_state()
        seed, cached = self._config.seed, self._statistics
        teacher = task.make_teacher(self._plan.distill)
        splits = task.train, task.validation
        return prune(self._state, self._plan, *splits, seed, teacher, cached, retrain=self._retrain)

    def _start_state(self) -> State:
        """The state after the trial's last round where it was cut off, else its warm start, else the dense model.

        Rounds that this state has passed are not run again.
        """
        state = initial_state(self._task.dense_model(torch.device(self._worker_data.device)))
        if (kind := self._plan.granularity) not in self._groups:  # whatever a trial starts from
            self._groups[kind] = find_state_groups(state, self._plan, self._task.train)
        state.groups = self._groups[kind]
        saved, start = self._read_cut_off(), self._config.start
        if saved is not None:
            state.rounds_done = self._points[-1].round
        elif start is not None:
            saved = checkpoint.read(self._worker_data.run_dir / start.checkpoint)
            state.rounds_done = self._plan.rounds_within(start.ratios)
        if saved is not None:
            checkpoint.load_weights(state.model, saved, f"trial {self._config.trial}")
            for label, kept in saved.masks.items():
                state.masks[label].copy_(kept)
        return state

    def _read_cut_off(self) -> Checkpoint | None:
        """The weights after the last round of this trial where it was cut off; its points are taken over."""
        path = records.record_path(self._worker_data.run_dir, self._config.trial)
        record = records.read(path) if path.is_file() else None
        if record is None or record.state != "running" or not record.points or record.params != self._config.params:
            return None
        partial, kept = self._partial_path(record.last.round), record.last.checkpoint
        try:
            saved = checkpoint.read(self._worker_data.run_dir / kept if kept else partial)
        except UserError:  # removed or damaged: its rounds are measured again
            return None
        self._points, self._partial = record.points, [partial]
        self._started -= record.seconds
        self._cpu_started -= record.cpu_seconds
        return saved

    def _partial_path(self, round_: int) -> Path:
        """The file of a round's weights that are needed only until the next round."""
        return self._worker_data.run_dir / "rounds" / f"{self._config.trial}-{round_}.partial"

    def _drop_partial(self, most: int) -> None:
        """Deletes such files but for so many newest."""
        while len(self._partial) > most:
            self._partial.pop(0).unlink(missing_ok=True)

    def _give_up(self) -> None:
        """Ends this process, since what hangs cannot be asked to stop; the trial's record says why."""
        try:
            self._report("failed", f"it took longer than --trial-timeout, {self._worker_data.timeout:g} s")
        finally:
            os._exit(1)

    def _save_point(self, point: Point, keep: bool) -> PointRecord:
        """Writes a round's weights; they stay where the point is feasible or to be kept."""
        limits, state = self._worker_data.limits, self._state
        measured = {
            "macs": costs.multiply_adds_share(state.masks, self._worker_data.uses),
            "bytes": len(sparse_format.dumps(self._task.model, state.model, state.masks)),
            **(self._latency.predict(state.model, state.masks, state.groups) if self._latency else {}),
            **measure_further(state.model, self._task.validation, "val"),
        }
        feasible = limits.feasible(point.metric, measured)
        saved = records.checkpoint_name(self._config.trial, point.round) if keep or feasible else None
        path = self._worker_data.run_dir / saved if saved else self._partial_path(point.round)
        checkpoint.write(path, self._task.model, state.model, state.masks, self._task.notes)
        self._partial += [] if saved else [path]
        return PointRecord(
            point.round, point.compression, point.factor, point.metric, point.loss, feasible, point.seconds,
            point.ratios, saved, point.pooled, measured, limits.within(measured),
        )  # fmt: skip

    def _report(self, state: str, reason: str = "", out_of_memory: str = "") -> RoundResult:
        """Writes the trial's record, and returns what is reported to Ray."""
        config, start = self._config, self._config.start
        record = TrialRecord(
            config.trial, state, config.params, dict(self._plan.pruners), self._points, reason,
            parent=start.trial if start else None,
            parent_round=start.round if start else None,
            refines=config.refines,
            gradual=config.gradual,
            seconds=time.perf_counter() - self._started,
            cpu_seconds=self._cpu_clock() - self._cpu_started,
        )  # fmt: skip
        records.write(self._worker_data.run_dir, record)
        return self._result(state != "running" or bool(out_of_memory), out_of_memory)

    def _result(self, done: bool, out_of_memory: str = "") -> RoundResult:
        """What is reported to Ray of the rounds so far."""
        trial = self._config.trial
        if not self._points:
            return RoundResult(trial, 0, done, out_of_memory=out_of_memory)
        last = self._points[-1]
        measures = last.compression, last.factor, last.val_metric, last.val_loss
        return RoundResult(trial, len(self._points), done, "", out_of_memory, *measures)
