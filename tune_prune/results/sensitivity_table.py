"""The files of a sensitivity analysis: sensitivity.csv, so that nothing is measured twice, and its curves as a PNG."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path

from tune_prune.common import files
from tune_prune.common.errors import UserError
from tune_prune.pruning.sensitivity import HASH_DIGITS, SensitivityJob, SensitivityResult, group_curves
from tune_prune.results.palette import GREY, LINES
from tune_prune.tasks.fingerprints import hash_texts
from tune_prune.tasks.metrics import ERROR, Metric

SUBJECT = ("model", "data", "weights", "splits", "code")
"""The columns that say what was measured, by name and by content: hashes of weights, of both splits and of the code.

The code is the model's, with the settings of the task where there are some.
"""

KEY = [*SUBJECT, *(f.name for f in fields(SensitivityJob))]
"""The columns that tell measurements apart."""

Row = dict[str, str]


def list_measured(metric: Metric = ERROR) -> list[str]:
    """The columns that were measured."""
    return ["kept", "total", metric.val, "val_loss", "seconds"]


def make_subject(model: str, data: str, fingerprint: Mapping[str, str]) -> Row:
    """Makes the columns of `SUBJECT` from the names of model and data, and the fingerprint of their contents.

    The hashes are shortened to `HASH_DIGITS`.
    """
    splits = [part for part in fingerprint if part.startswith(("training ", "validation "))]
    code = [part for part in fingerprint if part not in ("weights", *splits)]
    of_splits, of_code = ([fingerprint[part] for part in parts] for parts in (splits, code))
    hashes = fingerprint["weights"], hash_texts(of_splits), of_code[0] if len(of_code) == 1 else hash_texts(of_code)
    return dict(zip(SUBJECT, (model, data, *(one[:HASH_DIGITS] for one in hashes)), strict=True))


class SensitivityTable:
    """A sensitivity.csv, seen from one model on its data; rows of others stay. All are judged by one metric.

    `subject` has the columns of `SUBJECT`. Raises a `UserError` where `path` is another file.
    """

    def __init__(self, path: Path, subject: Row, metric: Metric = ERROR) -> None:
        self._path, self._subject, self._metric = path, subject, metric
        self._measured = list_measured(metric)
        self._rows = _read_rows(path, metric)

    def missing(self, jobs: Iterable[SensitivityJob]) -> list[SensitivityJob]:
        """The jobs of this subject without a row."""
        measured = {tuple(row[name] for name in KEY) for row in self._rows}
        return [job for job in jobs if tuple(self._key(job).values()) not in measured]

    def add(self, result: SensitivityResult) -> None:
        """Appends a row and writes the file, whole or not at all."""
        values = result.kept, result.total, result.val_metric, result.val_loss, result.seconds
        measured = dict(zip(self._measured, map(repr, values), strict=True))
        self._rows.append(self._key(result.job) | measured)
        text = io.StringIO()
        writer = csv.DictWriter(text, [*KEY, *self._measured], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        files.write_text(self._path, text.getvalue())

    def results(self) -> list[SensitivityResult]:
        """All results of this subject, in the order in which they were added."""
        return [_parse_result(row, self._metric) for row in self._rows if self._subject.items() <= row.items()]

    def changed_parts(self, jobs: Iterable[SensitivityJob]) -> list[str]:
        """The columns in which the newest row of the same model and data, or of a job's pruner, is another."""
        named = ("model", "data")
        rows = [row for row in self._rows if all(row[name] == self._subject[name] for name in named)]
        changed = [name for name in SUBJECT if rows and rows[-1][name] != self._subject[name]]
        newest = {row["pruner"]: row["pruner_code"] for row in rows}
        return changed + ["pruner_code"] * any(
            newest.get(job.pruner, job.pruner_code) != job.pruner_code for job in jobs
        )

    def _key(self, job: SensitivityJob) -> Row:
        values = {name: value if isinstance(value, str) else repr(value) for name, value in asdict(job).items()}
        return self._subject | values


def _read_rows(path: Path, metric: Metric) -> list[Row]:
    """Reads and checks all rows; a missing file has none."""
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
        if list(reader.fieldnames or []) != [*KEY, *list_measured(metric)]:
            raise ValueError("other columns")
        for row in rows:
            _parse_result(row, metric)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path}: not a sensitivity.csv of this version of the program ({error}); name another --out"
        ) from error
    return rows


def _parse_result(row: Row, metric: Metric) -> SensitivityResult:
    job = SensitivityJob(
        layer=row["layer"],
        pruner=row["pruner"],
        ratio=float(row["ratio"]),
        steps=int(row["steps"]),
        lr=float(row["lr"]),
        seed=int(row["seed"]),
        granularity=row["granularity"],
        pruner_code=row["pruner_code"],
        batch_size=int(row["batch_size"]),
    )
    kept, total = int(row["kept"]), int(row["total"])
    value, loss, seconds = (float(row[name]) for name in (metric.val, "val_loss", "seconds"))
    return SensitivityResult(job, kept, total, value, loss, seconds)


def draw_curves(
    path: Path, title: str, results: Iterable[SensitivityResult], dense: float, metric: Metric = ERROR
) -> None:
    """Draws the validation metric over ratio as a PNG, a curve for each layer and pruner.

    The axis of another metric than the error is logarithmic only where all values are positive.
    """
    from matplotlib.figure import Figure  # here since the import takes half a second

    figure = Figure(figsize=(9, 5.4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    results = list(results)
    for number, ((layer, pruner), curve) in enumerate(group_curves(results).items()):
        line = "o-" if number < len(LINES) else "s--"
        keep = [1 - result.job.ratio for result in curve]
        values = [result.val_metric for result in curve]
        colour = LINES[number % len(LINES)]
        axes.plot(keep, values, line, ms=3.5, color=colour, label=f"layer {layer}, {pruner}")
    axes.axhline(dense, color=GREY, lw=1, ls="--", label=f"dense, {metric.format(dense)}")
    positive = metric == ERROR or min([dense, *(result.val_metric for result in results)]) > 0
    scale = "log" if positive else "linear"
    axes.set(xscale="log", yscale=scale, xlabel="ratio removed", ylabel=f"validation {metric.title}", title=title)
    axes.invert_xaxis()
    ticks = (0.9, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
    axes.set_xticks(ticks, [f"{1 - keep:g}" for keep in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, position: f"{value:g}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    files.write_bytes(path, file.getvalue())
