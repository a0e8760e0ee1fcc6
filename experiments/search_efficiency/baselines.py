"""What needs no search, and the samplers without this search around them, on lenet_300_100, one core.

    OMP_NUM_THREADS=1 python experiments/search_efficiency/baselines.py OUT_DIR METHOD SEED CPU_SECONDS

METHOD is uniform, global or erk (ratios by rule, at factors from 2 to 100, over and over with other seeds), random or
nsga2 (Optuna's samplers). Trials are those of plain.py: from the dense model, 4 rounds of an epoch, the last counts.
Writes OUT_DIR/METHOD-SEED.csv as plain.py does, until the process has used up its CPU seconds.
"""

import csv
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import torch
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler
from plain import dense, plan
from torch import Tensor

from tune_prune.pruning import iterative, masks

CPU = torch.device("cpu")
FACTORS = [2.0 * 50 ** (i / 11) for i in range(12)]


def uniform(weights: dict[str, Tensor], factor: float) -> dict[str, float]:
    """The same ratio in every layer."""
    return dict.fromkeys(weights, 1 - 1 / factor)


def global_magnitude(weights: dict[str, Tensor], factor: float) -> dict[str, float]:
    """The ratios that one threshold over all weights makes."""
    every = torch.cat([weight.abs().flatten() for weight in weights.values()])
    threshold = every.kthvalue(max(1, round(len(every) * (1 - 1 / factor)))).values
    return {label: min(0.999, float((w.abs() <= threshold).float().mean())) for label, w in weights.items()}


def erk(weights: dict[str, Tensor], factor: float) -> dict[str, float]:
    """Densities in proportion to (in + out) / (in * out), at most 1 (Evci et al. 2020, sec. 3, for linear layers)."""
    shares = {label: sum(w.shape) / w.numel() for label, w in weights.items()}
    kept = sum(w.numel() for w in weights.values()) / factor
    whole: set[str] = set()
    while True:
        free = {label for label in weights if label not in whole}
        left = kept - sum(weights[label].numel() for label in whole)
        scale = left / sum(shares[label] * weights[label].numel() for label in free)
        over = {label for label in free if scale * shares[label] > 1}
        if not over:
            return {label: 0.0 if label in whole else 1 - scale * shares[label] for label in weights}
        whole |= over


RULES = {"uniform": uniform, "global": global_magnitude, "erk": erk}


def by_rule(method: str, weights: dict[str, Tensor]) -> Iterator[dict[str, float]]:
    """Ratios level by level, again and again."""
    for factor in itertools.cycle(FACTORS):
        yield RULES[method](weights, factor)


def main() -> None:
    """Run trials until the CPU seconds are used up."""
    out, method, seed, budget = Path(sys.argv[1]).absolute(), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made = dense(out)
    weights = {label: w.detach() for label, w in masks.prunable(made.dense_model(CPU)).items()}
    rule = by_rule(method, weights) if method in RULES else None
    samplers: dict[str, BaseSampler] = {"random": RandomSampler(seed=seed), "nsga2": NSGAIISampler(seed=seed)}
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=samplers.get(method))
    used, part = 0.0, out / f"{method}-{seed}.part"
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trial", "cpu_seconds", "compression", "val_error"])
        for number in itertools.count():
            if used > budget:
                break
            trial = study.ask()
            drawn = rule is None
            ratios = {la: trial.suggest_float(la, 0, 0.995) for la in weights} if drawn else next(rule)  # type: ignore[arg-type]
            state = iterative.initial_state(made.dense_model(CPU))
            *_, point = iterative.prune(state, plan(ratios), made.train, made.validation, seed * 1000 + number)
            study.tell(trial, [point.compression, point.metric])
            before, used = used, time.process_time()
            writer.writerow([number, used - before, point.compression, point.metric])
            file.flush()
    part.rename(part.with_suffix(".csv"))


if __name__ == "__main__":
    main()
