"""Runs `tune-prune prune` and writes its files: points.csv and .png, pruned.conf and .safetensors, summary.json."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from tune_prune.common import files
from tune_prune.common.errors import UserError, prefix_errors
from tune_prune.pruning import checkpoint, masks
from tune_prune.pruning.coverage import measure_coverage
from tune_prune.pruning.layerwise import PruneStep
from tune_prune.pruning.plan import Plan
from tune_prune.results import conf, palette
from tune_prune.results.conf import Conf
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.metrics import ERROR, Metric, evaluate
from tune_prune.tasks.task import describe_task
from tune_prune.workflows.prune import count_layers, describe_layers
from tune_prune.workflows.prune_resume import PruneRequest, PruneResult, prune_resumable, remove_state

CHECKPOINT = "pruned.safetensors"
"""The file of the pruned model in the output folder."""


def prune_and_write(
    out: Path, request: PruneRequest, device: torch.device, source: str, resume: bool, say: Callable[[str], None]
) -> dict[str, object]:
    """Prunes one model, tests it and writes all files into `out`; returns the summary that `--json` prints.

    With `resume` it continues the pruning that was cut off there. Messages call the target `source`. Raises a
    `UserError` where the files would replace the checkpoint to start from, or those of a search.
    """
    _check_overwrites(out, request)
    files.check_writable(out, "--out")
    with prefix_errors("--data"):
        data = load_data(request.data, say, request.settings, request.model)
    metric, rounds = data.validation.objective.metric, request.options.iterations
    result = prune_resumable(
        out, request, data, device, source, resume, lambda step: say(step.describe(rounds, metric))
    )
    state = result.state
    for line in describe_layers(state.model, state.masks):
        say(line)
    splits = data.validation, data.load_test()
    val, test = (evaluate(state.model, split.to(device)).metric for split in splits)
    say(f"validation {metric.name} {metric.format(val)}, test {metric.name} {metric.format(test)}")
    summary = _write_files(out, request, result, metric, {metric.val: val, metric.test: test})
    remove_state(out)
    return summary


def _check_overwrites(out: Path, request: PruneRequest) -> None:
    if request.start is not None and request.start.resolve() == (out / CHECKPOINT).resolve():
        raise UserError(f"--checkpoint {request.start}: would be replaced; name another folder with --out")
    if (out / "run.json").exists():
        raise UserError(f"--out {out}: a search's run directory, whose files would be replaced; name another folder")


def _write_files(
    out: Path, request: PruneRequest, result: PruneResult, metric: Metric, measured: Mapping[str, float]
) -> dict[str, object]:
    """Writes all files; returns the summary. `measured` are the state's metrics by their keys."""
    state, plan, steps = result.state, result.plan, result.steps
    kept = [step for step in steps if not step.reverted]
    ratios = kept[-1].point.ratios if kept else dict.fromkeys(plan.ratios, 0.0)
    summary: dict[str, object] = {
        "compression": masks.compression(state.masks),
        **measured,
        "layers": count_layers(state.masks),
        "coverage": measure_coverage(state.model).to_dict(),
        "conf": "pruned.conf",
        "checkpoint": CHECKPOINT,
    }
    options = {key: value for key, value in asdict(request.options).items() if value is not None}
    notes: dict[str, object] = {"model": request.model, **describe_task(request.data, request.settings)} | options
    # a replay needs the target of each layer, and a layer whose step was taken back has not reached it
    notes |= {f"ratio/{label}": target for label, target in plan.ratios.items() if ratios[label] != target}
    if request.start is not None:
        notes["weights"] = conf.note_path(request.start, out / "pruned.conf", out)
    notes["weights_hash"] = result.weights_hash
    notes |= {key: summary[key] for key in ("compression", *measured)}
    files.write_text(out / "points.csv", points_csv(plan, steps, metric))
    files.write_bytes(out / "points.png", draw_points(request.model, steps, metric))
    conf.write(out / "pruned.conf", Conf(ratios, plan.pruners, notes))
    checkpoint.write(out / CHECKPOINT, request.model, state.model, state.masks, notes)
    files.write_text(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    return summary


def points_csv(plan: Plan, steps: Sequence[PruneStep], metric: Metric = ERROR) -> str:
    """The table of all steps: the metric, loss in nats, wall-clock seconds, the ratio that each layer has."""
    head = ["round", "layer", "compression", "factor", metric.val, "val_loss", "reverted", "seconds"]
    rows = [[*head, *(f"ratio/{label}" for label in plan.ratios)]]
    for step in steps:
        p = step.point
        measured = [p.compression, p.factor, p.metric, p.loss]
        row = [str(p.round), step.layer, *map(repr, measured), str(step.reverted), f"{p.seconds:.3f}"]
        rows.append([*row, *(repr(p.ratios[label]) for label in plan.ratios)])
    return "\n".join(",".join(row) for row in rows) + "\n"


def draw_points(name: str, steps: Sequence[PruneStep], metric: Metric = ERROR) -> bytes:
    """Draws the validation metric over factor, a point for each step, as a PNG; crosses are steps taken back."""
    from matplotlib.figure import Figure  # not on import: it takes half a second

    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    kept = [step.point for step in steps if not step.reverted]
    reverted = [step.point for step in steps if step.reverted]
    axes.plot([p.factor for p in kept], [p.metric for p in kept], "o-", color=palette.BLUE, label="pruned")
    if reverted:
        axes.plot(
            [p.factor for p in reverted], [p.metric for p in reverted], "x", color=palette.ORANGE, label="taken back"
        )
    axes.set(
        xscale="log", xlabel="times fewer weights", ylabel=f"validation {metric.title}", title=f"{name}, pruned by hand"
    )
    axes.xaxis.set_major_formatter(lambda value, position: f"{value:g}x")
    axes.xaxis.set_minor_formatter(lambda value, position: f"{value:g}x" if len(steps) < 2 else "")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
