"""Proposes the space of a model: which ratios for which layers, and its text for the trials that time allows."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from tune_prune.hpo.groups import Shape
from tune_prune.hpo.schedule_proposal import FEW_TRIALS_ROUNDS, Schedule
from tune_prune.pruning.granularity import BLOCK, BLOCK_CHANNEL, CHANNEL, HEAD
from tune_prune.pruning.plan import Plan

MOST_PATTERNS = 12
"""The most lines of ratios: layers of a larger model share one by the beginning of their names."""

LEAST_WEIGHTS = 30
"""A layer may lose all weights but about so many."""

LARGE = 100_000
"""Weights from which on a layer is expected to lose most of them."""

POINTS = (0.5, 0.75, 0.9, 0.95, 0.98)
"""Ratios of the initial points where measuring the layers would take too long."""

WHOLE_UNITS = ("filter", "neuron", CHANNEL, HEAD, BLOCK, BLOCK_CHANNEL)
"""Granularities that remove no single weights, and so fewer weights in all."""

FAR_ENDS, FAR_ENDS_OF_UNITS = (50, 250), (16, 40)
"""Factors at which a search ends that has time for few trials, and one that has more; and where whole units leave."""

TEMPERATURE = 2
"""The temperature of distillation; a higher one lets gradients grow with its square, and lower rates alone go well."""


@dataclass(frozen=True)
class RatioLine:
    """A line of [space.ratio]: a pattern, its bounds, the layers that it stands for, and all their weights."""

    pattern: str
    low: float
    high: float
    layers: int
    weights: int

    def __str__(self) -> str:
        domain = f"low = {self.low:g}, high = {self.high:g}" + (', group = "erk"' if self.layers > 1 else "")
        what = f"{self.layers} layers, " if self.layers > 1 else ""
        return f"{json.dumps(self.pattern, ensure_ascii=False)} = {{{domain}}}  # {what}{self.weights:,} weights"


@dataclass(frozen=True)
class Training:
    """How trials train: a learning rate that the dense model bears, the dense model's share of the loss, the batches.

    An `epoch` has so many steps. `sample` images are used for statistics; where the layers are `measured`, initial
    trials follow from that.
    """

    lr: float
    distill: float
    batch_size: int
    epoch: int
    sample: int = Plan.sample
    measured: bool = True


def propose_ratios(shapes: Mapping[str, Shape]) -> list[RatioLine]:
    """A line for each layer, or for layers whose names begin alike where there are many; the last layer is alone.

    Single layers come first, since the first pattern that matches counts, and what matches all comes last.
    """
    totals = {label: math.prod(shape) for label, shape in shapes.items()}
    labels = list(totals)
    groups = [*_split_names(labels[:-1], MOST_PATTERNS - 1), labels[-1:]]
    lines = []
    for group in filter(None, groups):
        weights, smallest = sum(totals[label] for label in group), min(totals[label] for label in group)
        pattern = group[0] if len(group) == 1 else ".".join([*_common_parts(group), "*"])
        is_last = group == labels[-1:]
        lines.append(RatioLine(pattern, *_find_bounds(smallest, weights, is_last), len(group), weights))
    return sorted(lines, key=lambda line: (line.layers > 1, line.pattern == "*"))


def _find_bounds(smallest: int, weights: int, is_last: bool) -> tuple[float, float]:
    """The lowest and the highest ratio of layers: large ones are expected to lose more, the last one less."""
    most = 0.998 if weights >= LARGE else 0.99
    high = min(most, 1 - min(0.5, LEAST_WEIGHTS / smallest))
    high = min(high, 0.9) if is_last else high
    low = 0.0 if weights < 2000 or is_last else 0.5 if weights >= LARGE else 0.3
    return low, round(high, 3)


def _split_names(labels: Sequence[str], most: int) -> list[list[str]]:
    """Groups labels by the first parts of their names, as many parts as `most` groups allow; the order stays."""
    if len(labels) <= most:
        return [[label] for label in labels]
    groups = [list(labels)]
    while True:
        finer = [part for group in groups for part in _split_once(group)]
        if not len(groups) < len(finer) <= most:
            return groups
        groups = finer


def _split_once(group: Sequence[str]) -> list[list[str]]:
    """Splits labels at the first part of their names in which they differ; those that share it stay together."""
    if len(group) == 1:
        return [list(group)]
    depth = len(_common_parts(group)) + 1
    parts: dict[str, list[str]] = {}
    for label in group:
        name = label.split(".")
        parts.setdefault(label if len(name) <= depth else ".".join([*name[:depth], "*"]), []).append(label)
    return list(parts.values())


def _common_parts(group: Sequence[str]) -> Sequence[str]:
    """The parts of their names with which all of these begin, but for the last part of any."""
    parts = zip(*(label.split(".")[:-1] for label in group), strict=False)
    return [one[0] for one in takewhile(lambda of_all: len(set(of_all)) == 1, parts)]


def write_proposal(
    task: Mapping[str, object],
    comments: Sequence[str],
    ratios: Sequence[RatioLine],
    schedule: Schedule,
    training: Training,
    exclude: Sequence[str] = (),
    granularity: object = "weight",
) -> str:
    """The text of a space's file, with `comments` at the top; layers of `exclude` are not pruned.

    `granularity` is what is removed as one, or several of which trials choose.
    """
    gradual, lr = schedule.rounds == FEW_TRIALS_ROUNDS, training.lr
    far_end = _find_far_end(schedule, granularity)
    pruners = '["mag", "taylor1"]    # by size; by what a weight does to the loss'
    rows = [
        *(f"# {line}" for line in comments),
        "",
        "[task]",
        *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in task.items()),
        "",
        "[space]",
        'pruner = "mag"                 # by size' if gradual else f"pruner = {pruners}",
        *([f"granularity = {json.dumps(granularity)}    # what is removed as one"] if granularity != "weight" else []),
        *(["exclude = " + json.dumps(list(exclude), ensure_ascii=False)] if exclude else []),
        *_write_rounds(schedule, training),
        f"lr = {{low = {lr / 3:.2g}, high = {1.2 * lr:.2g}, log = true}}",
        *([f"batch_size = {training.batch_size}"] if training.batch_size != Plan.batch_size else []),
        *([f"sample = {training.sample}    # training samples for taylor1"] if training.sample < Plan.sample else []),
        f"distill = {training.distill:g}        # the dense model's share of the loss",
        f"temperature = {TEMPERATURE}",
        "",
        "[space.ratio]                  # the share of the weights to remove; the first pattern that matches counts",
        *map(str, ratios),
        "",
        "[goal]",
        f"budget = {schedule.trials}    # trials",
        "",
        *_write_initial(schedule, training, far_end),
        *_write_gradual(schedule, training, far_end),
        "",
        "[refine]",
        f"share = {schedule.refine_share:.3g}    # of the trials prune the most promising ones anew, in small steps",
        f"rounds = {8 if schedule.is_short else 12}",
        f"steps = {schedule.refine_steps}",
        f"lr = {lr:g}",
    ]
    return "\n".join(rows) + "\n"


def _write_rounds(schedule: Schedule, training: Training) -> list[str]:
    """The lines of the rounds of a trial."""
    steps = f"steps = {schedule.steps}     # of training after a round; an epoch has {training.epoch:,}"
    if schedule.rounds == FEW_TRIALS_ROUNDS:
        rounds = f"rounds = {schedule.rounds}                     # each makes a point of the front"
        return [rounds, 'schedule = "geometric"', steps, f"final_steps = {schedule.steps}"]
    rounds = "rounds = 2                     # 87.5 % of the ratio, then all of it"
    return [rounds, steps, f"final_steps = {2 * schedule.steps}"]


def _write_gradual(schedule: Schedule, training: Training, far_end: int) -> list[str]:
    """The lines of gradual pruning, where there is any."""
    if not schedule.chain_rounds:
        return []
    return [
        "",
        "[gradual]                      # one long way to the far end, by one threshold for all layers",
        f"rounds = {schedule.chain_rounds}",
        f"max_factor = {far_end}",
        f"steps = {schedule.chain_rounds * schedule.chain_steps}    # over all rounds together",
        f"lr = {training.lr:g}",
    ]


def _find_far_end(schedule: Schedule, granularity: object) -> int:
    """How many times fewer weights levels and gradual pruning end at."""
    short, long = FAR_ENDS_OF_UNITS if granularity in WHOLE_UNITS else FAR_ENDS
    return short if schedule.is_short else long


def _write_initial(schedule: Schedule, training: Training, far_end: int) -> list[str]:
    """The lines of what is tried first: levels of compression, or fixed ratios where no layer is measured."""
    if training.measured:
        return [
            "[initial]",
            f"trials = {6 if schedule.is_short else 16}   # levels of compression that are tried first",
            "min_factor = 2",
            f"max_factor = {far_end}",
        ]
    points = POINTS[-1:] if schedule.rounds == FEW_TRIALS_ROUNDS else POINTS
    lines = ["[initial]", "trials = 0    # levels would need each layer to be measured, which takes too long here"]
    for ratio in points:
        lines += ["", "[[initial.point]]", f"ratio = {ratio}", 'pruner = "mag"', f"lr = {training.lr:g}"]
    return lines
