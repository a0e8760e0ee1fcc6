import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_prune.workflows.profiling import gpu_share

GB = 2**30


@pytest.mark.parametrize(
    ("need", "total", "processors", "trials"),
    [
        (GB, 140 * GB, 16, 16),
        (GB, 10 * GB, 16, 8),
        (9 * GB, 10 * GB, 16, 1),
        (20 * GB, 10 * GB, 16, 1),
        (GB, 8 * GB, 0.5, 1),
    ],
)
def test_as_many_as_memory_and_processors_hold(need: int, total: int, processors: float, trials: int) -> None:
    assert gpu_share(need, total, processors) == 1 / trials


@given(st.integers(1, 10**12), st.integers(1, 10**12), st.floats(0, 1000))
def test_shares_never_ask_for_more_than_there_is(need: int, total: int, processors: float) -> None:
    share = gpu_share(need, total, processors)
    trials = round(1 / share)
    assert math.isclose(trials * share, 1)
    assert trials == 1 or (trials * need <= total and trials <= processors)
