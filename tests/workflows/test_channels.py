"""Channels from the space or the command line to the files: what is searched, what is refused, what is measured."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from searches import SPACE, Trials, points, searched
from toys import Conv, Deciding, fault, images, mlp

import tune_prune
from tune_prune.common.errors import UserError
from tune_prune.export.compaction import compact
from tune_prune.export.exporter import export
from tune_prune.hpo import space_reader
from tune_prune.hpo.budget import Budget
from tune_prune.hpo.config import Config
from tune_prune.hpo.phases import Refinement
from tune_prune.hpo.search_settings import SearchSettings
from tune_prune.hpo.space import Space
from tune_prune.pruning import checkpoint, masks
from tune_prune.pruning.sensitivity import SensitivityJob, measure_retrained, measure_without_retraining
from tune_prune.results import conf, records
from tune_prune.results.constraints import Constraints
from tune_prune.workflows.space_checks import check_with_data, count_removable

CHANNELS = (
    SPACE.replace("toys:mlp", "toys:Conv")
    .replace("[space]", '[space]\ngranularity = "channel"\nmultiple_of = 2')
    .replace('"2" = {low = 0.1, high = 0.95}\n"4" = {low = 0.0, high = 0.5}', '"*" = {low = 0.1, high = 0.8}')
)


HEADS = CHANNELS.replace('"channel"\nmultiple_of = 2', '"head"').replace("toys:Conv", "toys:Attending")

BLOCKS = CHANNELS.replace('"channel"\nmultiple_of = 2', '"block+channel"').replace("toys:Conv", "toys:Blocks")


def space(text: str) -> Space:
    return space_reader.parse(text, "toy", "toy.toml")


def test_a_search_finds_smaller_dense_networks(trials: Trials, tmp_path: Path) -> None:
    path = tmp_path / "toy.toml"
    path.write_text(CHANNELS.replace("final_steps = 10", "final_steps = 60"))  # enough training to measure layers for
    code, run_dir = searched(path, acc_tradeoff=60.0)
    assert code == 0
    table = points(run_dir)
    assert (table["ratio/head"] == 0).all()
    for name, count in (("features.0", 4), ("features.4", 8)):
        left = count * (1 - table[f"ratio/{name}"])
        assert left.round().isin(range(2, count + 1, 2)).all()  # the ratio that holds, not the trial's
    front = json.loads((run_dir / "summary.json").read_text())["front"]
    model, found = checkpoint.restore(checkpoint.read(run_dir / front[-1]["checkpoint"]), "it")
    small = compact(model.eval(), torch.rand(2, 1, 8, 8))
    left = sum(weight.numel() for weight in masks.prunable(small).values())
    assert left == sum(kept for kept, _ in masks.kept_counts(found).values())
    assert all(len(weight) % 2 == 0 for weight in list(masks.prunable(small).values())[:2])
    levels = [point for point in table.itertuples() if point.round == 2]
    assert len({round(point.compression, 3) for point in levels}) > 2


@pytest.mark.parametrize("granularity", ["channel", "channel+weight"])
def test_trials_end_at_the_compression_that_was_planned(trials: Trials, tmp_path: Path, granularity: str) -> None:
    path, text = tmp_path / "toy.toml", CHANNELS.replace("[space]", "[space]\nmin_width = 3")
    text = text.replace('"channel"', f'"{granularity}"').replace("low = 0.1, high = 0.8", "low = 0.0, high = 0.8")
    if granularity != "channel":  # at ratios that empty no channel, each of which keeps a weight
        text = text.replace('"*" =', '"weights/*" = {low = 0.0, high = 0.6}\n"*" =')
    path.write_text(text)
    _, run_dir = searched(path, acc_tradeoff=100.0)
    counts = count_removable(Conv(), images().train, "it", granularity)
    settings = SearchSettings(Budget(8), 0.0, Constraints(0.0), Refinement(), channels=counts)
    ended = [record for record in records.read_all(run_dir) if record.state == "complete"]
    assert len({record.last.compression for record in ended}) > 1
    for record in ended:
        assert settings.compression(record.params) == pytest.approx(record.last.compression)


def test_a_least_width_holds_in_the_records_and_in_a_replay(
    trials: Trials, tmp_path: Path, command: Callable[..., int]
) -> None:
    path = tmp_path / "toy.toml"
    path.write_text(CHANNELS.replace("multiple_of = 2", "min_width = 3").replace("low = 0.1", "low = 0.7"))
    _, run_dir = searched(path, acc_tradeoff=60.0, budget=3)
    last = points(run_dir).query("round == 2")
    assert set(last["ratio/features.0"]) == {0.25}  # of 4 channels, where 0.7 and more are asked for
    assert last["ratio/features.4"].between(0.5, 0.625).all()
    conf = run_dir / "best.conf"
    assert "0.25" in conf.read_text().splitlines()[1]
    assert command("prune", "--conf", conf, "--replay", "--out", tmp_path / "replay", "--json") == 0


def test_a_smaller_network_is_searched_for_single_weights(
    trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("toy.toml").absolute()
    path.write_text(CHANNELS)
    _, run_dir = searched(path, acc_tradeoff=60.0, budget=3)
    front = json.loads((run_dir / "summary.json").read_text())["front"]
    export(run_dir / front[-1]["checkpoint"], "dense", images(), Path("small.dense.safetensors"), print)
    small = tune_prune.load("small.dense.safetensors")
    total = sum(weight.numel() for weight in masks.prunable(small).values())
    assert total == round((1 - front[-1]["compression"]) * (36 + 288 + 128))
    assert all(parameter.requires_grad for parameter in small.parameters())
    text = SPACE.replace("toys:mlp", "tune_prune:load(path='small.dense.safetensors')")
    path.write_text(re.sub(r'"2" = .*\n"4" = .*', '"*" = {low = 0.2, high = 0.8}', text))
    code, again = searched(path, "again", acc_tradeoff=60.0, budget=3)
    assert code == 0
    assert sum(json.loads((again / "summary.json").read_text())["layers"].values()) == total


def test_a_frozen_model_is_refused() -> None:
    model, train = mlp().requires_grad_(False), images().train
    said = fault(lambda: check_with_data(Config(budget=1), space(SPACE), model, train))
    assert said.startswith("toy.toml: every parameter of toys:mlp is frozen, and nothing can be trained; set ")


def test_a_search_removes_heads_alone(trials: Trials, tmp_path: Path) -> None:
    path = tmp_path / "toy.toml"
    path.write_text(HEADS)
    code, run_dir = searched(path, acc_tradeoff=60.0, budget=3)
    assert code == 0
    table = points(run_dir)
    others = [name for name in table if name.startswith("ratio/") and name != "ratio/attention.in_proj"]
    assert len(others) == 3
    assert (table[others] == 0).all(axis=None)
    front = json.loads((run_dir / "summary.json").read_text())["front"]
    model, _ = checkpoint.restore(checkpoint.read(run_dir / front[-1]["checkpoint"]), "it")
    small = compact(model.eval(), torch.rand(2, 1, 8, 8))
    heads = small.attention.in_proj_weight.shape[0] // 3 // 2  # of two queries each
    assert 1 <= heads < 4
    assert front[-1]["compression"] == (4 - heads) * 4 * 2 * 8 / (2 * 8 * 8 + 4 * 8 * 8 + 8 * 4 - 8 * 8)
    assert small.first.weight.shape == (8, 8)


@pytest.mark.parametrize("granularity", ["block", "block+channel"])
def test_a_search_removes_blocks_and_repeats_itself(
    trials: Trials, tmp_path: Path, granularity: str, command: Callable[..., int]
) -> None:
    path = tmp_path / "toy.toml"
    path.write_text(BLOCKS.replace("block+channel", granularity))
    code, run_dir = searched(path, acc_tradeoff=60.0, budget=5)
    assert code == 0
    table, columns = points(run_dir), {"ratio/blocks.0", "ratio/last"}
    assert columns <= set(table)
    assert (table[sorted(columns)] > 0).any(axis=None)
    assert bool(table["ratio/stem"].any()) == (granularity == "block+channel")
    _, again = searched(path, "again", acc_tradeoff=60.0, budget=5)
    assert points(again).equals(table)
    front = json.loads((run_dir / "summary.json").read_text())["front"]
    model, found = checkpoint.restore(checkpoint.read(run_dir / front[-1]["checkpoint"]), "it")
    small = compact(model.eval(), torch.rand(2, 1, 8, 8))
    left = sum(weight.numel() for weight in masks.prunable(small).values())
    assert left == sum(kept for kept, _ in masks.kept_counts(found).values())
    assert command("prune", "--conf", run_dir / "best.conf", "--replay", "--out", tmp_path / "replay", "--json") == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (CHANNELS.replace('"channel"', '["channel", "weight"]'), "'channel' cannot be one of several; search it alone"),
        (CHANNELS.replace("multiple_of = 2", 'mode = "global"'), "has a ratio for each group; leave out mode"),
        (CHANNELS.replace('"channel"', '"weight"'), "space.multiple_of is of channels; set granularity = 'channel'"),
        (CHANNELS.replace('"channel"', '"block"'), "space.multiple_of is of channels; set granularity = 'channel'"),
        (SPACE.replace("[space]", "[space]\nmin_width = 2"), "space.min_width is of channels; set granularity = 'ch"),
    ],
)
def test_a_space_that_cannot_be(text: str, says: str) -> None:
    assert says in fault(lambda: space(text))


@pytest.mark.parametrize(
    ("text", "model", "says"),
    [
        (CHANNELS.replace('"*"', '"head"'), Conv(), "space.ratio.'head' matches no layer"),
        (
            CHANNELS.replace("multiple_of = 2", "multiple_of = 5"),
            Conv(),
            "5 is more than the 4 channels of group features.0",
        ),
        (
            CHANNELS.replace("multiple_of = 2", "min_width = 5"),
            Conv(),
            "space.min_width: 5 is more than the 4 channels of group features.0; lower it",
        ),
        (
            BLOCKS.replace("block+channel", "block"),
            Conv(),
            "granularity 'block': no module of this model returns its input where its weights are zero",
        ),
        (HEADS, Conv(), "granularity 'head': no heads of this model can be removed; prune it by"),
        (CHANNELS, Deciding(), "the model branches on data, in inner"),
        (
            CHANNELS,
            torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4)),
            "no channels of this model can be removed",
        ),
    ],
)
def test_a_space_that_does_not_fit_its_model(text: str, model: torch.nn.Module, says: str) -> None:
    assert says in fault(lambda: check_with_data(Config(budget=1), space(text), model, images().train))


def test_exclude_leaves_a_group_whole(trials: Trials, tmp_path: Path) -> None:
    path = tmp_path / "toy.toml"
    path.write_text(CHANNELS.replace("[space]", '[space]\nexclude = ["features.4"]').replace("multiple_of = 2", ""))
    _, run_dir = searched(path, acc_tradeoff=60.0, budget=3)
    assert points(run_dir)["ratio/features.4"].eq(0).all()
    assert points(run_dir)["ratio/features.0"].gt(0).all()


def test_the_flags_of_prune(command: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ("--model", "toys:Conv", "--data", "toys:images", "--granularity", "channel", "--force")
    assert command("prune", "-l", "features.4", "-p", "0.5", *flags, "--multiple-of", "4", "--out", "a", "--json") == 0
    assert command("prune", "-l", "head", "-p", "0.5", *flags) == 2
    assert command("prune", "-l", "features.0", "-p", "0.9", *flags) == 2
    assert command("prune", "-l", "features.0", "-p", "0.5", "--multiple-of", "5", *flags) == 2
    assert (
        command("prune", "-l", "2", "-p", "0.5", "--multiple-of", "2", "--model", "toys:mlp", "--data", "toys:images")
        == 2
    )
    assert command("prune", "-l", "features.0", "-p", "0.5", "--min-width", "5", *flags) == 2
    assert (
        command("prune", "-l", "2", "-p", "0.5", "--min-width", "2", "--model", "toys:mlp", "--data", "toys:images")
        == 2
    )
    saved = checkpoint.read(Path("a", "pruned.safetensors"))
    kept = {label: int(mask.sum()) for label, mask in saved.masks.items()}
    assert kept == {"features.0": 36, "features.4": 144, "head": 64}
    biases = saved.weights["features.4.bias"]
    assert int((biases == 0).sum()) == 4


def test_prune_removes_what_a_conf_says(
    trials: Trials, tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "toy.toml"
    path.write_text(CHANNELS.replace("low = 0.1", "low = 0.5"))
    _, run_dir = searched(path, acc_tradeoff=60.0, budget=2)
    found = conf.read(run_dir / "best.conf")
    assert (found.notes["granularity"], found.notes["multiple_of"]) == ("channel", 2)
    flags = ("prune", "--model", "toys:Conv", "--data", "toys:images", "--force", "--conf", run_dir / "best.conf")
    flags = (*flags, "--out", tmp_path / "pruned")
    assert command(*flags) == 0
    assert len(emptied := empty_channels(tmp_path / "pruned" / "pruned.safetensors")) == len(found.ratios)
    assert emptied == {
        label: round(ratio * {"features.0": 4, "features.4": 8}[label]) for label, ratio in found.ratios.items()
    }
    assert conf.read(tmp_path / "pruned" / "pruned.conf").ratios == found.ratios
    assert command(*flags, "--granularity", "channel", "--multiple-of", 2) == 0
    capsys.readouterr()
    for flag, given, noted in (("--granularity", "weight", "channel"), ("--multiple-of", 4, 2)):
        assert command(*flags, flag, given) == 2
        said = f"best.conf: its ratios are for {flag} {noted}, not {given}; leave {flag} out\n"
        assert capsys.readouterr().err.endswith(said)


def empty_channels(path: Path) -> dict[str, int]:
    """How many whole outputs each layer of a checkpoint has lost, where it has lost some."""
    found = {label: int((~mask.flatten(1).any(1)).sum()) for label, mask in checkpoint.read(path).masks.items()}
    return {label: count for label, count in found.items() if count}


@pytest.mark.parametrize(("granularity", "empty"), [("filter", 8), ("weight", 0)])
def test_a_search_always_notes_what_its_ratios_count(
    trials: Trials, tmp_path: Path, granularity: str, empty: int, command: Callable[..., int]
) -> None:
    path = tmp_path / "toy.toml"
    named = f'[space]\ngranularity = "{granularity}"' if granularity != "weight" else "[space]"
    path.write_text(re.sub('"2" = .*', '"2" = 0.5', SPACE.replace("[space]", named)))
    _, run_dir = searched(path, acc_tradeoff=60.0, budget=2)
    assert conf.read(run_dir / "best.conf").notes["granularity"] == granularity
    flags = ("--model", "toys:mlp", "--data", "toys:images", "--force", "--out", tmp_path / "pruned")
    assert command("prune", "--conf", run_dir / "best.conf", *flags) == 0
    assert empty_channels(tmp_path / "pruned" / "pruned.safetensors").get("2", 0) == empty
    assert command("prune", "--conf", run_dir / "best.conf", *flags, "--granularity", "2:4") == 2


def test_a_conf_without_notes_is_as_the_flags_say(command: Callable[..., int], tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_text("2\n0.5\nmag\n")
    flags = ("--model", "toys:mlp", "--data", "toys:images", "--force", "--out", tmp_path / "pruned", "--conf", path)
    for granularity, empty in (("weight", 0), ("filter", 8)):
        assert command("prune", *flags, "--granularity", granularity) == 0
        assert empty_channels(tmp_path / "pruned" / "pruned.safetensors").get("2", 0) == empty


def test_the_flags_of_sensitivity(command: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ("--model", "toys:Conv", "--data", "toys:images", "--granularity", "channel", "--force", "-p", "0.5")
    assert command("sensitivity", *flags, "--pruner", "taylor1", "-l", "head") == 2
    assert command("sensitivity", *flags, "--pruner", "taylor1") == 0
    assert command("sensitivity", *flags, "-l", "features.4") == 0
    table = pd.read_csv(Path("sensitivity", "sensitivity.csv"))
    found = table[["layer", "pruner", "granularity", "kept", "total"]].to_dict("split")["data"]
    assert found == [
        ["features.0", "taylor1", "channel", (36 + 288) // 2, 36 + 288],
        ["features.4", "taylor1", "channel", (288 + 128) // 2, 288 + 128],
        ["features.4", "mag", "channel", (288 + 128) // 2, 288 + 128],
    ]


def test_a_conf_is_applied_from_python(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_text('2\n0.5\nmag\n# granularity = "channel"\n')
    pruned = tune_prune.prune(mlp(), path, images().train)
    assert [int(weight.flatten(1).any(1).sum()) for weight in masks.prunable(pruned).values()] == [8, 4]
    with pytest.raises(UserError, match="channels are found by running the model; give train"):
        tune_prune.prune(mlp(), path)


def test_a_mode_is_applied_from_python(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_text('2,4\n0.9,0.9\nmag,mag\n# mode = "global"\n')
    kept = [int(weight.count_nonzero()) for weight in masks.prunable(tune_prune.prune(mlp(), path)).values()]
    assert sum(kept) == round(0.1 * (1024 + 64))
    assert kept[1] != round(0.1 * 64)
    path.write_text('2,4\n0.9,0.8\nmag,mag\n# mode = "global"\n')
    with pytest.raises(UserError, match=r"a.conf: mode 'global' takes one ratio for all layers"):
        tune_prune.prune(mlp(), path)


def test_a_group_alone_is_measured_as_a_trial_measures_it() -> None:
    from toys import task_of

    torch.manual_seed(0)
    task = task_of(Conv(), "toys:Conv")
    jobs = [SensitivityJob("features.4", "mag", ratio, granularity="channel") for ratio in (0.5, 0.25)]
    alone = list(measure_without_retraining(task, jobs, torch.device("cpu")))
    counts = count_removable(task.dense_model(torch.device("cpu")), task.train, "it", "channel")
    for found, job in zip(alone, jobs, strict=True):
        assert found.total == counts.touched("features.4") == 288 + 128
        assert found.kept == (1 - job.ratio) * found.total
        whole = measure_retrained(task, job, torch.device("cpu"))
        assert (whole.kept, whole.total) == (found.kept, found.total)
        assert found.val_loss == pytest.approx(whole.val_loss, rel=1e-4)
