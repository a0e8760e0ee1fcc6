import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import fault

from tune_prune.results import records
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.results.trial_params import TrialParams

numbers = st.floats(allow_nan=False)  # which equals nothing, itself included
texts = st.text()
ratios = st.dictionaries(texts, st.floats(0, 1, exclude_max=True), max_size=3)
points = st.builds(PointRecord, st.integers(1), numbers, numbers, numbers, numbers, st.booleans(), numbers, ratios)
trials = st.builds(
    TrialRecord,
    st.integers(0, 10**6),
    st.sampled_from(["running", *records.FINAL_STATES]),
    st.builds(
        TrialParams,
        ratios,
        st.none() | texts,
        st.dictionaries(texts, texts, max_size=3),
        ratios,
        st.dictionaries(texts, texts | numbers | st.integers() | st.booleans(), max_size=4),
    ),
    st.dictionaries(texts, texts, max_size=3),
    st.lists(points, max_size=3),
    texts,
    seconds=numbers,
    cpu_seconds=numbers,
)


def with_names(record: TrialRecord, parent: int | None, kept: bool) -> TrialRecord:
    """The record with a parent before it, and with its own checkpoints where they are `kept`."""
    points = [replace(p, checkpoint=f"rounds/{record.trial}-{p.round}.safetensors") for p in record.points]
    earlier = None if parent is None or parent >= record.trial else parent
    return replace(record, points=points if kept else record.points, parent=earlier, refines=earlier)


def trial(number: int, state: str = "complete") -> TrialRecord:
    found = [PointRecord(r, r / 10, 1 / (1 - r / 10), 1.0, 0.05, True, 2.5, {"8": r / 10}) for r in (1, 2)]
    return TrialRecord(number, state, TrialParams({"8": 0.2}, training={"rounds": 2}), {"8": "mag"}, found)


@given(st.builds(with_names, trials, st.none() | st.integers(0, 100), st.booleans()))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, record: TrialRecord) -> None:
    run_dir = tmp_path_factory.getbasetemp() / "run"
    records.write(run_dir, record)
    assert records.read(records.record_path(run_dir, record.trial)) == record


def test_every_record_in_the_order_of_trials(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        records.write(tmp_path, trial(number))
    assert records.read_all(tmp_path) == [trial(0), trial(2), trial(10)]


def test_a_later_record_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    records.write(tmp_path, trial(1, "running"))
    records.write(tmp_path, trial(1))
    assert [record.state for record in records.read_all(tmp_path)] == ["complete"]
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["1.json"]


def test_no_records(tmp_path: Path) -> None:
    assert records.read_all(tmp_path) == []


def test_the_last_point() -> None:
    assert trial(1).last.round == 2


WHOLE = json.dumps({"trial": 1, "state": "complete", "params": {"ratios": {}}, "pruners": {}, "points": []})


def test_the_least_a_record_holds(tmp_path: Path) -> None:
    path = tmp_path / "1.json"
    path.write_text(WHOLE)
    assert records.read(path) == TrialRecord(1, "complete", TrialParams({}), {})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"3",
        b"null",
        b"{}",
        WHOLE[:-1].encode(),
        WHOLE.replace('"points": []', '"points": [{}]').encode(),
        WHOLE.replace('"points": []', '"points": ["a"]').encode(),
        WHOLE.replace('"points": []', '"points": 3').encode(),
        WHOLE.replace('"trial"', '"try"').encode(),
        WHOLE.replace('{"ratios": {}}', "{}").encode(),
        WHOLE.replace('{"ratios": {}}', '{"ratio/8": 0.5}').encode(),
    ],
)
def test_damaged_records(tmp_path: Path, content: bytes) -> None:
    records.write(tmp_path, trial(0))
    path = records.record_path(tmp_path, 1)
    path.write_bytes(content)
    for call in (lambda: records.read(path), lambda: records.read_all(tmp_path)):
        said = fault(call)
        assert said.startswith(f"{path}: damaged trial record (")
        assert said.endswith("); delete it and its trial is run again")


def test_a_record_that_is_not_there(tmp_path: Path) -> None:
    assert fault(lambda: records.read(tmp_path / "1.json")).startswith(f"{tmp_path / '1.json'}: damaged trial record (")


# What a record may name


@pytest.mark.parametrize(
    "name",
    [
        "/etc/hostname", "../x", "rounds/../study.db", "rounds/7-1.safetensors", "rounds/1-3.safetensors", "study.db",
        "", "rounds/1-2.safetensors/", "./rounds/1-2.safetensors", 3,
    ],
)  # fmt: skip
def test_a_record_names_no_file_but_its_own_trials(tmp_path: Path, name: Any) -> None:
    record = trial(1)
    last = replace(record.last, checkpoint=name)
    records.write(tmp_path, replace(record, points=[record.points[0], last]))
    path = records.record_path(tmp_path, 1)
    for call in (lambda: records.read(path), lambda: records.read_all(tmp_path)):
        assert fault(call).startswith(f"{path}: damaged trial record (")


def test_the_checkpoints_of_a_trial(tmp_path: Path) -> None:
    record = trial(12)
    own = replace(record, points=[replace(p, checkpoint=f"rounds/12-{p.round}.safetensors") for p in record.points])
    records.write(tmp_path, own)
    assert records.read_all(tmp_path) == [own]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trial", 2), ("trial", "../1"), ("state", "done"), ("state", 3), ("parent", 1), ("parent", -1),
        ("refines", 4), ("refines", "0"), ("reason", None), ("seconds", "1"), ("pruners", {"8": 1}), ("points", "a"),
        ("params", {"ratios": {"8": "no"}}), ("params", {"ratios": {"8": 10**400}}),
        ("params", {"ratios": {}, "training": {"lr": []}}),
    ],
)  # fmt: skip
def test_a_record_with_a_wrong_value(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "1.json"
    path.write_text(json.dumps(json.loads(WHOLE) | {key: value}))
    assert fault(lambda: records.read(path)).startswith(f"{path}: damaged trial record (")


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"format": 3}, "format 3, and this one reads format 2"),
        ({"weights": "x", "colour": 1}, "it has colour, weights"),
    ],
)
def test_a_record_of_a_newer_version(tmp_path: Path, more: dict[str, Any], found: str) -> None:
    path = tmp_path / "1.json"
    path.write_text(json.dumps(json.loads(WHOLE) | more))
    advice = "go on with that version; nothing was changed"
    said = f"{path}: a newer version of tune-prune wrote this record ({found}); {advice}"
    assert fault(lambda: records.read(path)) == said


def test_a_point_of_a_newer_version(tmp_path: Path) -> None:
    records.write(tmp_path, trial(1))
    path = records.record_path(tmp_path, 1)
    path.write_text(path.read_text().replace('"round": 2', '"round": 2, "energy": 3'))
    assert "a newer version of tune-prune wrote this record (it has energy)" in fault(lambda: records.read(path))
