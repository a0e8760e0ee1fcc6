"""Draws a run's picture again, from its tables: python experiments/lenet5/picture.py RUN PICTURE

RUN holds points.csv, trials.csv, pareto.csv and summary.json, or of the last `limit`, `dense`, `model`, `data` and
`acc_tradeoff`.
"""

import sys
from pathlib import Path

from tune_prune.results.front_picture import describe_front
from tune_prune.results.pareto_plot import draw_picture
from tune_prune.results.run_results import get_mapping, read_run, to_float


def main() -> None:
    """See the top of the file."""
    run, picture = read_run(Path(sys.argv[1])), Path(sys.argv[2])
    metric, dense = run.metric, get_mapping(run.summary, "dense")
    values = to_float(dense.get(metric.val)), to_float(dense.get(metric.test))
    described = describe_front(run.points, run.members, run.limits.limit, *values, metric)
    within = metric.format_tradeoff(to_float(run.summary["acc_tradeoff"]))
    reached = f"{run.members.factor.max():.1f}x fewer weights within {within} of the dense {metric.name}"
    draw_picture(picture, described, f"{run.summary['model']} on {run.summary['data']}: {reached}")


if __name__ == "__main__":
    main()
