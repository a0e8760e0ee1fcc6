"""Channels and single weights in one search, from the space to the files: it repeats itself, resumes, replays."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from searches import SPACE, Trials, points, resumed, searched, trials_of
from toys import Conv, fault, images, task_of

import tune_prune
from tune_prune.export.compaction import compact
from tune_prune.hpo import space_reader
from tune_prune.hpo.config import Config
from tune_prune.hpo.space import Space
from tune_prune.pruning import checkpoint, iterative, masks
from tune_prune.pruning.granularity import MIXTURES
from tune_prune.pruning.sensitivity import SensitivityJob, measure_retrained, measure_without_retraining
from tune_prune.results.trial_params import TrialParams
from tune_prune.workflows.refit import refit, refit_plan
from tune_prune.workflows.space_checks import check_with_data, count_removable

MIXTURE = SPACE.replace("toys:mlp", "toys:Conv").replace("[space]", '[space]\ngranularity = "channel+weight"')
MIXTURE = MIXTURE.replace(
    '"2" = {low = 0.1, high = 0.95}\n"4" = {low = 0.0, high = 0.5}',
    '"weights/features.*" = {low = 0.1, high = 0.9}\n"features.*" = {low = 0.1, high = 0.8}\n"weights/head" = 0.25',
)
WEIGHTS = ["ratio/weights/features.0", "ratio/weights/features.4", "ratio/weights/head"]


def space(text: str) -> Space:
    return space_reader.parse(text, "toy", "toy.toml")


@pytest.mark.parametrize("granularity", MIXTURES)
def test_one_search_finds_small_sparse_networks_and_repeats_itself(
    trials: Trials, tmp_path: Path, granularity: str, command: Callable[..., int]
) -> None:
    path = tmp_path / "toy.toml"
    path.write_text(MIXTURE.replace("channel+weight", granularity))
    code, run_dir = searched(path, acc_tradeoff=60.0, budget=5)
    assert code == 0
    table = points(run_dir)
    ratios = ["ratio/features.0", "ratio/features.4", *WEIGHTS]
    assert [name for name in table if name.startswith("ratio/") and table[name].any()] == ratios
    assert (table[table["round"] == 2]["ratio/weights/head"] == 0.25).all()
    assert set(trials_of(run_dir)["kind"]) == {"explore", "refine"}
    _, again = searched(path, "again", acc_tradeoff=60.0, budget=5)
    assert points(again).equals(table)
    front = json.loads((run_dir / "summary.json").read_text())["front"]
    model, found = checkpoint.restore(checkpoint.read(run_dir / front[-1]["checkpoint"]), "it")
    left = sum(kept for kept, _ in masks.kept_counts(found).values())
    assert front[-1]["compression"] == (36 + 288 + 128 - left) / (36 + 288 + 128)
    inputs = torch.rand(8, 1, 8, 8)
    torch.testing.assert_close(compact(model.eval(), inputs)(inputs), model(inputs), rtol=1e-4, atol=1e-5)
    for conf in (run_dir / "confs").iterdir():
        assert command("prune", "--conf", conf, "--replay", "--out", tmp_path / "replay", "--json") == 0


def test_a_search_that_goes_on_finds_what_one_without_a_break_does(trials: Trials, tmp_path: Path) -> None:
    path = tmp_path / "toy.toml"
    path.write_text(MIXTURE)
    _, whole = searched(path, "whole", acc_tradeoff=60.0, budget=9)

    def stop(count: int) -> None:
        if count == 4:
            raise KeyboardInterrupt

    trials.after = stop
    with pytest.raises(KeyboardInterrupt):
        searched(path, "broken", acc_tradeoff=60.0, budget=9)
    trials.after = lambda count: None
    assert resumed(tmp_path / "broken") == 0
    assert points(tmp_path / "broken").equals(points(whole))


def test_levels_remove_channels_and_weights(trials: Trials, tmp_path: Path) -> None:
    path = tmp_path / "toy.toml"
    text = MIXTURE.replace("steps = 2\n", "steps = 400\n", 1).replace("[[initial.point]]\nratio = 0.5\n", "")
    path.write_text(text + "[initial]\ntrials = 3\nmin_factor = 2\nmax_factor = 20\n")
    _, run_dir = searched(path, acc_tradeoff=60.0, budget=3)
    last = points(run_dir).query("round == 2")
    assert last["compression"].nunique() == 3
    assert (last[["ratio/features.4", "ratio/weights/features.4"]].nunique() == 3).all()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            MIXTURE.replace("channel+weight", "channel+weights"),
            "unknown granularity 'channel+weights'; did you mean channel+weight? known: weight, filter,",
        ),
        (
            MIXTURE.replace('"channel+weight"', '["channel+weight", "weight"]'),
            "'channel+weight' cannot be one of several; search it alone",
        ),
        (
            MIXTURE.replace('"channel+weight"', '"channel+2:4"\nmode = "global"'),
            "granularity 'channel+2:4' has a ratio for each group; leave out mode",
        ),
    ],
)
def test_a_space_that_cannot_be(text: str, says: str) -> None:
    assert says in fault(lambda: space(text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            MIXTURE.replace("channel+weight", "channel"),
            "toy.toml: space.ratio.'weights/features.*' matches no layer of toys:Conv; layers that can be pruned: "
            "features.0, features.4; a name with weights/ is of granularity 'channel+weight' or 'channel+2:4'",
        ),
        (
            MIXTURE.replace("weights/head", "weights/tail"),
            "toy.toml: space.ratio.'weights/tail' matches no layer of toys:Conv; layers that can be pruned: features.0,"
            " features.4, weights/features.0, weights/features.4, weights/head",
        ),
        (
            MIXTURE.replace('"weights/features.*" = {low = 0.1, high = 0.9}\n', "").replace(
                '"weights/head" = 0.25', ""
            ),
            "toy.toml: granularity 'channel+weight' prunes channels, and weights of what they leave; space.ratio names "
            "no weights: add \"weights/*\" = {low = 0.0, high = 0.95}, or take granularity 'channel'",
        ),
        (
            MIXTURE.replace('\n"features.*" = {low = 0.1, high = 0.8}', ""),
            "toy.toml: granularity 'channel+weight' prunes channels, and weights of what they leave; space.ratio names "
            "no channels: add \"*\" = {low = 0.0, high = 0.9}, or take granularity 'weight'",
        ),
    ],
)
def test_a_space_that_does_not_fit_its_model(text: str, says: str) -> None:
    assert fault(lambda: check_with_data(Config(budget=1), space(text), Conv(), images().train)) == says


def test_the_flags_of_prune(
    command: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ("--model", "toys:Conv", "--data", "toys:images", "--force")
    both = ("--granularity", "channel+weight", "-l", "features.4", "-p", "0.5", "-l", "weights/features.4", "-p", "0.9")
    assert command("prune", *both, *flags, "--multiple-of", "4", "--out", "a", "--json") == 0
    saved = checkpoint.read(Path("a", "pruned.safetensors"))
    kept = {label: int(mask.sum()) for label, mask in saved.masks.items()}
    assert kept == {"features.0": 36, "features.4": 144 - round(0.9 * 144), "head": 64}
    assert Path("a", "pruned.conf").read_text().startswith("features.4,weights/features.4\n0.5,0.9\n")
    assert command("prune", "--conf", Path("a", "pruned.conf"), "--replay", "--out", "b", "--json", *flags[:4]) == 0
    assert command("prune", "--conf", Path("a", "pruned.conf"), *flags, "--out", "c") == 0
    again = checkpoint.read(Path("c", "pruned.safetensors"))
    assert {label: int(mask.sum()) for label, mask in again.masks.items()} == kept
    Path("old.conf").write_text("features.4,weights/features.4\n0.5,0.9\n")
    capsys.readouterr()
    assert command("prune", "--conf", "old.conf", *flags) == 2
    assert "weights/features.4 are weights that channels leave; add --granularity channel+" in capsys.readouterr().err
    assert command("prune", "--granularity", "channel", "-l", "weights/head", "-p", "0.5", *flags) == 2
    assert "known: features.0, features.4; single weights have ratios with granularity" in capsys.readouterr().err
    assert command("prune", "--granularity", "channel+2:4", "-l", "weights/tail", "-p", "0.5", *flags) == 2
    assert "known: features.0, features.4, weights/features.0, weights/features.4" in capsys.readouterr().err


def test_the_flags_of_sensitivity(command: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ("--model", "toys:Conv", "--data", "toys:images", "--granularity", "channel+weight", "--force", "-p", "0.5")
    assert command("sensitivity", *flags) == 0
    table = pd.read_csv(Path("sensitivity", "sensitivity.csv"))
    assert table[["layer", "kept", "total"]].to_dict("split")["data"] == [
        ["features.0", 162, 324], ["features.4", 208, 416],
        ["weights/features.0", 18, 36], ["weights/features.4", 144, 288], ["weights/head", 64, 128],
    ]  # fmt: skip


def test_weights_alone_are_measured_as_of_a_network_whose_channels_stay() -> None:
    torch.manual_seed(0)
    task, device = task_of(Conv(), "toys:Conv"), torch.device("cpu")
    mixed = SensitivityJob("weights/features.4", "mag", 0.5, granularity="channel+weight")
    (found,) = measure_without_retraining(task, [mixed], device)
    (plain,) = measure_without_retraining(task, [SensitivityJob("features.4", "mag", 0.5)], device)
    assert (found.kept, found.total, found.val_metric) == (plain.kept, plain.total, plain.val_metric)
    assert found.val_loss == pytest.approx(plain.val_loss, rel=1e-5)
    whole = measure_retrained(task, mixed, device)
    assert (whole.kept, whole.total) == (found.kept, found.total)
    counts = count_removable(task.dense_model(device), task.train, "it", "channel+weight")
    assert counts.names == ("features.0", "features.4", *(name.removeprefix("ratio/") for name in WEIGHTS))
    assert counts.first_layer("weights/head") == "head"


def test_a_refit_trains_the_weights_that_are_left() -> None:
    torch.manual_seed(0)
    task, ratios = task_of(Conv(), "toys:Conv"), {"features.4": 0.5, "weights/features.0": 0.5, "weights/head": 0.75}
    params = TrialParams(ratios, "mag", training={"granularity": "channel+weight"})
    state = iterative.initial_state(task.dense_model(torch.device("cpu")))
    next(iterative.prune(state, params.to_plan(), task.train, task.validation, seed=0))
    before = {label: weight.detach().clone() for label, weight in masks.prunable(state.model).items()}
    refit(task, state, refit_plan(params, steps=5, lr=0.05), seed=1)
    for label, weight in masks.prunable(state.model).items():
        assert torch.equal(weight != 0, state.masks[label] != 0)
        assert not torch.equal(weight, before[label])


def test_a_conf_is_applied_from_python(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_text('features.4,weights/head\n0.5,0.75\nmag,mag\n# granularity = "channel+weight"\n')
    pruned = tune_prune.prune(Conv(), path, images().train)
    assert int(masks.prunable(pruned)["head"].count_nonzero()) == 16
