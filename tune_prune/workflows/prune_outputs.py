"""What `tune-prune prune` leaves behind: points.csv, a picture, pruned.conf, pruned.safetensors and summary.json."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tune_prune.common import files
from tune_prune.pruning import checkpoint, masks
from tune_prune.pruning.iterative import State
from tune_prune.pruning.layerwise import PruneStep
from tune_prune.pruning.plan import Plan
from tune_prune.results import conf
from tune_prune.results.conf import Conf
from tune_prune.workflows.prune import PruneOptions, count_layers


def write_outputs(
    out: Path,
    name: str,
    data: str,
    state: State,
    plan: Plan,
    found: Sequence[PruneStep],
    settings: PruneOptions,
    errors: tuple[float, float],
    start: Path | None,
) -> dict[str, object]:
    """Write the files; returns what `--json` prints. `errors` are those of the state on validation and on test,
    `start` the checkpoint that it began with, if any."""
    kept = [reached for reached in found if not reached.reverted]
    ratios = kept[-1].point.ratios if kept else dict.fromkeys(plan.ratios, 0.0)
    summary: dict[str, object] = {
        "compression": masks.compression(state.masks),
        "val_error": errors[0],
        "test_error": errors[1],
        "layers": count_layers(state.masks),
        "conf": "pruned.conf",
        "checkpoint": "pruned.safetensors",
    }
    how = {key: value for key, value in asdict(settings).items() if value is not None}
    notes: dict[str, object] = {"model": name, "data": data} | how
    # a layer that was taken back has not reached its ratio, and replaying it takes that
    notes |= {f"ratio/{label}": wanted for label, wanted in plan.ratios.items() if ratios[label] != wanted}
    if start is not None:
        notes["start"] = str(start)
    notes |= {key: summary[key] for key in ("compression", "val_error", "test_error")}
    files.write_text(out / "points.csv", points_csv(plan, found))
    files.write_bytes(out / "points.png", draw_points(name, found))
    conf.write(out / "pruned.conf", Conf(ratios, plan.pruners, notes))
    checkpoint.write(out / "pruned.safetensors", name, state.model, state.masks, notes)
    files.write_text(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    return summary


def points_csv(plan: Plan, found: Sequence[PruneStep]) -> str:
    """A row a point: errors in percent, loss in nats, seconds of wall-clock, the ratio of every layer by then."""
    head = ["round", "layer", "compression", "factor", "val_error", "val_loss", "reverted", "seconds"]
    rows = [[*head, *(f"ratio/{label}" for label in plan.ratios)]]
    for reached in found:
        p = reached.point
        measured = [p.compression, p.factor, p.error, p.loss]
        row = [str(p.round), reached.layer, *map(repr, measured), str(reached.reverted), f"{p.seconds:.3f}"]
        rows.append([*row, *(repr(p.ratios[label]) for label in plan.ratios)])
    return "\n".join(",".join(row) for row in rows) + "\n"


def draw_points(name: str, found: Sequence[PruneStep]) -> bytes:
    """Validation error over factor, point by point, as a PNG; steps that were taken back are crossed."""
    from matplotlib.figure import Figure  # not on import: it takes half a second

    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    kept = [reached.point for reached in found if not reached.reverted]
    back = [reached.point for reached in found if reached.reverted]
    axes.plot([p.factor for p in kept], [p.error for p in kept], "o-", color="#0072B2", label="pruned")
    if back:
        axes.plot([p.factor for p in back], [p.error for p in back], "x", color="#D55E00", label="taken back")
    axes.set(xscale="log", xlabel="times fewer weights", ylabel="validation error, %", title=f"{name}, pruned by hand")
    axes.xaxis.set_major_formatter(lambda value, position: f"{value:g}x")
    axes.xaxis.set_minor_formatter(lambda value, position: f"{value:g}x" if len(found) < 2 else "")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
