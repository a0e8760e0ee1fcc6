"""The budget of a search in trials, seconds or both, and why a search ends."""

import math
import time
from dataclasses import dataclass, field
from enum import Enum


class SearchEnd(Enum):
    """Why a search ended: its trials were run, its time was up, more training was not worth it, a user interrupted it,
    too many trials failed, or it could not go on, as with a full disk."""

    BUDGET = "budget"
    TIME_BUDGET = "time budget"
    ENOUGH = "--stop-when"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    ERROR = "error"


@dataclass
class Budget:
    """The budget of a search: finished `trials`, `seconds` since `began`, or whichever comes first; None: no limit.

    `reserve` are the seconds that are kept for the work after the last trial: testing and writing files.
    """

    trials: int | None = None
    seconds: float | None = None
    began: float = field(default_factory=time.monotonic)
    reserve: float = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the search began."""
        return time.monotonic() - self.began

    @property
    def remaining(self) -> float:
        """Seconds until the trials have to end; infinite where time is no limit."""
        return math.inf if self.seconds is None else self.seconds - self.reserve - self.elapsed

    def trials_left(self, done: int) -> float:
        """How many trials are left after `done` ones; infinite where their number is not limited."""
        return math.inf if self.trials is None else max(0, self.trials - done)

    def expected_trials(self, started: int, before: int = 0) -> float:
        """How many trials the run will have, by their number or at the speed so far; `before` are of earlier processes.

        With a time budget alone, it is at least one more than were started.
        """
        most = math.inf if self.trials is None else self.trials
        if self.seconds is None or self.elapsed <= 0:
            return most
        share = min(1.0, self.elapsed / max(self.seconds - self.reserve, 1e-9))
        return min(most, max(started + 1, before + (started - before) / share))
