"""Do pruners' scores say which residual block of ResNet-20 is missed least? Dense, on Fashion-MNIST.

    cd experiments/channels; export PYTHONPATH=../resnet20:../tasks/resnet20_fashion OMP_NUM_THREADS=1
    python block_scores.py

Prints for each block of a group the validation error and loss of the network without it, batch norms measured anew and
nothing retrained, and its scores by some pruners: the lowest goes first.
"""

import copy

import torch

from tune_prune.pruning import masks, recalibration
from tune_prune.pruning.channels import removal
from tune_prune.pruning.channels.finding import find_groups
from tune_prune.pruning.channels.tracer import find_inputs
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.pruning.criteria import score_layers
from tune_prune.pruning.statistics import Context
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.settings import TaskSettings

PRUNERS, SAMPLE = ("mag", "taylor1", "taylor12"), 1024


def main() -> None:
    """See the top of the file."""
    data = load_data("resnet20_fashion:data", print, TaskSettings(precision="bf16"))
    weights = "../tasks/resnet20_fashion/dense.safetensors"
    model = load_dense_model("resnet20:resnet20(channels=1)", weights, "").eval()
    sample = data.train.draw(SAMPLE, torch.Generator().manual_seed(0))
    context, dense = Context(model, sample, torch.Generator().manual_seed(0)), masks.dense_masks(model)
    by_name = removal.join_by_name(model, dense)
    scores = {pruner: score_layers(dict.fromkeys(dense, pruner), context) for pruner in PRUNERS}
    named = {pruner: removal.join_by_name(model, found) for pruner, found in scores.items()}
    for group in find_groups(model, find_inputs(model, data.train), "block"):
        of_group = {pruner: removal.score_channels(group, found, by_name) for pruner, found in named.items()}
        for number, block in enumerate(group.blocks):
            without = copy.deepcopy(model)
            with torch.no_grad():
                for parameter in without.get_submodule(block).parameters():
                    parameter.zero_()
            recalibration.recalibrate(without, sample)
            found = evaluate(without, data.validation)
            shown = " | ".join(f"{pruner} {float(of[number]):.3f}" for pruner, of in of_group.items())
            print(f"{block} | {found.metric:.2f} % | {found.loss:.3f} | {shown}", flush=True)


if __name__ == "__main__":
    main()
