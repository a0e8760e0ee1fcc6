from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import ended, turned

from tune_prune.hpo.warm_start import find_warm_start
from tune_prune.results.records import PointRecord, TrialRecord, lineage
from tune_prune.tasks.metrics import Metric


def kept(records: Sequence[TrialRecord]) -> list[tuple[int, PointRecord]]:
    """The rounds whose weights were kept."""
    return [(record.trial, point) for record in records for point in record.points if point.checkpoint]


def found_start(
    records: Sequence[TrialRecord], ratio: float, max_error: float = 2.0, removed: str = ""
) -> tuple[int, int] | None:
    """Trial and round that a trial with this ratio begins at."""
    rounds = [(trial, point) for trial, point in kept(records) if point.checkpoint != removed]
    start = find_warm_start(rounds, {"2": ratio}, max_error)
    return None if start is None else (start.trial, start.round)


RECORDS = [ended(0, (0.5, 1.0), (0.9, 1.5)), ended(1, (0.6, 1.2), (0.95, 1.9))]


@pytest.mark.parametrize(
    ("ratio", "expected"), [(0.4, None), (0.5, (0, 1)), (0.7, (1, 1)), (0.9, (0, 2)), (0.94, (0, 2)), (0.99, (1, 2))]
)
def test_the_most_compressed_that_it_contains(ratio: float, expected: tuple[int, int] | None) -> None:
    assert found_start(RECORDS, ratio) == expected
    assert found_start(RECORDS[::-1], ratio) == expected


def test_none_with_too_many_errors_and_none_without_weights() -> None:
    assert found_start(RECORDS, 0.99, max_error=1.4) == (1, 1)
    assert found_start(RECORDS, 0.99, removed="rounds/1-2.safetensors") == (0, 2)
    assert found_start(RECORDS, 0.99, max_error=0.9) is None


def test_a_round_without_a_file_is_none() -> None:
    assert found_start([ended(0, (0.5, 9.0), (0.9, 9.0), limit=2.0)], 0.6, max_error=10) is None


def test_a_layer_that_is_not_pruned_must_be_whole() -> None:
    assert find_warm_start(kept(RECORDS), {"4": 0.9}, 2.0) is None


def test_equal_ratios_with_fewer_errors() -> None:
    assert found_start([ended(0, (0.9, 1.5)), ended(1, (0.9, 1.2)), ended(2, (0.9, 1.2))], 0.9) == (1, 1)


points = st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.9]) | st.floats(0, 0.99), st.floats(0, 5)), min_size=1)


@given(st.lists(points, max_size=5), st.floats(0, 0.99))
def test_nothing_is_left_out_of_what_it_begins_at(found: list[list[tuple[float, float]]], ratio: float) -> None:
    records = [ended(number, *points, limit=9) for number, points in enumerate(found)]
    within = [(c, e) for points in found for c, e in points if c <= ratio and e <= 2.0]
    start = find_warm_start(kept(records), {"2": ratio}, 2.0)
    assert (start is None) == (not within)
    if start is not None:
        chosen = found[start.trial][start.round - 1]
        assert chosen[0] == max(c for c, _ in within)
        assert chosen[1] == min(e for c, e in within if c == chosen[0])


def test_lineage_is_the_way_back_to_the_dense_model() -> None:
    first = ended(0, (0.5, 1.0), (0.9, 1.5))
    second = TrialRecord(1, "complete", {}, {}, first.points, parent=0, parent_round=1)
    third = TrialRecord(2, "complete", {}, {}, first.points, parent=1, parent_round=2)
    by_trial = {record.trial: record for record in (first, second, third)}
    assert lineage(third, by_trial) == [(first, 1), (second, 2)]
    assert lineage(first, by_trial) == []


def test_which_way_is_better_changes_no_start() -> None:
    higher = Metric("closeness", "higher")
    equal = [*RECORDS, ended(2, (0.9, 1.2))]
    for max_error in (0.9, 1.4, 2.0):
        found = find_warm_start(kept([*map(turned, equal)]), {"2": 0.94}, max_error, metric=higher)
        assert found == find_warm_start(kept(equal), {"2": 0.94}, max_error)
