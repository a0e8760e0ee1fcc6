"""How far a search is, and how that is said in a line."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tune_prune.results.trial_params import GROUP, PRUNER, RATIO, TrialParams

BLOCKS = " ▁▂▃▄▅▆▇█"

AREA = "share of the possible area"
"""What hypervolume is, where it stands on the screen."""


@dataclass(frozen=True)
class RunningTrial:
    """A trial that runs: its number, the round that it is in, of how many, and its `latest` point in words.

    `latest` is empty before the first. `refines` is the trial that it refines, `gradual` says that it is a round of
    gradual pruning; `params` are the parameters by name, those that are the same in all trials left out.
    """

    number: int
    round: int
    rounds: int
    latest: str
    params: Mapping[str, object]
    refines: int | None = None
    gradual: bool = False

    def describe(self, width: int) -> str:
        """Where the trial is and what it tries, in at most so many characters; what does not fit is left out."""
        refines = "" if self.refines is None else f" refining trial {self.refines}"
        what = "gradual pruning" if self.gradual else f"round {self.round}/{self.rounds}{refines}"
        head = what + (f", {self.latest}" if self.latest else "")
        ratios = {name: float(str(value)) for name, value in self.params.items() if name.startswith((RATIO, GROUP))}
        others = ", ".join(_format_param(*item) for item in self.params.items() if item[0] not in ratios)
        each = ", ".join(f"{name.partition('/')[2]}: {ratio:.3g}" for name, ratio in ratios.items())
        each = f"ratios {each}" if each else ""
        plain = "ratios " + " ".join(f"{ratio:.3g}" for ratio in ratios.values()) if ratios else ""
        span = f"ratios {min(ratios.values()):.3g} to {max(ratios.values()):.3g}" if ratios else ""
        pruner = str(self.params.get("pruner", ""))
        choices = ((others, each), (others, plain), (pruner, plain), (plain,), (others, span), (pruner, span), (span,))
        texts = ["; ".join(filter(None, (head, *parts))) for parts in choices]
        return next((text for text in texts if len(text) <= width), head[:width])


def select_params(params: TrialParams, varying: Collection[str]) -> dict[str, object]:
    """The parameters of a trial whose names are among the `varying` ones; those of layers without their group's."""
    columns = params.to_columns()
    return {name: value for name, value in columns.items() if name in varying}


def _format_param(name: str, value: object) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    if name == "pruner":
        return text
    return f"{name.removeprefix(PRUNER)} {text}"


@dataclass(frozen=True)
class Status:
    """How far a search is: its phase, its trials by state, its best point, and its time in seconds.

    `budget` is the number of trials, None where time alone ends the search; `share` in [0, 1] is the used part of the
    budget. `best_factor` and `best`, the metric with its unit, belong to the most compressed feasible point, and are
    None before there is one. `history` is the hypervolume after each trial that has ended; `forecast` says what it will
    be, and is empty before anything can be said.
    """

    budget: int | None
    share: float
    done: int
    running: Sequence[RunningTrial]
    stopped: int
    failed: int
    best_factor: float | None
    best: str | None
    hypervolume: float
    history: Sequence[float]
    seconds: float
    seconds_left: float | None
    forecast: str = ""
    phase: str = "search"

    def line(self) -> str:
        """The status in one plain line."""
        return (
            f"{self.phase}: {self.format_done()} trials done, {len(self.running)} running, {self.stopped} stopped, "
            f"{self.failed} failed; best {self.format_best()}; hypervolume {self.hypervolume:.4f} ({AREA}); "
            f"{format_clock(self.seconds)} elapsed, {format_clock(self.seconds_left)} left"
            f"{f'; {self.forecast}' if self.forecast else ''}"
        )

    def format_done(self) -> str:
        """The number of trials that have ended, and of how many."""
        return str(self.done) if self.budget is None else f"{self.done}/{self.budget}"

    def format_best(self) -> str:
        """The most compressed feasible point."""
        return "none yet" if self.best_factor is None else f"{self.best_factor:.1f}x at {self.best}"


def format_clock(seconds: float | None) -> str:
    """Formats seconds as h:mm:ss or m:ss; a dash stands for an unknown time."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def sparkline(values: Sequence[float], width: int = 12) -> str:
    """Draws a history with at most `width` blocks, from 0 to its maximum; each is the last value of its part."""
    if not values or max(values) <= 0:
        return ""
    count = min(width, len(values))
    last = [values[(i + 1) * len(values) // count - 1] for i in range(count)]
    return "".join(BLOCKS[round((len(BLOCKS) - 1) * value / max(values))] for value in last)
