"""How should a promising configuration be refined: trained on as it is, or pruned anew in small steps?

    OMP_NUM_THREADS=1 python experiments/retraining/ways.py > experiments/retraining/ways.txt

A dense model is pruned to about 10x in large steps; from there every variant prunes to the same ratios, chosen by hand,
with the same number of training steps in all. One run from one seed each, one core; errors on 10,000 validation images.
"""

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tune_prune.pruning import iterative, masks
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.pruning.iterative import State
from tune_prune.pruning.plan import Plan
from tune_prune.tasks import task

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """A model, the ratios at which its variants start and end, the steps of its rounds, and the learning rate."""

    model: str
    begin: Mapping[str, float]
    ends: tuple[Mapping[str, float], ...]
    coarse_steps: tuple[int, int]
    steps: int
    lr: float


CASES = (
    Case(
        "lenet5",
        {"1": 0.38, "4": 0.61, "8": 0.926, "10": 0.64, "12": 0.37},
        (
            {"1": 0.404, "4": 0.889, "8": 0.9917, "10": 0.926, "12": 0.713},
            {"1": 0.41, "4": 0.93, "8": 0.9957, "10": 0.945, "12": 0.75},
        ),
        (40, 80),
        1200,
        0.1,
    ),
    Case(
        "lenet_300_100",
        {"2": 0.91, "4": 0.86, "6": 0.45},
        ({"2": 0.96, "4": 0.94, "6": 0.7}, {"2": 0.9835, "4": 0.97, "6": 0.85}),
        (150, 300),
        4000,
        0.15,
    ),
)


def run_variant(
    made: task.Task,
    state: State,
    end: Mapping[str, float],
    rounds: int,
    steps: int,
    case: Case,
    temperature: float = 2.0,
) -> str:
    """Prunes geometrically to `end`, retrains `steps` after each round; returns the factor and error of each."""
    start_ratios = {label: 1 - float(mask.mean()) for label, mask in state.masks.items()}
    found = []
    for number in range(1, rounds + 1):
        part = number / rounds
        ratios = {label: 1 - (1 - start_ratios[label]) ** (1 - part) * (1 - end[label]) ** part for label in end}
        plan = Plan(
            end if number == rounds else ratios, dict.fromkeys(end, "mag"), final_steps=steps, lr=case.lr,
            distill=0.7, temperature=temperature,
        )  # fmt: skip
        state.rounds_done = 0
        (point,) = iterative.prune(state, plan, made.train, made.validation, 100 + number, made.teacher)
        found.append(f"{masks.factor(point.compression):.1f}x {point.metric:.2f}")
    return "  ".join(found)


def main() -> None:
    """Every case in turn."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread")
    for case in CASES:
        made, _ = task.prepare_task(case.model, load_dense_model(case.model, None, ""), "mnist", CPU)
        start = iterative.initial_state(made.dense_model(CPU))
        run_variant(made, start, case.begin, 2, case.coarse_steps[0], case)
        for end in case.ends:
            factor = masks.factor(_compression(start, end))
            print(f"\n{case.model} to {factor:.1f}x, {case.steps} steps, dense {made.dense.metric:.2f} %")
            coarse = copy.deepcopy(start)
            print(f"  {'one large step':26}", run_variant(made, coarse, end, 1, case.coarse_steps[1], case), flush=True)
            for name, rounds, state in (("the same, trained on", 1, coarse), *(_anew(n, start) for n in (1, 4, 8, 16))):
                began = time.perf_counter()
                said = run_variant(made, copy.deepcopy(state), end, rounds, case.steps // rounds, case)
                print(f"  {name:26}", said, f"  ({time.perf_counter() - began:.0f} s)", flush=True)
            said = run_variant(made, copy.deepcopy(start), end, 4, case.steps // 4, case, temperature=4.0)
            print(f"  {'temperature 4: 4 rounds':26}", said, flush=True)


def _anew(rounds: int, start: State) -> tuple[str, int, State]:
    return f"anew in {rounds} round{'s' * (rounds > 1)}", rounds, start


def _compression(state: State, ratios: Mapping[str, float]) -> float:
    totals = {label: mask.numel() for label, mask in state.masks.items()}
    return sum(masks.count_removed(ratios[label], n) for label, n in totals.items()) / sum(totals.values())


if __name__ == "__main__":
    main()
