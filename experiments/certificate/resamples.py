"""How often the bootstrap of resamples certifies a false claim, of metrics that are no mean over samples.

    python experiments/certificate/resamples.py [OUT.json]

The truth is known: two models of 200,000 samples, of which the pruned one is worse. Of macro F1 there are five classes
of 50 to 3 % of the samples; the dense model gets 3 to 15 % of a class wrong, the pruned one 1.3 times as many, mostly
the same. Of the correlation, its squared loss is 1.3 times the dense model's. A split is n of these samples, drawn with
repetition, dealt out to 100 units as `tasks.resampling` does. A tradeoff 2 % below the difference is a claim that is
just false, and one of twice the difference is true. Prints the shares of 1,000 splits that certify each at 95 %, and
those whose 95 % interval of the pruned model's metric holds the truth.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tune_prune.results.confidence import find_resampled_interval
from tune_prune.results.paired_tests import PairedResamples
from tune_prune.tasks.metrics import Metric
from tune_prune.tasks.resampling import RESAMPLES, UNITS
from tune_prune.tasks.sample_values import Resamples

SPLITS, SIZES, COUNT, LEVEL, BELOW, ABOVE = 1000, (500, 2000, 5000), 200_000, 0.95, 0.98, 2.0
SHARES, WRONG, MORE = (0.5, 0.25, 0.15, 0.07, 0.03), (0.03, 0.05, 0.08, 0.1, 0.15), 1.3
Numbers = NDArray[np.float64]


def macro_f1(sums: Numbers) -> Numbers:
    """Of sums of confusion matrices [..., 25]: the mean of F1 over classes."""
    matrix = sums.reshape(*sums.shape[:-1], 5, 5)
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    found: Numbers = (2 * hits / np.maximum(matrix.sum(-1) + matrix.sum(-2), 1)).mean(-1)
    return found


def correlation(sums: Numbers) -> Numbers:
    """Of sums of 1, x, y, x^2, y^2 and xy [..., 6]: Pearson's correlation."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    found: Numbers = (n * xy - x * y) / np.sqrt((n * xx - x**2) * (n * yy - y**2))
    return found


def draw_classes(source: np.random.Generator) -> tuple[Numbers, Numbers]:
    """The confusion of each sample [COUNT, 25] by the pruned and by the dense model."""
    true = source.choice(5, COUNT, p=SHARES)
    other = (true + source.integers(1, 5, COUNT)) % 5
    lot, again = source.random((2, COUNT))
    wrong = np.array(WRONG)[true]
    of_dense = lot < wrong
    of_pruned = (lot < 0.9 * wrong) | (again < (MORE - 0.9) * wrong)
    one, two = (np.eye(25)[5 * true + np.where(one, other, true)] for one in (of_pruned, of_dense))
    return one, two


def draw_numbers(source: np.random.Generator) -> tuple[Numbers, Numbers]:
    """The terms of each sample's prediction and target [COUNT, 6], of the pruned and of the dense model."""
    target, noise, more = source.normal(size=(3, COUNT))
    found = (target + 0.5 * noise + 0.5 * np.sqrt(MORE - 1) * more, target + 0.5 * noise)
    one, two = (np.stack([np.ones(COUNT), x, target, x**2, target**2, x * target], 1) for x in found)
    return one, two


def resample(units: Numbers, of: Callable[[Numbers], Numbers], drawn: Numbers, n: int) -> Resamples:
    """A metric of resamples of units [UNITS, terms]."""
    whole = units.sum(0)
    values, without = of(drawn @ units), of(whole - units)
    return Resamples(float(of(whole)), tuple(map(float, values)), tuple(map(float, without)), n, n)


def measure(terms: tuple[Numbers, Numbers], of: Callable[[Numbers], Numbers], n: int) -> dict[str, float]:
    """The shares of splits of n samples that certify a false and a true claim, and whose interval holds the truth."""
    source, metric = np.random.default_rng(n), Metric("value", "higher")
    truths = [float(of(one.sum(0))) for one in terms]
    worse = truths[1] - truths[0]
    drawn = source.multinomial(UNITS, np.full(UNITS, 1 / UNITS), RESAMPLES).astype(np.float64)
    found = np.zeros(3)
    for _ in range(SPLITS):
        chosen = source.integers(COUNT, size=n)
        pruned, dense = (resample(one[chosen].reshape(UNITS, n // UNITS, -1).sum(1), of, drawn, n) for one in terms)
        test = PairedResamples(pruned, dense, metric)
        interval = find_resampled_interval(pruned, pruned.whole)
        assert interval.low is not None
        assert interval.high is not None
        certified = [test.test(share * worse, LEVEL).p_value <= 1 - LEVEL for share in (BELOW, ABOVE)]
        found += [*certified, interval.low <= truths[0] <= interval.high]
    false, true, covered = found / SPLITS
    return {"worse by": worse, "false": float(false), "true": float(true), "covered": float(covered)}


def main() -> None:
    """Prints a table, and writes its figures."""
    rows, source = [], np.random.default_rng(0)
    cases = {"macro F1": (draw_classes(source), macro_f1), "correlation": (draw_numbers(source), correlation)}
    for name, (terms, of) in cases.items():
        for n in SIZES:
            row = {"metric": name, "samples": n} | measure(terms, of, n)
            rows.append(row)
            values = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values())
            print(" | ".join(values), flush=True)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
