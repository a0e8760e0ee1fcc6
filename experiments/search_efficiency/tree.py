"""Draws the tree of a search: from which round of which trial every trial began, and where its rounds ended.

    python experiments/search_efficiency/tree.py RUN_DIR PICTURE

Gradual pruning and the initial trials, as many as the space says, are the trunk; the others branch from their rounds or
from each other's; refinements are drawn over them. A line leads from the round that a trial began with, or from the
dense model, through its own rounds. Errors are counted on validation images.
"""

import json
import sys
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tune_prune.hpo import space_reader
from tune_prune.results import records
from tune_prune.results.records import TrialRecord

STYLES = {
    "trunk: gradual pruning": {"color": "#0072B2", "linewidth": 2.2, "zorder": 5},
    "trunk: initial trials": {"color": "#1C1C1C", "linewidth": 1.6, "zorder": 3},
    "branches: drawn trials": {"color": "#9AA7B8", "linewidth": 0.7, "zorder": 2},
    "refinements": {"color": "#C4472D", "linewidth": 1.2, "zorder": 4},
}
GRADUAL, INITIAL, BRANCHES, REFINEMENTS = STYLES


def roles(found: dict[int, TrialRecord], initial: int) -> dict[int, str]:
    """What each trial is in the tree, whose first `initial` trials of no other kind are the initial ones."""
    kinds = {"gradual": GRADUAL, "refine": REFINEMENTS}
    first = [trial for trial in sorted(found) if found[trial].kind not in kinds][:initial]
    return {trial: kinds.get(found[trial].kind, INITIAL if trial in first else BRANCHES) for trial in found}


def draw(axes: Axes, found: dict[int, TrialRecord], initial: int, dense: float) -> None:
    """Draws every trial that has a point."""
    labelled, names = set[str](), roles(found, initial)
    for record in found.values():
        before = [] if record.parent is None else found[record.parent].points
        start = [(point.factor, point.val_metric) for point in before if point.round == record.parent_round]
        points = [*(start or [(1.0, dense)]), *((point.factor, point.val_metric) for point in record.points)]
        name = names[record.trial]
        label = name if name not in labelled else None
        labelled.add(name)
        axes.plot(*zip(*points, strict=True), marker=".", markersize=3, label=label, **STYLES[name])  # type: ignore[arg-type]


def main() -> None:
    """See the top of the file."""
    run_dir, picture = Path(sys.argv[1]), Path(sys.argv[2])
    summary, space = json.loads((run_dir / "summary.json").read_text()), space_reader.read(run_dir / "space.toml")
    limit, dense = summary["limit"], summary["dense"]["val_error"]
    found = {record.trial: record for record in records.read_all(run_dir) if record.points}
    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    draw(axes, found, len(space.initial_points) + space.initial.trials, dense)
    axes.axhline(limit, color="#8A8A8A", linewidth=1, linestyle="--")
    axes.set(xscale="log", xlabel="times fewer weights", ylabel="validation error, %", ylim=(0.7 * dense, 2.2 * limit))
    axes.xaxis.set_major_formatter(lambda factor, _: f"{factor:g}x")
    axes.legend(frameon=False)
    figure.savefig(picture)


if __name__ == "__main__":
    main()
