from pathlib import Path

import pytest
from toys import fault

from tune_prune.pruning.sensitivity import SensitivityJob, SensitivityResult
from tune_prune.results.sensitivity_table import SensitivityTable, draw_curves, make_subject

CONTENT = {"model code": "c" * 32, "weights": "abc", "training inputs": "1", "validation inputs": "2"}
SUBJECT = make_subject("net", "images", CONTENT)
JOBS = [SensitivityJob(layer, "mag", ratio) for layer in ("1", "a.b,c") for ratio in (0.1, 0.9)]


def result_of(job: SensitivityJob, error: float = 1.5) -> SensitivityResult:
    return SensitivityResult(job, 10, 100, error, 0.1 + 0.2, 0.25)


def test_what_is_there_is_not_missing(tmp_path: Path) -> None:
    path = tmp_path / "sensitivity.csv"
    table = SensitivityTable(path, SUBJECT)
    assert table.missing(JOBS) == JOBS
    for job in JOBS[:3]:
        table.add(result_of(job))
    assert table.missing(JOBS) == SensitivityTable(path, SUBJECT).missing(JOBS) == JOBS[3:]
    assert SensitivityTable(path, SUBJECT).results() == [result_of(job) for job in JOBS[:3]]
    # with retraining they are other jobs
    retrained = [SensitivityJob("1", "mag", 0.1, 390, 0.01)]
    assert table.missing(retrained) == retrained


@pytest.mark.parametrize(
    ("part", "column"),
    [
        ("weights", "weights"), ("model code", "code"), ("training inputs", "splits"), ("validation inputs", "splits")
    ],
)  # fmt: skip
def test_of_other_contents_every_job_is_missing_and_what_changed_has_a_name(
    tmp_path: Path, part: str, column: str
) -> None:
    path = tmp_path / "sensitivity.csv"
    table = SensitivityTable(path, SUBJECT)
    table.add(result_of(JOBS[0]))
    assert table.changed_parts(JOBS) == []
    changed = SensitivityTable(path, make_subject("net", "images", CONTENT | {part: "another"}))
    assert changed.missing(JOBS) == JOBS
    assert changed.results() == []
    assert changed.changed_parts(JOBS) == [column]
    assert SensitivityTable(path, make_subject("net", "other images", CONTENT)).missing(JOBS) == JOBS


def test_of_another_code_of_a_pruner_its_jobs_are_missing(tmp_path: Path) -> None:
    path, old, new = tmp_path / "sensitivity.csv", *(SensitivityJob("1", "my:own", 0.1, pruner_code=c) for c in "ab")
    table = SensitivityTable(path, SUBJECT)
    for job in (JOBS[0], old):
        table.add(result_of(job))
    assert SensitivityTable(path, SUBJECT).missing([*JOBS[:1], old, new]) == [new]
    assert table.changed_parts([JOBS[0], old]) == []
    assert table.changed_parts([JOBS[0], new]) == ["pruner_code"]


def test_rows_of_other_models_stay(tmp_path: Path) -> None:
    path = tmp_path / "sensitivity.csv"
    one, two = (make_subject(name, "images", CONTENT) for name in ("one", "two"))
    SensitivityTable(path, one).add(result_of(JOBS[0]))
    SensitivityTable(path, two).add(result_of(JOBS[1]))
    assert SensitivityTable(path, one).results() == [result_of(JOBS[0])]
    assert SensitivityTable(path, two).results() == [result_of(JOBS[1])]


def test_a_job_comes_back_with_all_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "sensitivity.csv"
    jobs = [
        SensitivityJob("1", "taylor1", 0.5, 390, 0.05, 7, granularity) for granularity in ("weight", "filter", "2:4")
    ]
    table = SensitivityTable(path, SUBJECT)
    for job in jobs:
        table.add(result_of(job))
    for read in (table, SensitivityTable(path, SUBJECT)):
        assert [result.job for result in read.results()] == jobs
        assert read.missing(jobs) == []


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "\x00\xff", "model,weights\n", "model,weights,layer\nnet,abc,1\n"])
def test_another_file_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sensitivity.csv"
    path.write_text(text, encoding="latin-1")
    assert "not a sensitivity.csv of this version of the program" in fault(lambda: SensitivityTable(path, SUBJECT))
    assert path.read_text(encoding="latin-1") == text


def test_a_damaged_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sensitivity.csv"
    SensitivityTable(path, SUBJECT).add(result_of(JOBS[0]))
    path.write_text(path.read_text().replace("0.1,0,", "many,0,"))
    assert "not a sensitivity.csv of this version of the program" in fault(lambda: SensitivityTable(path, SUBJECT))


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    draw_curves(
        tmp_path / "a.png", "net", [result_of(job, error) for job, error in zip(JOBS, (1, 2, 3, 90), strict=True)], 1
    )
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
