import pytest

from tune_prune.training.lr_schedules import lr_schedules
from tune_prune.training.optim import Recipe


@pytest.mark.parametrize("name", lr_schedules)
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_every_schedule_begins_at_one_and_never_rises(name: str, steps: int) -> None:
    shares = [lr_schedules[name](step, steps) for step in range(steps)]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    assert all(0 < share <= 1 for share in shares)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cosine", [0.8, 0.682843, 0.4, 0.117157]),
        ("linear", [0.8, 0.6, 0.4, 0.2]),
        ("constant", [0.8, 0.8, 0.8, 0.8]),
        ("step", [0.8, 0.8, 0.08, 0.008]),
    ],
)
def test_the_rates_of_four_steps(name: str, expected: list[float]) -> None:
    recipe = Recipe(4, 0.8, lr_schedule=name)
    assert [recipe.lr_at(step) for step in range(4)] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", lr_schedules)
def test_every_schedule_follows_a_warm_up(name: str) -> None:
    recipe = Recipe(100, 1.0, lr_schedule=name, warmup=0.2)
    assert [recipe.lr_at(step) for step in range(21)] == pytest.approx([(step + 1) / 21 for step in range(21)])
    assert recipe.lr_at(60) == pytest.approx(lr_schedules[name](40, 80))
