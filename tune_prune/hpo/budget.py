"""How much a search may spend: trials, seconds, or both."""

import math
import time
from dataclasses import dataclass, field


@dataclass
class Budget:
    """What ends a search: so many finished trials, so many seconds since `began`, or whichever comes first.

    `reserve` are the seconds of these that are kept for what follows the last trial: the test images, the files.
    """

    trials: int | None = None
    seconds: float | None = None
    began: float = field(default_factory=time.monotonic)
    reserve: float = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    @property
    def remaining(self) -> float:
        """Seconds until the trials have to end; infinite where time is no limit."""
        return math.inf if self.seconds is None else self.seconds - self.reserve - self.elapsed

    def trials_left(self, done: int) -> float:
        """Trials that are still to be run; infinite where their number is no limit."""
        return math.inf if self.trials is None else max(0, self.trials - done)

    def expected_trials(self, started: int, before: int = 0) -> float:
        """How many trials the run will come to, by number or at this pace; `before` were run by earlier processes.

        Of time alone, at least one more than there are.
        """
        most = math.inf if self.trials is None else self.trials
        if self.seconds is None or self.elapsed <= 0:
            return most
        share = min(1.0, self.elapsed / max(self.seconds - self.reserve, 1e-9))
        return min(most, max(started + 1, before + (started - before) / share))
