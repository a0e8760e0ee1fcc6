"""The trajectories of candidates.py: what ways there are to prune and retrain, and how each goes, step by step."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

FACTORS = (25.0, 100.0)
SHAPES = ((300, 784), (100, 300), (10, 100))
SIZES = [rows * columns for rows, columns in SHAPES]
QUANTUM = 50
"""Masks change at multiples of so many steps alone."""


@dataclass(frozen=True)
class Way:
    """How a trajectory goes.

    `rule` gives the layers' ratios, and `ratios` how much of each layer is kept, relative to ERK. `last` is how many
    times as long the last round trains as the first; `growth` is how much longer a round is than the one before. `lr`
    falls in each round by `shape`. `noise` is the deviation of what is added to the pixels, in [0, 1], and `dropout`
    the share of them that is set to 0, both anew in each step. With `returning`, removed weights keep their values and
    are trained on, by `leak` of their gradients, and masks are chosen anew every QUANTUM steps in the first `free` of a
    round. With `grown`, that share of the kept weights, falling to none, is exchanged then for those with the largest
    gradients. `average` is the decay of an exponential moving average of the weights, which is what is measured, and
    with `onward` what the next round begins from. `soup` networks train apart in the last round, each with its share of
    the steps, and are averaged.
    """

    name: str
    rule: str = "erk"
    rounds: int = 16
    last: float = 3.0
    growth: float = 1.0
    lr: float = 0.1
    shape: str = "cosine"
    distill: float = 0.7
    temperature: float = 2.0
    weight_decay: float = 0.0
    noise: float = 0.0
    dropout: float = 0.0
    returning: bool = False
    leak: float = 1.0
    grown: float = 0.0
    free: float = 0.7
    average: float = 0.0
    onward: bool = False
    soup: int = 1
    ratios: tuple[float, ...] = ()


BASE = Way("base")
GROUPS: dict[str, list[Way]] = {
    "masks": [
        BASE,
        replace(BASE, name="returning", returning=True),
        replace(BASE, name="returning, a tenth of the gradients", returning=True, leak=0.1),
        replace(BASE, name="0.1 of them exchanged by gradient", grown=0.1),
        replace(BASE, name="0.3 of them exchanged by gradient", grown=0.3),
    ],
    "returning": [
        BASE,
        replace(BASE, name="returning, a tenth of the gradients", returning=True, leak=0.1),
        replace(BASE, name="returning, a tenth, for a third of a round", returning=True, leak=0.1, free=0.35),
        replace(BASE, name="returning, a thirtieth", returning=True, leak=0.03),
        replace(BASE, name="returning, a quarter", returning=True, leak=0.25),
    ],
    "averages": [
        BASE,
        replace(BASE, name="average 0.99", average=0.99),
        replace(BASE, name="average 0.998", average=0.998),
        replace(BASE, name="average 0.99, constant rate", average=0.99, shape="constant"),
        replace(BASE, name="average 0.99, constant rate, onward", average=0.99, shape="constant", onward=True),
        replace(BASE, name="soup of 3", soup=3),
    ],
    "pixels": [
        BASE,
        replace(BASE, name="noise 0.1", noise=0.1),
        replace(BASE, name="noise 0.3", noise=0.3),
        replace(BASE, name="dropout 0.1", dropout=0.1),
        replace(BASE, name="dropout 0.2", dropout=0.2),
    ],
    "rates": [
        BASE,
        replace(BASE, name="rate 0.05", lr=0.05),
        replace(BASE, name="rate 0.2", lr=0.2),
        replace(BASE, name="linear", shape="linear"),
        replace(BASE, name="linear, rate 0.15", shape="linear", lr=0.15),
    ],
    "rounds": [
        BASE,
        replace(BASE, name="4 rounds", rounds=4),
        replace(BASE, name="8 rounds", rounds=8),
        replace(BASE, name="growing steps", growth=1.15),
        replace(BASE, name="last round as long", last=1.0),
        replace(BASE, name="last round 8 times as long", last=8.0),
    ],
    "losses": [
        BASE,
        replace(BASE, name="distilled 0.4", distill=0.4),
        replace(BASE, name="distilled 1", distill=1.0),
        replace(BASE, name="temperature 4", temperature=4.0),
        replace(BASE, name="distilled 1, temperature 4", distill=1.0, temperature=4.0),
        replace(BASE, name="weight decay 1e-4", weight_decay=1e-4),
        replace(BASE, name="weight decay 1e-3", weight_decay=1e-3),
    ],
    "rules": [
        BASE,
        replace(BASE, name="global", rule="global"),
        replace(BASE, name="lamp", rule="lamp"),
        replace(BASE, name="uniform", rule="uniform"),
        replace(BASE, name="ERK, second layer x2", ratios=(1.0, 2.0, 1.0)),
        replace(BASE, name="ERK, second layer x0.5", ratios=(1.0, 0.5, 1.0)),
        replace(BASE, name="ERK, third layer x0.5", ratios=(1.0, 1.0, 0.5)),
    ],
}


@dataclass
class Net:
    """One network of the stack: its way, seed and target, and the first step of each round, with the end."""

    way: Way
    seed: int
    target: float
    member: int
    starts: list[int]


def boundaries(way: Way, steps: int) -> list[int]:
    """The steps at which rounds begin, and the last one's end, in whole quanta."""
    shares = [way.growth**i for i in range(way.rounds)]
    shares[-1] *= way.last
    if way.soup > 1:
        shares[-1] /= way.soup  # each of the networks has its share, so that all together cost as much
        steps = round(steps * sum(shares) / (sum(shares) - shares[-1] + way.soup * shares[-1]))
    ends = [0.0]
    for share in shares:
        ends.append(ends[-1] + share)
    return [QUANTUM * round(steps * end / ends[-1] / QUANTUM) for end in ends]


def kept_by_rule(way: Way, factor: float) -> list[int]:
    """How many weights each layer keeps."""
    kept = sum(SIZES) / factor
    if way.rule == "uniform":
        return [max(1, round(size / factor)) for size in SIZES]
    weights, whole = [float(rows + columns) for rows, columns in SHAPES], set[int]()
    if way.ratios:
        weights = [weight * (way.ratios[i] if i else 1.0) for i, weight in enumerate(weights)]
    while True:
        free = [i for i in range(3) if i not in whole]
        scale = (kept - sum(SIZES[i] for i in whole)) / sum(weights[i] for i in free)
        over = {i for i in free if scale * weights[i] > SIZES[i]}
        if not over:
            return [SIZES[i] if i in whole else max(1, round(scale * weights[i])) for i in range(3)]
        whole |= over


def kept_at(net: Net, round_: int) -> list[int]:
    """What each layer keeps in a round, counted from 1: the same share of what is left goes in every round."""
    final = kept_by_rule(net.way, net.target)
    share = round_ / net.way.rounds
    return [max(1, round(size * (k / size) ** share)) for k, size in zip(final, SIZES, strict=True)]


def learning_rates(net: Net, steps: int) -> Tensor:
    """The learning rate of each step."""
    rates = torch.zeros(steps)
    for begin, end in zip(net.starts, net.starts[1:], strict=False):
        share = torch.arange(end - begin) / max(1, end - begin)
        if net.way.shape == "cosine":
            shape = (1 + torch.cos(math.pi * share)) / 2
        else:
            shape = 1 - share if net.way.shape == "linear" else torch.ones_like(share)
        rates[begin:end] = net.way.lr * shape
    return rates
