"""Draws a search that runs: lines of a terminal, none of them wider than it, that stay where they are."""

import sys
from dataclasses import dataclass

import psutil
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tune_prune.common.printable import make_printable
from tune_prune.workflows.status import AREA, Status, format_clock, sparkline

LABEL = 13
"""Columns of the words that stand before each line."""

WIDE = 120
"""Columns of a terminal in which a forecast has one line; elsewhere it has two."""

GIB = 2**30


@dataclass
class Phase:
    """A part of a search that a user waits for: its name, when it began, and how many of its parts are done.

    A `total` of 0 says that it has no parts that are counted.
    """

    name: str
    began: float
    total: int = 0
    done: int = 0

    def advance(self) -> None:
        """Counts a part that is done."""
        self.done += 1

    def seconds_left(self, now: float) -> float | None:
        """How long the phase still takes at its pace so far; None where that is not known."""
        if not self.total or not self.done:
            return None
        return (now - self.began) / self.done * (self.total - self.done)


def draw_phase(phase: Phase, now: float, width: int) -> list[Text | Table]:
    """Draws a phase without trials: its name, how much of it is done, and its time."""
    count = f" {phase.done}/{phase.total}" if phase.total else ""
    left = phase.seconds_left(now)
    clock = f"{format_clock(now - phase.began)} elapsed" + ("" if left is None else f", {format_clock(left)} left")
    lines: list[Text | Table] = [_draw_title(phase.name + count, clock, width)]
    if phase.total:
        lines.append(_draw_bar(phase.done / phase.total, "", width))
    return lines


def draw_status(status: Status, since: float, width: int, rows: int) -> list[Text | Table]:
    """Draws a status that was made `since` seconds ago; `rows` is how many running trials it has lines for."""
    left = None if status.seconds_left is None else max(0.0, status.seconds_left - since)
    clock = f"{format_clock(status.seconds + since)} elapsed, {format_clock(left)} left"
    counts = f"{status.done} done, {len(status.running)} running, {status.stopped} stopped, {status.failed} failed"
    area = f"{status.hypervolume:.4f}, {AREA}  "
    lines: list[Text | Table] = [
        _draw_title(status.phase, clock, width),
        _draw_bar(status.share, f"{status.format_done()} trials", width),
        _draw_line("best", status.format_best(), width),
        _draw_line("hypervolume", area + sparkline(status.history, max(0, min(60, width - LABEL - len(area)))), width),
        _draw_line("trials", counts, width),
        _draw_line("this machine", describe_machine(width - LABEL), width),
    ]
    parts = _wrap(status.forecast or "none yet, too few trials have ended", width - LABEL)
    parts += [""] * ((1 if width >= WIDE else 2) - len(parts))
    lines += [_draw_line("" if at else "forecast", part, width) for at, part in enumerate(parts)]
    running = list(status.running)[:rows]
    lines += [_draw_line(f"trial {one.number}", one.describe(width - LABEL), width) for one in running]
    return lines + [Text(" ")] * (rows - len(running))


def describe_machine(width: int) -> str:
    """How busy processors are and how full memory is, in at most so many characters."""
    memory = psutil.virtual_memory()
    used = (memory.total - memory.available) / GIB
    parts = [f"CPU {psutil.cpu_percent():.0f} %", f"memory {used:.1f} of {memory.total / GIB:.1f} GB"]
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():  # a search without a GPU would start CUDA by asking
        free, total = torch.cuda.mem_get_info()
        parts.append(f"GPU memory {(total - free) / GIB:.1f} of {total / GIB:.1f} GB")
    while len(", ".join(parts)) > width and len(parts) > 1:
        parts.pop()
    return ", ".join(parts)


def _draw_title(name: str, clock: str, width: int) -> Text:
    name = name[: max(0, width - len(clock) - 2)]
    gap = " " * max(1, width - len(name) - len(clock))
    return Text.assemble((name, "bold"), gap, clock, no_wrap=True, overflow="crop")


def _draw_bar(share: float, text: str, width: int) -> Table:
    """A bar over the width, with a text to its right."""
    bar = Table.grid(padding=0)
    if text:
        bar.add_row(ProgressBar(1.0, share, width=width - len(text) - 2), f"  {text}")
    else:
        bar.add_row(ProgressBar(1.0, share, width=width))
    return bar


def _draw_line(label: str, text: str, width: int) -> Text:
    made = Text(label.ljust(LABEL), style="dim", no_wrap=True, overflow="crop")
    return made.append(make_printable(text)[: width - LABEL], style="not dim")


def _wrap(text: str, width: int) -> list[str]:
    """Breaks a text at its spaces into lines of at most so many characters."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
