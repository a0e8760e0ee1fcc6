"""sensitivity.csv, which grows and is never measured twice, and sensitivity.png, its curves."""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path

from torch import Tensor

from tune_prune.common import files
from tune_prune.common.errors import UserError
from tune_prune.pruning.sensitivity import SensitivityJob, SensitivityResult, group_curves

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
KEY = ["model", "weights", *(f.name for f in fields(SensitivityJob))]
MEASURED = [f.name for f in fields(SensitivityResult) if f.name != "cell"]

Row = dict[str, str]


def fingerprint_weights(weights: Mapping[str, Tensor]) -> str:
    """Twelve hexadecimal digits that tell one dense model's weights from another's."""
    digest = hashlib.sha256()
    for name, value in weights.items():
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


class SensitivityTable:
    """The rows of a sensitivity.csv, of this model and of any other; errors in percent, loss in nats."""

    def __init__(self, path: Path, model: str, weights: str) -> None:
        self._path, self._model, self._weights = path, model, weights
        self._rows = _read(path)

    def missing(self, cells: Iterable[SensitivityJob]) -> list[SensitivityJob]:
        """Those that no row is of."""
        there = {tuple(row[name] for name in KEY) for row in self._rows}
        return [cell for cell in cells if tuple(self._key(cell).values()) not in there]

    def add(self, sensed: SensitivityResult) -> None:
        """Append a row; the file is written whole."""
        measured = {name: repr(getattr(sensed, name)) for name in MEASURED}
        self._rows.append(self._key(sensed.cell) | measured)
        text = io.StringIO()
        writer = csv.DictWriter(text, [*KEY, *MEASURED], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        files.write_text(self._path, text.getvalue())

    def of_this_model(self) -> list[SensitivityResult]:
        """Every row of this model, as what was measured."""
        mine = [row for row in self._rows if (row["model"], row["weights"]) == (self._model, self._weights)]
        return [_sensed(row) for row in mine]

    def _key(self, cell: SensitivityJob) -> Row:
        values = {name: value if isinstance(value, str) else repr(value) for name, value in asdict(cell).items()}
        return {"model": self._model, "weights": self._weights} | values


def _read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
        if list(reader.fieldnames or []) != [*KEY, *MEASURED]:
            raise ValueError("other columns")
        for row in rows:
            _sensed(row)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not a sensitivity.csv of this program ({error}); name another --out") from error
    return rows


def _sensed(row: Row) -> SensitivityResult:
    cell = SensitivityJob(
        row["layer"], row["pruner"], float(row["ratio"]), int(row["steps"]), float(row["lr"]), int(row["seed"])
    )
    kept, total = int(row["kept"]), int(row["total"])
    return SensitivityResult(cell, kept, total, float(row["val_error"]), float(row["val_loss"]), float(row["seconds"]))


def draw_curves(path: Path, title: str, found: Iterable[SensitivityResult], dense_error: float) -> None:
    """Draw validation error in percent over the ratio, a curve a layer and pruner, as a PNG."""
    from matplotlib.figure import Figure  # not on import: it takes half a second

    figure = Figure(figsize=(9, 5.4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for number, ((layer, pruner), row) in enumerate(group_curves(found).items()):
        line = "o-" if number < len(OKABE_ITO) else "s--"
        keep = [1 - sensed.cell.ratio for sensed in row]
        errors = [sensed.val_error for sensed in row]
        colour = OKABE_ITO[number % len(OKABE_ITO)]
        axes.plot(keep, errors, line, ms=3.5, color=colour, label=f"layer {layer}, {pruner}")
    axes.axhline(dense_error, color="#8A8A8A", lw=1, ls="--", label=f"dense, {dense_error:.2f} %")
    axes.set(xscale="log", yscale="log", xlabel="ratio removed", ylabel="validation error, %", title=title)
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
