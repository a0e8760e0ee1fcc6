"""A run's trials under Ray Tune: what Ray asks a searcher.

Ray's own OptunaSearch drops constraints without a word, tells a stopped trial as complete and cannot resume a study;
hence this one. Ray's snapshots of its searchers are not used.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray.tune.search import Searcher

from tune_prune.hpo.trials import Trials

DIED = "its worker process died, again after each retry"


class StudySearcher(Searcher):
    """Knows Ray's names of the trials that run, and calls `on_change` whenever one begins, ends a round or ends.

    `alone` is to be set to whether no trial shares its device's memory with another: one that finds no room then has
    failed; else the searcher is `crowded`, and trials are to be run again with fewer at a time. `broken` is what went
    wrong with the search itself and ends it: a full disk, say.
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

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The configuration of a trial; `Searcher.FINISHED` where other processes run all that are missing."""
        number = self.trials.start_next()
        if number is None:
            return str(Searcher.FINISHED)
        self._numbers[trial_id] = number
        self._on_change(self.trials)
        return self.trials.worker_config(number)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A round ended; what it measured is in the trial's record."""
        with self._recording_errors():
            self._on_change(self.trials)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial ended, or was only interrupted."""
        if self.fatal_error is None:  # else it stays as one that was interrupted
            with self._recording_errors():
                self._end(trial_id, result or {}, error)

    def _end(self, trial_id: str, result: Mapping[str, Any], error: bool) -> None:
        if "io_error" in result:
            raise OSError(result["io_error"])
        no_room = result.get("out_of_memory", "")
        ended = self.trials.end(
            self._numbers.pop(trial_id), DIED if error else no_room if self.exclusive_device else ""
        )
        self.out_of_memory = self.out_of_memory or (bool(no_room) and not ended)
        self._on_change(self.trials)

    def should_stop(self, trial_id: str) -> bool:
        """Whether to stop a trial after the round that it has just ended."""
        with self._recording_errors():
            return self.trials.early_stopping.should_stop(self._numbers[trial_id])
        return False

    @contextmanager
    def _recording_errors(self) -> Iterator[None]:
        """What is raised here breaks the search. Ray would take it for the trial's fault, and begin that again."""
        try:
            yield
        except Exception as error:
            self.fatal_error = self.fatal_error or error

    def failure_reason(self) -> str:
        """Why to end the search before its budget, or nothing."""
        return (
            self.trials.early_stopping.failure_reason()
            if self.fatal_error is None
            else f"{type(self.fatal_error).__name__}: {self.fatal_error}"
        )

    def has_work(self) -> bool:
        """Whether there is a trial to begin, once other processes have gone on."""
        there = self.trials.has_work
        self._on_change(self.trials)
        return there

    def restart_interrupted(self) -> None:
        """The trials that ran beside one that found no room are to be run again."""
        self.trials.restart_interrupted()
        self._numbers, self.out_of_memory = {}, False

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: see `__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: see `__getstate__`."""
