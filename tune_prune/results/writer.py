"""Writes the files of a run directory, each whole; a resumed run writes them again."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pandas import DataFrame

from tune_prune.common import files
from tune_prune.common.entrypoints import describe_address
from tune_prune.results import conf
from tune_prune.results.front import BEST_CONF, CERTIFIED_CONF, CLOSEST_CONF, Member, TestResult
from tune_prune.results.outcome import SearchOutcome
from tune_prune.results.records import TrialRecord, lineage
from tune_prune.results.run_info import RunInfo
from tune_prune.results.tables import list_further, pareto_table, points_table, trials_table


def write_tables(run_dir: Path, outcome: SearchOutcome) -> None:
    """Writes points.csv and trials.csv."""
    _write_csv(run_dir / "points.csv", points_table(outcome.records, outcome.info.labels, outcome.info.metric))
    _write_csv(run_dir / "trials.csv", trials_table(outcome.records, outcome.info.metric))


def write_front(run_dir: Path, outcome: SearchOutcome) -> None:
    """Writes pareto.csv, confs/NNN.conf and best.conf, or without members closest.conf; and certified.conf.

    Of these files, those of an earlier ending that this one lacks are removed.
    """
    members, tested = outcome.members, outcome.tested
    by_trial = {record.trial: record for record in outcome.records}
    for member in members:
        _write_conf(run_dir, run_dir / member.conf, make_conf(member, tested.get(member.id), outcome.info, by_trial))
    # only now, so that a failure above leaves all that an earlier write put there
    _remove_stale(run_dir / "confs", {member.conf for member in members})
    shown_confs = {BEST_CONF: outcome.best, CERTIFIED_CONF: outcome.certified, CLOSEST_CONF: outcome.closest}
    for name, shown in shown_confs.items():
        if shown is None:
            (run_dir / name).unlink(missing_ok=True)
        else:
            test = None if name == CLOSEST_CONF else tested.get(shown.id)  # the closest point has an id of its own
            _write_conf(run_dir, run_dir / name, make_conf(shown, test, outcome.info, by_trial))
    table = pareto_table(members, tested, outcome.info, outcome.confirmed, outcome.certificates)
    _write_csv(run_dir / "pareto.csv", table)


def write_checkpoints(run_dir: Path, outcome: SearchOutcome) -> None:
    """Writes checkpoints/NNN.safetensors; raises OSError where the checkpoint of a member's round is gone.

    They are copies of the rounds', which stay, since a later front may hold them under another number.
    """
    for member in outcome.members:
        if member.checkpoint is not None and member.point.checkpoint is not None:
            files.write_bytes(run_dir / member.checkpoint, (run_dir / member.point.checkpoint).read_bytes())
    _remove_stale(run_dir / "checkpoints", {member.checkpoint for member in outcome.members})


def write_summary(run_dir: Path, summary: Mapping[str, object]) -> None:
    """Writes summary.json; raises ValueError for a NaN or infinity, which JSON does not have."""
    files.write_text(run_dir / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")


def make_conf(member: Member, test: TestResult | None, info: RunInfo, by_trial: Mapping[int, TrialRecord]) -> conf.Conf:
    """A member as a .conf: the pruned layers, or all where none is pruned, and notes on how the point was made.

    Notes hold what the point measured, and the trial's parameters that lines 1-3 do not state: an early round has not
    reached its trial's `ratio/<layer>`, and a replay needs them. Where the trial started from another, `history` lists
    the trials and rounds that its weights came through, the earliest first, with their parameters.
    """
    record, point = member.record, member.point
    pruned = {label: point.ratios[label] for label in info.labels if point.ratios.get(label, 0.0) > 0}
    ratios = pruned or dict.fromkeys(info.ratio_shapes, 0.0)
    pruners = {label: record.pruners[label] for label in ratios} if ratios.keys() <= record.pruners.keys() else None
    facts: dict[str, object] = {
        "model": describe_address(info.model),
        "data": describe_address(info.data),
        "weights": info.weights,
        "weights_hash": info.weights_hash,
        "seed": info.seed,
        "trial": record.trial,
        "round": point.round,
        "parent": record.parent,
        "compression": point.compression,
        "granularity": record.params.to_plan().granularity,
        info.metric.val: point.val_metric,
        **{name: point.costs[name] for name in list_further([point])},
        info.metric.test: None if test is None or test.refit else test.metric,
        **({} if test is None or test.refit else test.further),
        # of weights that a replay does not make
        f"refit_{info.metric.test}": test.metric if test and test.refit else None,
        # the number of images behind cached statistics, where the trial's own sample is another
        "cached_sample": info.cached_sample if info.cached_sample != record.params.to_plan().sample else None,
    }
    stated = facts | {f"ratio/{label}": ratio for label, ratio in point.ratios.items()}
    if pruners is not None:
        stated["pruner"] = record.params.pruner
    columns = record.params.to_columns()
    params = {key: value for key, value in columns.items() if key not in facts and stated.get(key) != value}
    # TOML has no null, and a note no use for what is not a scalar
    notes = {key: value for key, value in (facts | params).items() if isinstance(value, str | int | float)}
    history = [
        {"trial": earlier.trial, "round": last_round, **earlier.params.to_columns()}
        for earlier, last_round in lineage(record, by_trial)
    ]
    lists: dict[str, object] = {"task": info.settings.described, "history": history}
    return conf.Conf(ratios, pruners, notes | {key: value for key, value in lists.items() if value})


def _write_conf(run_dir: Path, path: Path, made: conf.Conf) -> None:
    """Writes a .conf; dense weights that lie in the run directory are noted relative to the .conf."""
    weights = made.notes.get("weights")
    if weights is not None:
        made = replace(made, notes={**made.notes, "weights": conf.note_path(Path(str(weights)), path, run_dir)})
    conf.write(path, made)


def _remove_stale(folder: Path, keep: set[str] | set[str | None]) -> None:
    """Removes the numbered files of an earlier, longer front, and no others; and the folder where it is empty then."""
    for path in folder.glob("*"):
        if re.fullmatch(r"\d{3,}\.(conf|safetensors)", path.name) and f"{folder.name}/{path.name}" not in keep:
            path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _write_csv(path: Path, table: DataFrame) -> None:
    files.write_text(path, table.to_csv(index=False, lineterminator="\n"))
