"""Compares rules for how many channels of each group leave in a round of gradual pruning.

    cd experiments/channels; export PYTHONPATH=../resnet20:../tasks/resnet20_fashion OMP_NUM_THREADS=1
    python gradual_rules.py MODEL RULE SEED      # small or resnet20; a rule of RULES
    python gradual_rules.py table

From the dense model, rounds leave the same share of the weights each, until a factor; each trains the same number of
steps. Which channels of a group leave is decided by magnitude. `small` is the residual network of scores.py on MNIST,
`resnet20` that of resnet20_fashion.toml on Fashion-MNIST. A rule gives each channel a score that is compared with those
of all other groups; the lowest leave. Each round is a row of results/gradual_rules.csv.
"""

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from compare import add_rows, read_rows
from scores import train_dense
from torch import Tensor, nn

from tune_prune.export.compaction import find_removable
from tune_prune.export.costs import count_uses, multiply_adds_share
from tune_prune.hpo.gradual_pruning import find_params
from tune_prune.pruning import iterative
from tune_prune.pruning.channels.counting import ChannelCounts, count_channels
from tune_prune.pruning.channels.groups import Group
from tune_prune.pruning.channels.removal import find_kept, join_by_name, score_channels, sum_by_channel
from tune_prune.pruning.channels.tracer import find_inputs
from tune_prune.pruning.criteria import score_layers
from tune_prune.pruning.iterative import State, initial_state, round_generator
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.statistics import Context
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.splits import Data, Split

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "gradual_rules.csv"
COLUMNS = ["model", "rule", "seed", "round", "factor", "macs_share", "error", "loss"]


@dataclass(frozen=True)
class Case:
    """How a network is pruned: rounds, the factor of the last, steps of each, learning rate, share of distillation."""

    rounds: int
    factor: float
    steps: int
    lr: float


CASES = {"small": Case(8, 20, 100, 0.05), "resnet20": Case(8, 16, 150, 0.08)}


def load(name: str, seed: int) -> tuple[nn.Module, Data]:
    """The dense model and its data."""
    if name == "small":
        data = load_data("mnist")
        assert isinstance(data.train, Split)
        return train_dense(data.train, seed), data
    from fashion import dense_model

    return dense_model(), load_data("resnet20_fashion:data", print, TaskSettings(precision="bf16"))


def sums(group: Group, values: Mapping[str, Tensor], by_name: Mapping[str, Tensor]) -> Tensor:
    """The sum over all weights of a channel that are left, double [channels]."""
    found = torch.zeros(group.count, dtype=torch.float64)
    for member in group.members:
        if member.tensor in values:
            found += sum_by_channel(member, values[member.tensor] * by_name[member.tensor], group.count)
    return found


Scores = Mapping[str, Tensor]
Rule = Callable[[Group, Scores, Scores, Scores], Tensor]
"""From a group, magnitudes, |g w| and masks, all by the name of a tensor, to a score of each channel."""


def per_weight(group: Group, values: Scores, by_name: Scores) -> Tensor:
    """The mean over the weights of a channel."""
    ones = {name: torch.ones_like(mask) for name, mask in by_name.items()}
    return sums(group, values, by_name) / sums(group, ones, by_name).clamp(min=1)


def relative(group: Group, values: Scores, by_name: Scores) -> Tensor:
    """The score of a channel as a multiple of the mean of those of the group that are left."""
    return score_channels(group, values, by_name) * float(find_kept(group, by_name).sum())


def ranks(group: Group, values: Scores, by_name: Scores) -> Tensor:
    """The place of a channel in its group, from the lowest score on, as a share; those that are gone come first."""
    order = score_channels(group, values, by_name).masked_fill(~find_kept(group, by_name), -1).argsort(stable=True)
    places = torch.arange(group.count, dtype=torch.float64) / group.count
    return torch.empty_like(places).index_copy_(0, order, places)


RULES: dict[str, Rule] = {
    "mean magnitude": lambda group, mag, taylor, by_name: per_weight(group, mag, by_name),
    "relative magnitude": lambda group, mag, taylor, by_name: relative(group, mag, by_name),
    "relative taylor": lambda group, mag, taylor, by_name: relative(group, taylor, by_name),
    "taylor": lambda group, mag, taylor, by_name: sums(group, taylor, by_name),
    "taylor per weight": lambda group, mag, taylor, by_name: per_weight(group, taylor, by_name),
    "uniform": lambda group, mag, taylor, by_name: ranks(group, mag, by_name),
}


def find_ratios(
    rule: str, state: State, groups: Sequence[Group], counts: ChannelCounts, data: Data, target: float, round_: int
) -> Mapping[str, float]:
    """The ratio of each group that a rule gives at a compression."""
    names, generator = [group.name for group in groups], round_generator(1000, round_)
    context = Context(state.model, data.train.draw(Plan.sample, generator), generator)
    by_name = join_by_name(state.model, state.masks)
    found = [score_layers(dict.fromkeys(state.masks, pruner), context) for pruner in ("mag", "taylor1")]
    mag, taylor = (join_by_name(state.model, one) for one in found)

    def read() -> Mapping[str, Tensor]:
        scores = {group.name: RULES[rule](group, mag, taylor, by_name) for group in groups}
        return {group.name: scores[group.name].masked_fill(~find_kept(group, by_name), 0) for group in groups}

    def to_params(ratios: Mapping[str, float]) -> Mapping[str, object]:
        return {name: min(ratios[name], 1 - 1 / counts.groups[name]) for name in names}

    made = find_params([names], read, to_params, counts.compression, target)  # type: ignore[arg-type]
    assert made is not None
    return made  # type: ignore[return-value]


def run(name: str, rule: str, seed: int) -> None:
    """Prunes gradually by a rule, and adds a row a round."""
    case, (dense, data) = CASES[name], load(name, seed)
    inputs = find_inputs(dense, data.train)
    groups = find_removable(dense, inputs).groups
    counts = count_channels(dense, groups)
    validation = data.validation.head(5000)
    print(f"dense: {evaluate(dense, validation).metric:.2f} %", flush=True)
    uses = count_uses(dense, data.train.draw(2, round_generator(0, 0)))
    teacher = data.train.scores(dense) if isinstance(data.train, Split) else dense
    state = initial_state(copy.deepcopy(dense))
    state.groups = groups
    for round_ in range(1, case.rounds + 1):
        target = 1 - case.factor ** (-round_ / case.rounds)
        ratios = find_ratios(rule, state, groups, counts, data, target, round_)
        plan = Plan(
            dict(ratios), dict.fromkeys(ratios, "mag"), final_steps=case.steps, lr=case.lr, granularity="channel",
            distill=0.5, temperature=2,
        )  # fmt: skip
        state.rounds_done = 0
        (point,) = iterative.prune(state, plan, data.train, validation, seed * 1000 + round_, teacher=teacher)
        kept = "/".join(f"{1 - ratio:.2f}" for ratio in point.ratios.values())
        row = {
            "model": name, "rule": rule, "seed": seed, "round": round_, "factor": f"{point.factor:.2f}",
            "macs_share": f"{multiply_adds_share(state.masks, uses):.4f}", "error": f"{point.metric:.2f}",
            "loss": f"{point.loss:.4f}",
        }  # fmt: skip
        add_rows(RESULTS, COLUMNS, [row])
        print(row, kept, flush=True)


def print_table() -> None:
    """Prints for each rule, after every round, the mean error over the seeds and the share of the multiply-adds."""
    rows = read_rows(RESULTS)
    for model in dict.fromkeys(row["model"] for row in rows):
        rounds = range(3, CASES[model].rounds + 1)
        factors = [CASES[model].factor ** (round_ / CASES[model].rounds) for round_ in rounds]
        print(f"| {model} | seeds | " + " | ".join(f"{factor:.1f}x" for factor in factors) + " |")
        print("|---|---|" + "---|" * len(factors))
        for rule in dict.fromkeys(row["rule"] for row in rows if row["model"] == model):
            own = [row for row in rows if (row["model"], row["rule"]) == (model, rule)]
            cells = []
            for round_ in rounds:
                of_round = [row for row in own if int(row["round"]) == round_]
                error, share = (mean(float(row[key]) for row in of_round) for key in ("error", "macs_share"))
                cells.append(f"{error:.2f} % ({100 * share:.0f} %)")
            print(f"| {rule} | {len({row['seed'] for row in own})} | " + " | ".join(cells) + " |")
        print()


def main() -> None:
    """See the top of the file."""
    if sys.argv[1:] == ["table"]:
        print_table()
        return
    torch.set_num_threads(1)
    name, rule, seed = sys.argv[1:]
    run(name, rule, int(seed))


if __name__ == "__main__":
    main()
