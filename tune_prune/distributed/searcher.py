"""The searcher that Ray Tune asks for trials.

Ray's own OptunaSearch drops constraints without a word, reports a stopped trial as complete and cannot resume a study;
hence this one. Ray's snapshots of its searchers are not used.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray.tune.search import Searcher

from tune_prune.distributed.trainable import to_ray
from tune_prune.hpo.trials import Trials

DIED = "its worker process died, again after each retry"


class StudySearcher(Searcher):
    """Maps Ray's ids to the numbers of trials, and calls `on_change` when a trial starts, ends a round or ends.

    With an `exclusive_device`, a trial that runs out of memory has failed. Without one, `out_of_memory` becomes true,
    and the trials are to be run again with fewer at a time. `fatal_error` is an error of the search itself, such as a
    full disk; it ends the search.
    """

    def __init__(self, trials: Trials, on_change: Callable[[Trials], None]) -> None:
        super().__init__()
        self.trials, self._on_change = trials, on_change
        self._numbers: dict[str, int] = {}
        self.exclusive_device = True
        self.out_of_memory = False
        self.fatal_error: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its searchers for snapshots, and the study is what a run resumes from."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The configuration of the next trial; `FINISHED` after an error, or where others run all that remain.

        None where the trials that are left are kept for gradual pruning: Ray asks again.
        """
        with self._keep_error():
            if self.trials.should_wait():
                return None
            number = self.trials.start_next()
            if number is not None:
                self._numbers[trial_id] = number
                self._on_change(self.trials)
                return to_ray(self.trials.worker_config(number))
        return str(Searcher.FINISHED)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Called when a round has ended; what it measured is in the trial's record."""
        with self._keep_error():
            self._on_change(self.trials)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Called when a trial has ended or was cut off; after a fatal error every trial counts as cut off."""
        if self.fatal_error is None:
            with self._keep_error():
                self._end(trial_id, result or {}, error)

    def _end(self, trial_id: str, result: Mapping[str, Any], error: bool) -> None:
        if "io_error" in result:
            raise OSError(result["io_error"])
        reason = result.get("out_of_memory", "")
        failure = DIED if error else reason if self.exclusive_device else ""
        ended = self.trials.end(self._numbers.pop(trial_id), failure)
        self.out_of_memory = self.out_of_memory or (bool(reason) and not ended)
        self._on_change(self.trials)

    def should_stop(self, trial_id: str) -> bool:
        """Whether to stop a trial after the round that it has just ended."""
        with self._keep_error():
            return self.trials.early_stopping.should_stop(self._numbers[trial_id])
        return False

    @contextmanager
    def _keep_error(self) -> Iterator[None]:
        """Keeps an error as the search's own: Ray would blame the trial and start it again."""
        try:
            yield
        except Exception as error:
            self.fatal_error = self.fatal_error or error

    def failure_reason(self) -> str:
        """Why to end the search before its budget, or ""."""
        if self.fatal_error is not None:
            return f"{type(self.fatal_error).__name__}: {self.fatal_error}"
        return self.trials.early_stopping.failure_reason()

    def has_work(self) -> bool:
        """Whether there is a trial to restart that another process has left."""
        has_work = self.trials.has_work
        self._on_change(self.trials)
        return has_work

    def restart_cut_off(self) -> None:
        """Restarts the trials that were cut off because one of them ran out of memory."""
        self.trials.restart_cut_off()
        self._numbers, self.out_of_memory = {}, False

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing: see `__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Restores nothing: see `__getstate__`."""
