"""What an export reports: the size and costs of the file, and how it compares with the model that was written."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tune_prune.tasks.metrics import Metric


@dataclass(frozen=True)
class LatencyResult:
    """What a batch takes on one core in the format's own runtime: the unpruned network, and the file's.

    `dense` and `pruned` are median seconds, `speedup` is the median of dense divided by pruned, and `speedup_low` and
    `speedup_high` are its quartiles, all of the same pairs of readings, which were taken in turn.
    """

    batch: int
    dense: float
    pruned: float
    speedup: float
    speedup_low: float
    speedup_high: float


@dataclass(frozen=True)
class ExportReport:
    """The size and costs of an exported file, and how far it is from the model, measured on the file as loaded again.

    `total` and `kept` weights are those of weighted layers, without biases, by the masks. `bytes_dense` counts all
    tensors in memory, `bytes_file` the file. Multiply-adds (`macs_...`) are for one sample: of the dense model, of the
    kept weights, and of the file's network. `test_metric` is what the model is judged by, in float32 on `images` test
    samples; where that is the error, `agree` counts the samples for which model and file predict the same, else it is
    None. `max_difference` is the largest difference of two values of an output as a share of its largest value.
    `latencies` compares the file's network with the same network unpruned, written in the same format and loaded alike
    by `runtime`; it is empty where the file's network is that one.
    """

    format: str
    file: str
    total: int
    kept: int
    compression: float
    factor: float
    bytes_dense: int
    bytes_file: int
    macs_dense: float
    macs_kept: float
    macs_file: float
    metric: Metric
    test_metric: float
    images: int
    agree: int | None
    max_difference: float
    runtime: str
    latencies: Sequence[LatencyResult]

    def to_dict(self) -> dict[str, object]:
        """The report as `--json` prints it: the metric under its own name, as `test_error`."""
        left_out = ("metric", "agree") if self.agree is None else ("metric",)
        values = {key: value for key, value in asdict(self).items() if key not in left_out}
        return {self.metric.test if key == "test_metric" else key: value for key, value in values.items()}

    def describe(self) -> list[str]:
        """The report in words, line by line."""
        difference = f"differ by at most {self.max_difference:.1e} of the largest"
        agreement = "are the same bit for bit" if self.max_difference == 0 else difference
        outputs = f"outputs for {self.images:,} test samples"
        if self.agree is not None:
            outputs = f"{self.agree:,} of {self.images:,} test samples get the same class, and scores"
        tested = f"test {self.metric.name} {self.metric.format(self.test_metric)}"
        return [
            f"{self.kept:,} of {self.total:,} weights ({self.factor:.1f}x fewer)",
            f"{self.bytes_file:,} bytes in the file, {self.bytes_dense:,} in memory "
            f"({self.bytes_dense / self.bytes_file:.1f}x)",
            f"{self.macs_file:,.0f} of {self.macs_dense:,.0f} multiply-adds; kept weights take {self.macs_kept:,.0f}",
            f"{tested}; loaded again, {outputs} {agreement}",
            *(
                f"{t.batch} at a time on one core in {self.runtime}: unpruned {1000 * t.dense:.3g} ms, pruned "
                f"{1000 * t.pruned:.3g} ms, {t.speedup:.2f}x as fast (quartiles {t.speedup_low:.2f} to "
                f"{t.speedup_high:.2f})"
                for t in self.latencies
            ),
        ]
