"""How a model is pruned: ratios and pruners by layer, rounds, and how each of them retrains.

Schedules: a layer's final ratio and the progress in (0, 1] -> the ratio that is removed by then.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tune_prune.common.registry import Registry
from tune_prune.training.optim import Recipe

MODES = ("layer", "global")
"""Whether each layer has its ratio, or all have one together and the scores decide from where weights go."""


@dataclass(frozen=True)
class Plan:
    """How to prune: final ratio and pruner of every layer that is pruned, rounds, and the retraining of each round.

    `steps` of SGD follow every round but the last, which has `final_steps`; 0 means no retraining. `sample` training
    images serve the statistics that the pruners ask for. With `reload` every round starts from the unpruned model, so
    that its point is that ratio's alone. With `mode` "layer" each layer has its ratio, with "global" all have the same
    one, which is that of all their weights together, and the scores decide from which layers they go. `granularity`
    says what is removed as one (`granularity.py`). `weight_decay` is an L2 penalty on the weights, `l1` an L1 penalty.
    With `scale_dropout` the model's dropout shrinks with its layers (`dropout.py`).
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
    sample: int = 1024
    reload: bool = False
    scale_dropout: bool = False
    mode: str = "layer"
    granularity: str = "weight"

    def __post_init__(self) -> None:
        if self.mode == "global" and len(set(self.ratios.values())) > 1:
            raise ValueError(f"layers that are pruned as one have one ratio, got {dict(self.ratios)}")

    def ratios_at(self, round_: int) -> dict[str, float]:
        """The ratios of a round counted from 1; those of the last round are the final ones exactly."""
        if round_ == self.rounds:
            return dict(self.ratios)
        ratio_at = schedules[self.schedule]
        return {label: ratio_at(ratio, round_ / self.rounds) for label, ratio in self.ratios.items()}

    def rounds_within(self, reached: Mapping[str, float]) -> int:
        """How many rounds, the last left out, ask for no more than the ratios that were reached already."""
        done = 0
        while done + 1 < self.rounds and all(r <= reached.get(k, 0.0) for k, r in self.ratios_at(done + 1).items()):
            done += 1
        return done

    def recipe_at(self, round_: int) -> Recipe:
        """How a round retrains."""
        return Recipe(
            steps=self.final_steps if round_ == self.rounds else self.steps,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            l1=self.l1,
            batch_size=self.batch_size,
            distill=self.distill,
            temperature=self.temperature,
        )


Schedule = Callable[[float, float], float]
schedules: Registry[Schedule] = Registry("schedule")


@schedules.register("linear")
def linear(ratio: float, progress: float) -> float:
    """Equal steps, as torch7-pruner's `-iPrunning`."""
    return ratio * progress


@schedules.register("cubic")
def cubic(ratio: float, progress: float) -> float:
    """Large steps first, small ones as the network gets thin (Zhu and Gupta 2017, eq. 1)."""
    return ratio * (1 - (1 - progress) ** 3)


@schedules.register("geometric")
def geometric(ratio: float, progress: float) -> float:
    """The same share of what is left every time (Frankle and Carbin 2019, sec. 2)."""
    return 1 - math.pow(1 - ratio, progress)


@schedules.register("one-shot")
def one_shot(ratio: float, progress: float) -> float:
    """All at once; the rounds after the first only train on."""
    return ratio
