"""Describes how a model is pruned: ratios and pruners by layer, rounds, the schedule, and the retraining of each round.

A schedule maps a layer's final ratio and the progress in (0, 1] to the ratio that is removed by then.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tune_prune.common.registry import Registry

if TYPE_CHECKING:
    from tune_prune.training.optim import Recipe

MODES = ("layer", "global")
"""Whether each layer has its own ratio, or all have one together and the scores decide which layers lose how much."""

WEIGHTS = "weights/"
"""How the name of a ratio begins that is of a layer's single weights, where channels are pruned as well: `weights/8`
beside the group `8`."""

SLACK = 0.2
"""The most of what is left of a layer that a small round may remove and be left out."""

Schedule = Callable[[float, float], float]
schedules: Registry[Schedule] = Registry("schedule")


@schedules.register("linear")
def linear(ratio: float, progress: float) -> float:
    """Equal steps, as in torch7-pruner's `-iPrunning`."""
    return ratio * progress


@schedules.register("cubic")
def cubic(ratio: float, progress: float) -> float:
    """Large steps first, small ones as the network gets thin (Zhu and Gupta 2017, eq. 1)."""
    return ratio * (1 - (1 - progress) ** 3)


@schedules.register("geometric")
def geometric(ratio: float, progress: float) -> float:
    """The same share of the remaining weights in every step (Frankle and Carbin 2019, sec. 2)."""
    return 1 - math.pow(1 - ratio, progress)


@schedules.register("one-shot")
def one_shot(ratio: float, progress: float) -> float:
    """All in the first round; the rounds after it only retrain."""
    return ratio


@dataclass(frozen=True)
class Plan:
    """How to prune a model; `ratios` and `pruners` are the final ratio and the pruner of every layer that is pruned.

    Every round but the last retrains for `steps` steps of SGD, the last for `final_steps`; 0 means no retraining.
    `Recipe` says what the numbers of the training are. `sample` training images are used for the statistics of the
    pruners. With `reload` every round starts from the unpruned model, so that its point belongs to
    its ratio alone. In mode "layer" each layer has its own ratio; in mode "global" all have the same, which applies to
    all their weights together, and the scores decide which layers lose how much; each keeps one weight at least, unless
    `allow_empty`. `granularity` names the units that are removed whole (`granularity.granularities`); of channels, a
    multiple of `multiple_of` is left of each group, and no fewer than `min_width`, and in a mixture `ratios` also hold
    those of weights (`granularity.MIXTURES`). With `scale_dropout` the rates of dropout fall with the ratios
    (`recalibration.scaled_dropout`).
    """

    ratios: Mapping[str, float]
    pruners: Mapping[str, str]
    rounds: int = 1
    schedule: str = "cubic"
    steps: int = 0
    final_steps: int = 0
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    l1: float = 0.0
    batch_size: int = 128
    distill: float = 0.0
    temperature: float = 4.0
    clip: float = 0.0
    accumulate: int = 1
    label_smoothing: float = 0.0
    lr_schedule: str = "cosine"
    warmup: float = 0.0
    sample: int = 1024
    reload: bool = False
    scale_dropout: bool = False
    mode: str = "layer"
    granularity: str = "weight"
    multiple_of: int = 1
    min_width: int = 1
    allow_empty: bool = False

    def __post_init__(self) -> None:
        if self.mode == "global" and len(set(self.ratios.values())) > 1:
            raise ValueError(f"mode 'global' takes one ratio for all layers, got {dict(self.ratios)}")

    def ratios_at(self, round_: int) -> dict[str, float]:
        """The ratios of a round counted from 1; in the last round, exactly the final ratios."""
        if round_ == self.rounds:
            return dict(self.ratios)
        ratio_at = schedules[self.schedule]
        return {label: ratio_at(ratio, round_ / self.rounds) for label, ratio in self.ratios.items()}

    def rounds_within(self, reached: Mapping[str, float]) -> int:
        """Counts the rounds before the last that what was `reached` already makes superfluous.

        Their ratios are no higher; or they would, in the small steps of the schedule "geometric", remove at most
        `SLACK` of what is left of any layer, which the next round does as well. From the dense model all are run.
        """
        slack, done = SLACK if reached and self.schedule == "geometric" else 0.0, 0

        def is_within(label: str, ratio: float) -> bool:
            before = reached.get(label, 0.0)
            return ratio <= before or 1 - ratio >= (1 - slack) * (1 - before)

        while done + 1 < self.rounds and all(is_within(*one) for one in self.ratios_at(done + 1).items()):
            done += 1
        return done

    def recipe_at(self, round_: int) -> "Recipe":
        """The recipe by which a round retrains."""
        from tune_prune.training.optim import Recipe  # which imports torch; tables and pictures do without it

        return Recipe(
            steps=self.final_steps if round_ == self.rounds else self.steps,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            l1=self.l1,
            batch_size=self.batch_size,
            distill=self.distill,
            temperature=self.temperature,
            clip=self.clip,
            accumulate=self.accumulate,
            label_smoothing=self.label_smoothing,
            lr_schedule=self.lr_schedule,
            warmup=self.warmup,
        )
