"""A search with gradual pruning, on toys: its rounds follow one another, and what came of them can be made again."""

from pathlib import Path

import pytest
from searches import SPACE, points, resumed, searched, trials_of, without_ray
from toys import fault

GRADUAL = "[gradual]\nrounds = 4\nmax_factor = 8\nsteps = 20\ngrowth = 12\nlr = 0.05\n"


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """A space of ten trials, four of them rounds of gradual pruning."""
    path = tmp_path / "toy.toml"
    text = SPACE.replace("budget = 8", "budget = 10").replace("acc_tradeoff = 5", "acc_tradeoff = 90")
    path.write_text(text + GRADUAL)
    return path


def test_each_round_starts_from_the_one_before(toml: Path, command) -> None:
    with without_ray():
        code, run_dir = searched(toml)
    assert code == 0
    trials = trials_of(run_dir)
    chain = trials[trials["kind"] == "gradual"]
    assert len(chain) == 4
    assert chain["parent"].tolist()[1:] == chain["trial"].tolist()[:-1]
    assert chain["factor"].is_monotonic_increasing
    assert chain["steps"].tolist() == [1, 2, 5, 12]
    assert (chain["rounds"] == 1).all()
    assert (chain["lr"] == 0.05).all()
    assert command("prune", "--conf", run_dir / "best.conf", "--replay") == 0


def leave(count: int) -> None:
    """Leaves a search after its second trial, as if its process had died."""
    if count == 2:
        raise RuntimeError("gone")


def test_a_resumed_search_is_one_that_was_not_interrupted(toml: Path) -> None:
    with without_ray():
        _, whole = searched(toml, "whole")
    with without_ray() as trials:
        trials.after = leave
        with pytest.raises(RuntimeError, match="gone"):
            searched(toml, "parts")
    with without_ray():
        assert resumed(toml.parent / "parts") == 0
    assert trials_of(whole).equals(trials_of(toml.parent / "parts"))
    assert points(whole).equals(points(toml.parent / "parts"))


NEURONS = (("lr = 0.05\n[space.ratio]", 'lr = 0.05\ngranularity = "neuron"\n[space.ratio]'), ('"4" =', '# "4" ='))
CHANNELS = (
    ('model = "toys:mlp"', 'model = "toys:Conv"'),
    ("lr = 0.05\n[space.ratio]", 'lr = 0.05\ngranularity = "channel"\n[space.ratio]'),
    ('"2" = {low = 0.1, high = 0.95}\n"4" = {low = 0.0, high = 0.5}\n', '"*" = {low = 0.0, high = 0.9}\n'),
)


MIXED = (
    *CHANNELS[:1],
    ("lr = 0.05\n[space.ratio]", 'lr = 0.05\ngranularity = "channel+weight"\n[space.ratio]'),
    (CHANNELS[2][0], '"weights/*" = {low = 0.0, high = 0.9}\n"*" = {low = 0.0, high = 0.9}\n'),
)


@pytest.mark.parametrize("changes", [NEURONS, CHANNELS, MIXED], ids=["neurons", "channels", "mixture"])
def test_whole_units_leave_by_one_threshold_as_well(toml: Path, changes: tuple[tuple[str, str], ...], command) -> None:
    text = toml.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    toml.write_text(text)
    with without_ray():
        code, run_dir = searched(toml)
    assert code == 0
    trials = trials_of(run_dir)
    chain = trials[trials["kind"] == "gradual"]
    assert len(chain) >= 2
    assert chain["parent"].tolist()[1:] == chain["trial"].tolist()[:-1]
    assert chain["factor"].is_monotonic_increasing
    assert command("prune", "--conf", run_dir / "best.conf", "--replay") == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "lr = 0.05\n[space.ratio]",
            'lr = 0.05\ngranularity = ["weight", "neuron"]\n[space.ratio]',
            "leave it out where trials choose of several",
        ),
        (
            '[space.ratio]\n"2" = {low = 0.1, high = 0.95}\n"4" = {low = 0.0, high = 0.5}\n',
            'mode = "global"\n[space.ratio]\n"*" = {low = 0.1, high = 0.95}\n',
            'in mode "global"; leave one of the two out',
        ),
    ],
)
def test_it_needs_units_of_one_kind_and_ratios_of_layers(toml: Path, old: str, new: str, message: str) -> None:
    text = toml.read_text()
    assert old in text
    toml.write_text(text.replace(old, new))
    assert message in fault(lambda: searched(toml))
