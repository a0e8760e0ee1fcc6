from pathlib import Path

import pytest
from searches import SPACE

from tune_prune.hpo import run_files
from tune_prune.workflows import dry_run
from tune_prune.workflows.dry_run import describe_search, format_bytes


def described(tmp_path: Path, text: str = SPACE, **given: object) -> list[str]:
    (tmp_path / "toy.toml").write_text(text)
    config, space, _ = run_files.start_run(str(tmp_path / "toy.toml"), {"force": True} | given)
    before = sorted(tmp_path.iterdir())
    lines = describe_search(config, space)
    assert sorted(tmp_path.iterdir()) == before
    return lines


def test_everything_is_described(tmp_path: Path) -> None:
    lines = described(tmp_path, confirm=3, refit=True, certify=0.9)
    text = "\n".join(lines)
    assert lines[0] == "toy: toys:mlp on toys:images, 8 trials, tradeoff 5 points"
    for part in (
        "dense model: ",
        "samples: ",
        "  ratio/2 = 0.1 to 0.95",
        " weights, ",
        "  pruner = mag or taylor1",
        "measuring layers: 2 layers, each alone at 13 ratios",
        "initial trials: 1 of the space, and up to 3 levels from 3x to 100x",
        "search: sampler tpe, trials of 2 rounds, 12 steps each",
        "refinement: 25 % of the trials, of 2 rounds, 20 steps each",
        "confirming: each member of the front again from 3 other seeds",
        "refitting: ",
        "testing the front: once, on the test images, with certificates at 90 %",
        "time: at most about ",
        "memory: about ",
    ):
        assert part in text
    ratios = [line.removesuffix(" %") for line in lines if line.startswith("  ratio/")]
    shares = [float(line.rpartition(", ")[2]) for line in ratios]
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_a_short_time_is_the_end(tmp_path: Path) -> None:
    assert any(line.startswith("time: until the time budget ends; ") for line in described(tmp_path, time_budget=1.0))
    plain = SPACE.replace("share = 0.25", "share = 0") + "[initial]\ntrials = 0\n"
    text = "\n".join(described(tmp_path, plain.replace("[[initial.point]]\nratio = 0.5\n", "")))
    assert "refinement: none" in text
    assert "measuring layers" not in text
    assert "initial trials: 0 of the space\n" in text


def test_packages_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "find_spec", lambda name: None if name == "plotly" else object())
    assert described(tmp_path)[-1] == (
        "not installed: plotly, for interactive charts in report.html: pip install 'tune-prune[report]'"
    )
    monkeypatch.setattr(dry_run, "find_spec", str)
    assert described(tmp_path)[-1] == "all extras of a search are installed"


@pytest.mark.parametrize(("count", "text"), [(0, "0 MB"), (2**20, "1 MB"), (1.5 * 2**30, "1.5 GB")])
def test_bytes(count: float, text: str) -> None:
    assert format_bytes(count) == text


def test_weights_that_channels_leave_are_counted_as_their_layer(tmp_path: Path) -> None:
    text = SPACE.replace("toys:mlp", "toys:Conv").replace("[space]", '[space]\ngranularity = "channel+weight"')
    old = '"2" = {low = 0.1, high = 0.95}\n"4" = {low = 0.0, high = 0.5}'
    lines = described(tmp_path, text.replace(old, '"features.*" = 0.5\n"weights/features.4" = {low = 0.1, high = 0.9}'))
    counted = {line.split(" = ")[0].strip(): line.split()[-4] for line in lines if line.startswith("  ratio/")}
    assert counted == {"ratio/features.0": "36", "ratio/features.4": "288", "ratio/weights/features.4": "288"}
