"""Latency: measures the table of a space, or writes what measures it elsewhere, and measures the front at the end."""

import copy
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from tune_prune.common import files
from tune_prune.common.errors import prefix_errors
from tune_prune.common.parsing import read_json
from tune_prune.export.compaction import compact, shrink
from tune_prune.export.latency.device_script import describe_device
from tune_prune.export.latency.measuring import measure_table, write_script
from tune_prune.export.latency.prediction import cross_validate
from tune_prune.export.latency.programs import record_program
from tune_prune.export.latency.readings import compare_latency
from tune_prune.export.latency.table import LatencyTable, read_table, write_table
from tune_prune.hpo.config import Config
from tune_prune.hpo.groups import Shape
from tune_prune.hpo.parameters import Choice, Domain, Scalar, value_at
from tune_prune.hpo.space import Space
from tune_prune.pruning import checkpoint, masks
from tune_prune.pruning.channels.finding import find_groups
from tune_prune.pruning.channels.tracer import find_inputs
from tune_prune.pruning.iterative import State, prune_once, round_generator
from tune_prune.results.constraints import MEASURED_LATENCY
from tune_prune.results.front import Member
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.models import to_device
from tune_prune.tasks.splits import AnySplit
from tune_prune.tasks.task import Task
from tune_prune.training.resources import limit_threads
from tune_prune.workflows.space_checks import check_with_data, shapes_with_ratios

TABLE = "latency.json"
"""The table of a run, in its directory."""

FRONT = "latency_front.json"
"""What was measured of a run's front, by the weights' file: the time as a share of the dense model's."""

NETWORKS = 30
"""Pruned forms of the dense model that a table has."""

SPREAD = 0.3
"""How far the ratios of one of these networks are apart at most, as a share of their ranges, on either side."""

SAMPLE = 8
"""Samples on which batch norms of these are measured; what they compute does not matter."""


def find_table(
    run_dir: Path, config: Config, space: Space, task: Task, shapes: Mapping[str, Shape], say: Callable[[str], None]
) -> LatencyTable | None:
    """The table of a run: the one in its directory, the one that was given, or one measured now, which is kept there.

    None where the space does without.
    """
    if not space.uses_latency:
        return None
    path = run_dir / TABLE
    if not path.is_file():
        if config.latency_on:
            table = read_table(Path(config.latency_on))
        else:
            device = torch.device(config.resources.own_device)
            table = measure_space(space, task.dense_model(device), task.train.to(device), shapes, 1, say)
        write_table(path, table)
    return read_table(path)


def measure_space(
    space: Space, dense: nn.Module, train: AnySplit, shapes: Mapping[str, Shape], batch: int, say: Callable[[str], None]
) -> LatencyTable:
    """Measures the table of a space on one core, or on the GPU that model and data are on."""
    say(f"measuring latency, of the dense model and of {NETWORKS} networks pruned at random")
    with limit_threads(1):
        networks = draw_networks(space, dense, train, shapes)
        table = measure_table(dense, networks, find_inputs(dense, train, batch), batch, say)
    say(f"latency is predicted to {100 * cross_validate(table):.1f} % (median), on {table.device}")
    return table


def draw_networks(space: Space, dense: nn.Module, train: AnySplit, shapes: Mapping[str, Shape]) -> Iterator[nn.Module]:
    """Prunes the dense model as trials do, by magnitude and at once; yields what is left.

    Ratios are drawn at random around levels from the lowest to the highest of the space: a search ends where all are
    high, where no network would be if each ratio was drawn for itself.
    """
    generator, inputs = random.Random(0), find_inputs(dense, train)
    groups = find_groups(dense, inputs, str(space.parameters["granularity"])) if space.prunes_channels else ()
    for number in range(NETWORKS):
        level = number / (NETWORKS - 1)
        plan = space.choose(shapes, lambda domain: _draw_near(level, domain, generator)).to_plan()  # noqa: B023
        pruners = dict.fromkeys(plan.ratios, "mag")
        plan = replace(plan, pruners=pruners, rounds=1, mode="layer", sample=SAMPLE)
        state = State(copy.deepcopy(dense), masks.dense_masks(dense), groups=groups)
        prune_once(state, plan, 1, train, round_generator(0, number))
        yield shrink(state.model, state.masks, inputs, state.groups)


def _draw_near(level: float, domain: Domain, generator: random.Random) -> Scalar:
    """Draws from about this place of a range, in [0, 1], and any option of a choice."""
    if isinstance(domain, Choice):
        return value_at(domain, generator.random())
    return value_at(domain, min(max(level + generator.uniform(-SPREAD, SPREAD), 0.0), 1.0))


def measure_latency(
    space: Space, batch: int, device: torch.device, out: Path | None, script: Path | None, say: Callable[[str], None]
) -> dict[str, object]:
    """Writes the table of a space, measured here, to `out`, or to `script` what measures one elsewhere."""
    model = checkpoint.load_dense_model(space.model, space.weights, f"{space.source}: task.")
    with prefix_errors(f"{space.source}: task.data"):
        train = load_data(space.data, settings=space.settings, model=space.model).train
    shapes = shapes_with_ratios(model, check_with_data(Config(budget=1), space, model, train))
    if script is not None:
        inputs = find_inputs(model, train, batch)
        networks = [model, *draw_networks(space, model, train, shapes)]
        write_script(script, [record_program(network, inputs) for network in networks], batch)
        say(f"on the device: python {script.name} --out {TABLE}; here: tune-prune search --latency-on {TABLE}")
        return {"script": str(script), "networks": len(networks)}
    out = out or Path(TABLE)
    table = measure_space(space, to_device(model, device), train.to(device), shapes, batch, say)
    write_table(out, table)
    return {
        "table": str(out),
        "device": table.device,
        "batch": batch,
        "dense_ms": 1000 * table.dense_seconds,
        "median_error": cross_validate(table),
    }


def measure_front(run_dir: Path, members: Sequence[Member], task: Task, device: torch.device) -> None:
    """Measures the latency of a front's members in turn with the dense model, and keeps it in the run directory.

    Not where the run's table is another device's.
    """
    with limit_threads(1):
        table = read_table(run_dir / TABLE)
        if table.device != describe_device(device):
            return
        dense, train = task.dense_model(device), task.train.to(device)
        samples, inputs = find_inputs(dense, train), find_inputs(dense, train, table.batch)
        known = _read_front(run_dir)
        for member in members:
            name = str(member.point.checkpoint)
            if name not in known:
                model, _ = checkpoint.restore(checkpoint.read(run_dir / name), name)
                network = compact(to_device(model, device), samples)
                known[name] = compare_latency(dense, network, inputs).share
                files.write_text(run_dir / FRONT, json.dumps(known, indent=1) + "\n")


def with_measured_latency(run_dir: Path, members: Sequence[Member]) -> list[Member]:
    """Members with their measured latency among their costs, where it was measured."""
    known, found = _read_front(run_dir), []
    for member in members:
        name = str(member.point.checkpoint)
        costs = dict(member.point.costs) | ({MEASURED_LATENCY: known[name]} if name in known else {})
        found.append(replace(member, point=replace(member.point, costs=costs)))
    return found


def _read_front(run_dir: Path) -> dict[str, float]:
    """What was measured; nothing where the file is missing or damaged, since it is measured again."""
    try:
        return {str(name): float(share) for name, share in read_json(run_dir / FRONT).items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}
