"""How the factors that l1 and l2 learn depend on the penalty's strength and on how far they can go.

    python experiments/pruners/strengths.py > experiments/pruners/strengths.txt

Error in percent, on the validation images, of all layers pruned by a ratio without retraining; one seed. "falling":
steps get shorter towards the end.
"""

import torch

from tune_prune.pruning import gates, masks
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.pruning.masks import prunable
from tune_prune.pruning.plan import Plan
from tune_prune.pruning.statistics import Context, draw_sample
from tune_prune.tasks import task
from tune_prune.tasks.metrics import evaluate

CPU = torch.device("cpu")
RATIOS = (0.5, 0.7, 0.8, 0.9)
SETTINGS = [(way, strength, False) for way in (0.3, 1.0, 3.0) for strength in (1e-4, 3e-4, 1e-3)]
SETTINGS += [(way, 3e-4, True) for way in (1.0, 1.3, 2.0, 3.0)]
SLOPES: dict[str, gates.Penalty] = {"l1": torch.sign, "l2": lambda gate: gate}


def errors(made: task.Task, scores: dict[str, torch.Tensor]) -> list[str]:
    """The error at every ratio."""
    found = []
    for ratio in RATIOS:
        model = made.dense_model(CPU)
        dense = masks.dense_masks(model)
        masks.apply(model, {label: masks.shrink(dense[label], scores[label], ratio) for label in dense})
        found.append(f"{evaluate(model, made.validation).error:.1f}")
    return found


def main() -> None:
    """Every penalty at every setting on two models."""
    for model in ("lenet_300_100", "lenet5"):
        made, _ = task.prepare_task(model, load_dense_model(model, None, "strengths.py"), "mnist", CPU)
        sample = draw_sample(made.train, Plan.sample, torch.Generator().manual_seed(0))
        print(f"{model}, every layer, at ratios {', '.join(map(str, RATIOS))}")
        print(f"  mag: {', '.join(errors(made, {k: w.abs() for k, w in prunable(made.dense_model(CPU)).items()}))}")
        for name, slope in SLOPES.items():
            for way, strength, falling in SETTINGS:
                gates.STRENGTH = strength
                context = Context(made.dense_model(CPU), sample, torch.Generator().manual_seed(1))
                factors = {
                    label: factor.abs() for label, factor in gates.learn_gates(context, slope, way, falling).items()
                }
                middle = torch.cat([factor.flatten() for factor in factors.values()]).median()
                history = ", falling" if falling else ""
                said = f"strength {strength:g}, way {way:g}{history}: median |f| {middle:.2f}"
                print(f"  {name}, {said}; {', '.join(errors(made, factors))}", flush=True)


if __name__ == "__main__":
    main()
