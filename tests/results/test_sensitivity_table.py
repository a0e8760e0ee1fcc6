from pathlib import Path

import pytest
import torch
from toys import fault

from tune_prune.pruning.sensitivity import SensitivityJob, SensitivityResult
from tune_prune.results.sensitivity_table import SensitivityTable, draw_curves, fingerprint_weights

JOBS = [SensitivityJob(layer, "mag", ratio) for layer in ("1", "a.b,c") for ratio in (0.1, 0.9)]


def result_of(job: SensitivityJob, error: float = 1.5) -> SensitivityResult:
    return SensitivityResult(job, 10, 100, error, 0.1 + 0.2, 0.25)


def test_what_is_there_is_not_missing(tmp_path: Path) -> None:
    path = tmp_path / "sensitivity.csv"
    table = SensitivityTable(path, "net", "abc")
    assert table.missing(JOBS) == JOBS
    for job in JOBS[:3]:
        table.add(result_of(job))
    assert table.missing(JOBS) == SensitivityTable(path, "net", "abc").missing(JOBS) == JOBS[3:]
    assert SensitivityTable(path, "net", "abc").results() == [result_of(job) for job in JOBS[:3]]
    # jobs of other weights, or with retraining, are other jobs
    assert SensitivityTable(path, "net", "abd").missing(JOBS) == JOBS
    assert SensitivityTable(path, "net", "abd").results() == []
    retrained = [SensitivityJob("1", "mag", 0.1, 390, 0.01)]
    assert table.missing(retrained) == retrained


def test_rows_of_other_models_stay(tmp_path: Path) -> None:
    path = tmp_path / "sensitivity.csv"
    SensitivityTable(path, "one", "abc").add(result_of(JOBS[0]))
    SensitivityTable(path, "two", "abc").add(result_of(JOBS[1]))
    assert SensitivityTable(path, "one", "abc").results() == [result_of(JOBS[0])]
    assert SensitivityTable(path, "two", "abc").results() == [result_of(JOBS[1])]


def test_a_job_comes_back_with_all_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "sensitivity.csv"
    jobs = [
        SensitivityJob("1", "taylor1", 0.5, 390, 0.05, 7, granularity) for granularity in ("weight", "filter", "2:4")
    ]
    table = SensitivityTable(path, "net", "abc")
    for job in jobs:
        table.add(result_of(job))
    for read in (table, SensitivityTable(path, "net", "abc")):
        assert [result.job for result in read.results()] == jobs
        assert read.missing(jobs) == []


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "\x00\xff", "model,weights\n"])
def test_another_file_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sensitivity.csv"
    path.write_text(text, encoding="latin-1")
    assert "not a sensitivity.csv of this program" in fault(lambda: SensitivityTable(path, "net", "abc"))
    assert path.read_text(encoding="latin-1") == text


def test_a_damaged_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sensitivity.csv"
    SensitivityTable(path, "net", "abc").add(result_of(JOBS[0]))
    path.write_text(path.read_text().replace("0.1,0,", "many,0,"))
    assert "not a sensitivity.csv of this program" in fault(lambda: SensitivityTable(path, "net", "abc"))


def test_the_fingerprint_is_of_names_and_numbers() -> None:
    weights = {"a": torch.zeros(3), "b": torch.ones(2)}
    assert fingerprint_weights(weights) == fingerprint_weights({key: value.clone() for key, value in weights.items()})
    changed = [weights | {"b": torch.tensor([1.0, 1.0000001])}, {"a": torch.zeros(3), "c": torch.ones(2)}]
    assert len({fingerprint_weights(one) for one in [weights, *changed]}) == 3


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    draw_curves(
        tmp_path / "a.png", "net", [result_of(job, error) for job, error in zip(JOBS, (1, 2, 3, 90), strict=True)], 1
    )
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
