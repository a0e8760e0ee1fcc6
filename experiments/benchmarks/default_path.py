"""A training step of the default path against that of another version of this repository.

    OMP_NUM_THREADS=1 python experiments/benchmarks/default_path.py OLD [REPEATS]

OLD is the folder of the other version. Processes of both take turns; each makes twelve trainings of lenet_300_100 with
masks, 100 steps each, and the one with the least processor time counts. Writes default_path.json; prints the median and
range of the ratio.
"""

import os
import subprocess
import sys

from common import spread, write

TRAINING = """
import time, torch
from tune_prune.pruning import masks
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.models import build
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe
torch.set_num_threads(1)
torch.manual_seed(0)
data, model = load_data("mnist"), build("lenet_300_100")
pairs = [(weight, (torch.rand_like(weight) < 0.1).float()) for weight in masks.prunable(model).values()]
for repeat in range(12):
    began = time.process_time()
    fit(model, data.train, Recipe(100, 0.01), torch.Generator().manual_seed(0), masks=pairs)
    print(10 * (time.process_time() - began))
"""


def main() -> None:
    """Measures both versions in turns."""
    old, repeats = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8
    steps: dict[str, list[float]] = {os.getcwd(): [], old: []}
    for repeat in range(repeats):
        for folder in steps if repeat % 2 else reversed(steps):  # so that neither always goes first
            environment = {**os.environ, "PYTHONPATH": folder}
            printed = subprocess.check_output([sys.executable, "-c", TRAINING], env=environment, text=True)
            steps[folder].append(min(map(float, printed.split())))
    ours, theirs = steps.values()
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    print(f"a step takes {spread(ours)} ms, there {spread(theirs)} ms; ratio {spread(ratios, 3)}")
    print(f"the fastest of all: {min(ours) / min(theirs):.3f}")
    write("default_path", {"ours": ours, "theirs": theirs})


if __name__ == "__main__":
    main()
