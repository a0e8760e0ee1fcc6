"""How often a false claim is certified: 1,000 splits drawn from MNIST's test images, for which the truth is known.

    python experiments/certificate/level.py RUN_DIR [OUT.json]

RUN_DIR is of a search on MNIST. The test images are taken for all images that there are, of which it is known how much
worse than the dense model a member is. A split is n of them, drawn with repetition. A tradeoff 2 % below a member's
difference is a claim that is just false: at most 5 % of the splits may certify it. One that is a quarter of a point
above it is true. `sequence` is the whole front, with a tradeoff just below the worst member's difference: the share of
splits that certify any member that is worse. `cross-entropy` is another mean over samples, by the bootstrap.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tune_prune.pruning import checkpoint
from tune_prune.pruning.checkpoint import load_dense_model
from tune_prune.results.certificate import certify
from tune_prune.results.paired_tests import PairedErrors, PairedMeans
from tune_prune.results.run_results import read_run, summary_front
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.metrics import Metric
from tune_prune.tasks.sample_values import ARITHMETIC, SampleValues
from tune_prune.tasks.splits import Split

SPLITS, BOOTSTRAPPED, LEVEL, BELOW, ABOVE = 1000, 300, 0.95, 0.98, 0.25
SIZES, BOOTSTRAPPED_SIZES = (1000, 10_000), (500, 2000)


def measure(model: nn.Module, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Of each image: whether a model gets it wrong, and its cross-entropy in nats."""
    scores = split.scores(model)
    return (scores.argmax(1) != split.labels).numpy(), F.cross_entropy(scores, split.labels, reduction="none").numpy()


def shares(wrong: np.ndarray, dense: np.ndarray, n: int, drawn: np.random.Generator) -> tuple[float, float]:
    """The shares of splits of n images that certify a claim that is just false, and one that is true."""
    truth = 100 * (wrong.mean() - dense.mean())
    cells = [(wrong & ~dense).mean(), (dense & ~wrong).mean()]
    counts = drawn.multinomial(n, [*cells, 1 - sum(cells)], size=SPLITS)
    found: list[float] = []
    for tradeoff in (BELOW * truth, truth + ABOVE):
        known = {
            (w, b): PairedErrors(w, b, n).p_value(tradeoff / 100) for w, b in {(int(w), int(b)) for w, b, _ in counts}
        }
        found.append(float(np.mean([known[int(w), int(b)] <= 1 - LEVEL for w, b, _ in counts])))
    return found[0], found[1]


def sequence(wrong: list[np.ndarray], dense: np.ndarray, n: int, drawn: np.random.Generator) -> float:
    """The share of splits that certify a member that is worse than the limit, which the worst member just breaks."""
    truths = [100 * (one.mean() - dense.mean()) for one in wrong]
    tradeoff, false = BELOW * max(truths), 0
    for _ in range(SPLITS // 5):
        chosen = drawn.integers(len(dense), size=n)
        one = dense[chosen]
        pairs = [PairedErrors(int((w[chosen] & ~one).sum()), int((one & ~w[chosen]).sum()), n) for w in wrong]
        made = certify(pairs, tradeoff, LEVEL)
        false += any(each.certified for each, truth in zip(made, truths, strict=True) if truth > tradeoff)
    return false / (SPLITS // 5)


def bootstrapped(terms: np.ndarray, dense: np.ndarray, n: int, drawn: np.random.Generator) -> float:
    """The share of splits that certify a claim of the mean cross-entropy that is just false."""
    tradeoff, false = BELOW * float((terms - dense).mean()), 0
    for _ in range(BOOTSTRAPPED):
        chosen = drawn.integers(len(dense), size=n)
        one, other = (SampleValues(tuple(map(float, of[chosen])), ARITHMETIC, n) for of in (terms, dense))
        false += PairedMeans(one, other, Metric("loss")).test(tradeoff, LEVEL).p_value <= 1 - LEVEL
    return false / BOOTSTRAPPED


def main() -> None:
    """Prints a table, and writes its figures."""
    run_dir, drawn = Path(sys.argv[1]), np.random.default_rng(0)
    run = read_run(run_dir)
    split = load_data(str(run.summary["data"])).load_test()
    assert isinstance(split, Split)
    torch.set_num_threads(1)
    dense, dense_terms = measure(load_dense_model(str(run.summary["model"]), None, ""), split)
    rows, wrong = [], []
    for member in summary_front(run.summary):
        model = checkpoint.restore(checkpoint.read(run_dir / str(member["checkpoint"])), "level.py")[0]
        found, terms = measure(model, split)
        wrong.append(found)
        truth = 100 * float(found.mean() - dense.mean())
        if truth < 0.1:
            continue
        row: dict[str, object] = {"member": member["id"], "factor": member["factor"], "worse by": truth}
        for n in SIZES:
            row[f"false, {n}"], row[f"true, {n}"] = shares(found, dense, n, drawn)
        for n in BOOTSTRAPPED_SIZES:
            row[f"false cross-entropy, {n}"] = bootstrapped(terms, dense_terms, n, drawn)
        rows.append(row)
        print(
            " | ".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()), flush=True
        )
    whole = {f"sequence, {n}": sequence(wrong, dense, n, drawn) for n in SIZES}
    print(whole)
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(json.dumps({"members": rows, **whole}, indent=1) + "\n")


if __name__ == "__main__":
    main()
