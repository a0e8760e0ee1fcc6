"""Measures how the factors of l1 and l2 depend on the penalty's strength and on the distance that they can travel.

    python experiments/pruners/strengths.py > experiments/pruners/strengths.txt

Errors are in percent, on the validation images, of all layers pruned by a ratio without retraining; one seed. With
"falling" the step size falls towards the end.
"""

import torch

from tune_prune.pruning import gates, masks
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.pruning.masks import prunable
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.statistics import Context
from tune_prune.tasks import task
from tune_prune.tasks.metrics import evaluate

CPU = torch.device("cpu")
RATIOS = (0.5, 0.7, 0.8, 0.9)
CASES = [(distance, strength, False) for distance in (0.3, 1.0, 3.0) for strength in (1e-4, 3e-4, 1e-3)]
CASES += [(distance, 3e-4, True) for distance in (1.0, 1.3, 2.0, 3.0)]
SLOPES: dict[str, gates.Penalty] = {"l1": torch.sign, "l2": lambda gate: gate}


def measure_errors(prepared: task.Task, scores: dict[str, torch.Tensor]) -> list[str]:
    """Measures the error at every ratio."""
    errors = []
    for ratio in RATIOS:
        model = prepared.dense_model(CPU)
        dense = masks.dense_masks(model)
        masks.apply(model, {label: masks.shrink(dense[label], scores[label], ratio) for label in dense})
        errors.append(f"{evaluate(model, prepared.validation).metric:.1f}")
    return errors


def main() -> None:
    """Prints the errors of every penalty in every case on two models."""
    for model in ("lenet_300_100", "lenet5"):
        prepared, _ = task.prepare_task(model, load_dense_model(model, None, ""), "mnist", CPU)
        sample = prepared.train.draw(Plan.sample, torch.Generator().manual_seed(0))
        print(f"{model}, every layer, at ratios {', '.join(map(str, RATIOS))}")
        magnitudes = {label: weight.abs() for label, weight in prunable(prepared.dense_model(CPU)).items()}
        print(f"  mag: {', '.join(measure_errors(prepared, magnitudes))}")
        for name, slope in SLOPES.items():
            for distance, strength, falling in CASES:
                gates.STRENGTH = strength
                context = Context(prepared.dense_model(CPU), sample, torch.Generator().manual_seed(1))
                learned = gates.learn_gates(context, slope, distance, falling)
                factors = {label: factor.abs() for label, factor in learned.items()}
                middle = torch.cat([factor.flatten() for factor in factors.values()]).median()
                suffix = ", falling" if falling else ""
                case = f"strength {strength:g}, distance {distance:g}{suffix}: median |f| {middle:.2f}"
                print(f"  {name}, {case}; {', '.join(measure_errors(prepared, factors))}", flush=True)


if __name__ == "__main__":
    main()
