from hypothesis import given
from hypothesis import strategies as st
from toys import ended

from tune_prune.results import pareto
from tune_prune.results.constraints import Constraints
from tune_prune.results.front import find_front
from tune_prune.results.front_tracker import FrontTracker

LIMIT = 2.0

points = st.tuples(st.sampled_from([0.5, 0.9]) | st.floats(0, 0.99), st.sampled_from([0.5, 1.5, 2.5]) | st.floats(0, 9))
trials = st.lists(
    st.tuples(st.lists(points, max_size=3), st.sampled_from(["complete", "stopped", "failed"])), max_size=12
)


@given(trials)
def test_trial_by_trial_is_what_all_together_are(measured: list[tuple[list[tuple[float, float]], str]]) -> None:
    tracker, records = FrontTracker(Constraints(LIMIT)), []
    for number, (rounds, state) in enumerate(measured):
        records.append(ended(number, *rounds, state=state, limit=LIMIT))
        tracker.add(records[-1])
        members = [(member.point.compression, member.point.val_metric) for member in find_front(records)]
        assert tracker.front == members
        assert tracker.best == (members[-1] if members else None)
        now = tracker.history[-1]
        assert now.hypervolume == pareto.hypervolume(members, LIMIT)
        assert now.log_factor == (pareto.log_factor(members[-1][0]) if members else 0)
        assert now.seconds == sum(record.seconds for record in records)
    assert tracker.ended == len(records)
    assert tracker.count("stopped") == [state for _, state in measured].count("stopped")


def test_a_limit_of_zero_leaves_no_room() -> None:
    tracker = FrontTracker(Constraints(0.0))
    tracker.add(ended(0, (0.5, 0.0), limit=0.0))
    assert tracker.now.hypervolume == 0
