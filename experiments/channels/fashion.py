"""ResNet-20 on Fashion-MNIST, made faster: this package's search, and Torch-Pruning's ways with as many training steps.

    cd experiments/channels; export PYTHONPATH=../resnet20:../tasks/resnet20_fashion OMP_NUM_THREADS=1
    python fashion.py train OUT WAY STEPS [SEED]    # uniform, global or iterative
    python fashion.py measure OUT [RUN_DIR]         # on a quiet machine; a run of resnet20_fashion.toml
    python fashion.py table

The data is Debian's dataset-fashion-mnist, the dense model that of experiments/tasks/resnet20_fashion. All ways score
by magnitude, over all layers of a group; `uniform` removes the same share of each group at once, `global` what scores
lowest anywhere, and both train for a quarter of STEPS at each of four levels; `iterative` takes two trajectories of
eight rounds to the two highest levels, with one threshold for all, each half of STEPS. The recipe is that of the
space's refinements. Every round is a network in OUT. `measure` measures them and the front of a run: multiply-adds,
times as fast as the dense model on one core for one image (with lower and upper quartile of readings in turn), and
errors. The search's front was chosen by validation errors; of the others the table chooses so. Rows are added to
results/fashion.csv.
"""

import copy
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch_pruning as tp
from compare import add_rows, read_rows
from resnet20 import resnet20
from safetensors.torch import load_file
from torch import nn

from tune_prune.export.compaction import compact
from tune_prune.export.latency.readings import compare_latency
from tune_prune.pruning import checkpoint
from tune_prune.pruning.iterative import round_generator
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.splits import Data
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "fashion.csv"
COLUMNS = ["way", "seed", "level", "round", "steps", "macs", "faster", "low", "high", "val_error", "test_error"]
LEVELS, ROUNDS, LR, LIMIT, READINGS = (0.3, 0.5, 0.65, 0.8), 8, 0.08, 5.82, 31
SAMPLE = torch.rand(1, 1, 28, 28)


def dense_model() -> nn.Module:
    """The dense model in evaluation mode."""
    model = resnet20(channels=1)
    model.load_state_dict(load_file(HERE.parent / "tasks" / "resnet20_fashion" / "dense.safetensors"), strict=False)
    return model.eval()


def new_pruner(model: nn.Module, way: str, level: float, rounds: int) -> tp.pruner.BasePruner:
    """Torch-Pruning's pruner of this way."""
    return tp.pruner.BasePruner(
        model, SAMPLE, tp.importance.GroupMagnitudeImportance(), global_pruning=way != "uniform",
        pruning_ratio=level, iterative_steps=rounds, ignored_layers=[model.fc],
    )  # fmt: skip


def measure(model: nn.Module, dense: nn.Module, data: Data) -> dict[str, object]:
    """What is measured of a network."""
    readings = compare_latency(dense, model, SAMPLE, READINGS)
    low, middle, high = readings.speedups
    macs, _ = tp.utils.count_ops_and_params(model, SAMPLE)
    return {
        "macs": round(macs), "faster": f"{middle:.3f}", "low": f"{low:.3f}", "high": f"{high:.3f}",
        "val_error": f"{evaluate(model, data.validation).metric:.2f}",
        "test_error": f"{evaluate(model, data.load_test()).metric:.2f}",
    }  # fmt: skip


def train(out: Path, way: str, steps: int, seed: int, data: Data) -> None:
    """Prunes and retrains the dense model by Torch-Pruning; writes the network and what it is after each round."""
    dense = dense_model()
    levels, rounds = (LEVELS[2:], ROUNDS) if way == "iterative" else (LEVELS, 1)
    for level in levels:
        model = copy.deepcopy(dense)
        pruner, each = new_pruner(model, way, level, rounds), steps // len(levels) // rounds
        recipe = Recipe(each, LR, weight_decay=1e-4, distill=0.5, temperature=2)
        for round_ in range(1, rounds + 1):
            pruner.step()
            fit(model, data.train, recipe, round_generator(seed, round_), teacher=dense)
            row = {"way": way, "seed": seed, "level": level, "round": round_, "steps": each}
            torch.save((model, row), out / f"{way}-{seed}-{level}-{round_}.pt")
            print(row, evaluate(model, data.validation).metric, flush=True)


def read_front(run_dir: Path) -> Iterator[tuple[nn.Module, dict[str, object]]]:
    """The members of a search's front without what is gone."""
    with (run_dir / "pareto.csv").open(encoding="utf-8") as file:
        members = list(csv.DictReader(file))
    for number, member in enumerate(members):
        path = run_dir / member["checkpoint"]
        model, _ = checkpoint.restore(checkpoint.read(path), str(path))
        row = {"way": "search", "seed": run_dir.name, "level": member["compression"], "round": number, "steps": ""}
        yield compact(model, torch.cat([SAMPLE, SAMPLE])), row


def print_table() -> None:
    """Prints for each way the members of its front of validation error against speed, and the fastest within LIMIT."""
    rows = read_rows(RESULTS)
    for way in dict.fromkeys(row["way"] for row in rows):
        own = sorted((row for row in rows if row["way"] == way), key=lambda row: -float(row["faster"]))
        best = float("inf")
        for row in own:
            if (error := float(row["val_error"])) < best:
                best = error
                inside = "within the limit" if error <= LIMIT else ""
                shown = f"{row['faster']:>6}x ({row['low']} to {row['high']})  {row['macs']:>9} multiply-adds"
                print(f"{way:10} {shown}  {error:5.2f} %  test {row['test_error']:>5} %  {inside}")


def main() -> None:
    """See the top of the file."""
    what, *rest = sys.argv[1:]
    if what == "table":
        print_table()
        return
    torch.set_num_threads(1)
    data, out = load_data("resnet20_fashion:data", print, TaskSettings(precision="bf16")), Path(rest[0])
    if what == "train":
        out.mkdir(parents=True, exist_ok=True)
        train(out, rest[1], int(rest[2]), int(rest[3]) if len(rest) > 3 else 0, data)
        return
    networks = [torch.load(path, weights_only=False) for path in sorted(out.glob("*.pt"))]
    for model, row in [*networks, *(read_front(Path(rest[1])) if len(rest) > 1 else [])]:
        add_rows(RESULTS, COLUMNS, [row | measure(model, dense_model(), data)])


if __name__ == "__main__":
    main()
