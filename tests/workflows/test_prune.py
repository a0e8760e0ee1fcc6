import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from toys import fault, images, mlp

from tune_prune.cli import prune as prune_command
from tune_prune.pruning import checkpoint, masks
from tune_prune.pruning.plan import Plan
from tune_prune.results import conf
from tune_prune.results.conf import Conf
from tune_prune.tasks.metrics import evaluate
from tune_prune.workflows import prune, prune_target
from tune_prune.workflows.prune_target import PruneOptions

CPU = torch.device("cpu")
TOY = ("--model", "toys:mlp", "--data", "toys:images")
UNTRAINED = (*TOY, "--force")


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(path: Path) -> tuple[float, float, float]:
    """Of a checkpoint of the toy: its compression, and its validation and test error."""
    model, mask = checkpoint.restore(checkpoint.read(path), str(path))
    data = images()
    return masks.compression(mask), evaluate(model, data.validation).metric, evaluate(model, data.load_test()).metric


# torch7-pruner's numbers


def test_one_layer_of_lenet5(command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("prune", "-l", 8, "-p", 0.7) == 0
    shown = capsys.readouterr().out
    assert "layer 8: retained 86,400 of 288,000 (30.00 %)" in shown
    assert "total compression 0.64312374389894 " in shown
    assert 288_000 - 86_400 == 201_600
    assert checkpoint.read(Path("pruned/pruned.safetensors")).masks["8"].logical_not().sum() == 201_600


def test_lenet5s_own_conf(command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("prune", "--json", "--out", "mine") == 0
    pruned = json.loads(capsys.readouterr().out)
    assert f"{pruned['compression']:.14f}" == "0.92905541200115"
    assert pruned["layers"]["12"] == {"total": 840, "kept": 420}
    assert command("test", Path("mine", pruned["checkpoint"]), "--json") == 0
    tested = json.loads(capsys.readouterr().out)
    assert tested == {key: pruned[key] for key in ("compression", "test_error", "layers", "coverage")}
    assert conf.read(Path("mine", pruned["conf"])).ratios == conf.read(prune_target.model_conf("lenet5")).ratios


# Toys


def test_the_pruned_lenet5_that_comes_along(command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("test") == 0
    shown = capsys.readouterr().out
    assert "total compression 0.92905541200115 (14.1x)" in shown
    assert float(shown.split("test error ")[1].split()[0]) <= 0.94  # torch7-pruner's


def test_the_files_agree_with_what_is_printed(command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("prune", *UNTRAINED, "-l", 2, "-p", 0.9, "-l", 4, "-p", 0.5, "--json", "--pruner", "taylor1") == 0
    shown = json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in Path("pruned").iterdir()) == [
        *("points.csv", "points.png", "pruned.conf", "pruned.safetensors", "summary.json"),
    ]
    assert json.loads(Path("pruned/summary.json").read_text()) == shown
    assert shown["layers"] == {"2": {"total": 1024, "kept": 102}, "4": {"total": 64, "kept": 32}}
    measured = shown["compression"], shown["val_error"], shown["test_error"]
    assert loaded(Path("pruned") / shown["checkpoint"]) == measured
    written = conf.read(Path("pruned") / shown["conf"])
    assert (written.ratios, written.pruners) == ({"2": 0.9, "4": 0.5}, {"2": "taylor1", "4": "taylor1"})
    assert (written.notes["compression"], written.notes["val_error"], written.notes["test_error"]) == measured
    last = pd.read_csv("pruned/points.csv").iloc[-1]
    assert (last["compression"], last["val_error"]) == measured[:2]
    # what it wrote is what it reads
    assert command("prune", *UNTRAINED, "--conf", "pruned/pruned.conf", "--out", "again", "--json") == 0
    assert json.loads(capsys.readouterr().out) == shown


def test_rounds_with_retraining(command, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("prune", *UNTRAINED, "-l", 2, "-p", 0.8, "--iterations", 4, "--lr", 0.1)
    assert command(*arguments, "--retrain", "--epochs", 30) == 0
    shown = capsys.readouterr().out
    points = pd.read_csv("pruned/points.csv")
    assert list(points["round"]) == [1, 2, 3, 4]
    removed = [round(0.8 * share * 1024) for share in (0.25, 0.5, 0.75, 1)]
    assert list(points["compression"]) == [count / 1088 for count in removed]
    for number, error in zip(points["round"], points["val_error"], strict=True):
        assert f"round {number}/4: " in shown
        assert f"validation error {error:.2f} %" in shown
    compression, error, test_error = loaded(Path("pruned/pruned.safetensors"))
    assert (compression, error) == (points["compression"].iloc[-1], points["val_error"].iloc[-1])
    assert f"test error {test_error:.2f} %" in shown
    assert command(*arguments, "--out", "untrained", "--json") == 0
    assert error < json.loads(capsys.readouterr().out)["val_error"] - 20


def test_a_tradeoff_takes_back_and_goes_on(command, capsys: pytest.CaptureFixture[str]) -> None:
    command("train", *TOY, "--epochs", 30, "--out", "dense.safetensors")
    arguments = (*TOY, "--checkpoint", "dense.safetensors", "-l", 2, "-p", 0.999, "-l", 4, "-p", 0.3)
    capsys.readouterr()
    assert command("prune", "--force", *arguments, "--acc-tradeoff", 5) == 0
    shown = capsys.readouterr().out
    assert "round 1/1, layer 2:" in shown
    assert "taken back" in shown
    points = pd.read_csv("pruned/points.csv", dtype={"layer": str})
    assert list(points["layer"]) == ["2", "4"]
    assert list(points["reverted"]) == [True, False]
    assert conf.read(Path("pruned/pruned.conf")).ratios == {"2": 0.0, "4": 0.3}
    compression, error, _ = loaded(Path("pruned/pruned.safetensors"))
    assert (compression, error) == (round(0.3 * 64) / 1088, points["val_error"].iloc[-1])
    dense = checkpoint.read(Path("dense.safetensors")).weights["1.weight"]
    assert torch.equal(checkpoint.read(Path("pruned/pruned.safetensors")).weights["1.weight"], dense)


def test_a_layer_that_would_lose_all(command, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("prune", *UNTRAINED, "-l", 4, "-p", 0.999)
    assert command(*arguments) == 2
    said = "--layer: ratio 0.999 leaves none of the 64 weights of layer 4; lower it, or add --allow-empty"
    assert said in capsys.readouterr().err
    assert not Path("pruned").exists()
    assert command(*arguments, "--allow-empty", "--json") == 0
    assert json.loads(capsys.readouterr().out)["layers"]["4"] == {"total": 64, "kept": 0}


def test_reload_starts_every_round_from_the_unpruned_model(command) -> None:
    arguments = ("prune", *UNTRAINED, "-l", 2, "--retrain", "--json")
    assert command(*arguments, "-p", 0.8, "--iterations", 2, "--reload", "--out", "a") == 0
    assert command(*arguments, "-p", 0.8, "--iterations", 2, "--out", "b") == 0
    a, b = (pd.read_csv(f"{name}/points.csv")["val_loss"] for name in "ab")
    assert a[0] == b[0]
    assert a[1] != b[1]
    assert command("prune", *UNTRAINED, "-l", 2, "-p", 0.5, "--reload", "--acc-tradeoff", 1) == 2


def test_the_seed_decides(command) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        command("prune", *UNTRAINED, "-l", 2, "-p", 0.8, "--retrain", "--seed", seed, "--out", name)
    a, b, c = (checkpoint.read(Path(name, "pruned.safetensors")).weights["1.weight"] for name in "abc")
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_going_on_from_a_checkpoint(command, capsys: pytest.CaptureFixture[str]) -> None:
    command("prune", *UNTRAINED, "-l", 2, "-p", 0.5, "--out", "a", "--json")
    command("prune", *UNTRAINED, "-l", 4, "-p", 0.5, "--checkpoint", "a/pruned.safetensors", "--out", "b", "--json")
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert second["layers"] == {"2": first["layers"]["2"], "4": {"total": 64, "kept": 32}}
    assert loaded(Path("b/pruned.safetensors"))[0] == second["compression"] == (512 + 32) / 1088


def test_a_checkpoint_of_another_model(command, capsys: pytest.CaptureFixture[str]) -> None:
    command("prune", *UNTRAINED, "-l", 2, "-p", 0.5)
    assert command("prune", "-l", 8, "-p", 0.5, "--checkpoint", "pruned/pruned.safetensors", "--out", "b") == 2
    assert "holds model 'toys:mlp', not 'lenet5'; name it with --model" in capsys.readouterr().err


def test_files_that_would_be_lost(command, capsys: pytest.CaptureFixture[str]) -> None:
    command("prune", *UNTRAINED, "-l", 2, "-p", 0.5)
    files = {path: path.read_bytes() for path in Path("pruned").iterdir()}
    capsys.readouterr()
    assert command("prune", *UNTRAINED, "-l", 4, "-p", 0.5, "--checkpoint", "pruned/pruned.safetensors") == 2
    assert capsys.readouterr().err == (
        "tune-prune: --checkpoint pruned/pruned.safetensors: would be replaced; name another folder with --out\n"
    )
    Path("pruned/run.json").write_text("{}")
    assert command("prune", *UNTRAINED, "-l", 4, "-p", 0.5) == 2
    assert "pruned: a search's run directory, whose files would be replaced" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in files} == files


def test_training_that_diverges(command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("prune", *UNTRAINED, "-l", 2, "-p", 0.5, "--retrain", "--lr", 1e30, "--epochs", 9) == 1
    err = capsys.readouterr().err
    assert "DivergedError: the training loss became" in err
    assert err.count("\n") == 1
    assert not Path("pruned").exists()


# Layers as one, and several weights as one


@pytest.mark.parametrize("granularity", ["weight", "filter", "2:4"])
def test_the_whole_network_as_one(command, granularity: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--mode", "global", "-p", 0.6, "--granularity", granularity, "--iterations", 2)
    assert command("prune", *UNTRAINED, *flags, "--json", "--out", "mine") == 0
    pruned = json.loads(capsys.readouterr().out)
    kept = {label: layer["kept"] for label, layer in pruned["layers"].items()}
    exact = 1088 - round(0.6 * 1088)
    assert sum(kept.values()) == exact if granularity != "filter" else abs(sum(kept.values()) - exact) <= 32
    assert kept["2"] / 1024 != kept["4"] / 64  # the scores have decided
    assert command("prune", *UNTRAINED, "--conf", "mine/pruned.conf", "--replay", "--json") == 0
    assert json.loads(capsys.readouterr().out)["agrees"]


@pytest.mark.parametrize("ratio", [0.97, 0.99, 0.998])
def test_the_whole_network_as_one_keeps_a_weight_of_each_layer(command, ratio: float, capsys) -> None:
    assert command("prune", *UNTRAINED, "--mode", "global", "-p", ratio, "--json") == 0
    pruned = json.loads(capsys.readouterr().out)
    kept = {label: layer["kept"] for label, layer in pruned["layers"].items()}
    assert min(kept.values()) > 0
    assert sum(kept.values()) == 1088 - round(ratio * 1088)
    assert command("prune", *UNTRAINED, "--conf", "pruned/pruned.conf", "--replay") == 0


def test_the_whole_network_as_one_may_be_allowed_to_lose_a_layer(command, capsys) -> None:
    assert command("prune", *UNTRAINED, "--mode", "global", "-p", 0.99, "--allow-empty", "--json") == 0
    assert json.loads(capsys.readouterr().out)["layers"]["2"]["kept"] == 0
    assert conf.read(Path("pruned/pruned.conf")).ratios["2"] == 1023.75 / 1024  # below 1, as every ratio is
    assert command("prune", *UNTRAINED, "--conf", "pruned/pruned.conf", "--replay") == 0


FAULTS = [
    (("-l", 2, "-p", 0.5, "--mode", "net"), "--mode must be one of layer, global, got net"),
    (("-l", 2, "-p", 0.5, "--granularity", "row"), "unknown granularity 'row'; known: weight, filter, neuron, 2:4"),
    (("-l", 2, "-p", 0.5, "-l", 4, "-p", 0.6, "--mode", "global"), "--layer: --mode global takes one ratio for all"),
    (("-p", 0.5, "--mode", "global", "--acc-tradeoff", 1), "--acc-tradeoff prunes layer by layer; leave out --mode"),
    (
        ("-p", 0.999, "--mode", "global"),
        "--ratio: ratio 0.999 leaves 1 of the 1,088 weights of 2 layers; lower it, or add",
    ),
    (("-p", 1.5, "--mode", "global"), "--ratio must be in [0, 1), got 1.5 for all layers"),
]


@pytest.mark.parametrize(("flags", "said"), FAULTS)
def test_modes_that_do_not_go(command, flags: tuple, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("prune", *UNTRAINED, *flags) == 2
    assert said in capsys.readouterr().err
    assert not Path("pruned").exists()


# Pieces


@pytest.mark.parametrize(("epochs", "steps"), [(0.0, 0), (0.5, 5), (2.0, 20), (1e-6, 1)])
def test_plans(epochs: float, steps: int) -> None:
    options = PruneOptions(
        force=True, iterations=3, epochs=epochs, pruner="random", schedule="cubic", lr=0.2, distill=0.5
    )
    plan = prune.make_plan(Conf({"2": 0.5}), options, 10)
    assert (plan.ratios, plan.pruners) == ({"2": 0.5}, {"2": "random"})
    assert (plan.rounds, plan.schedule, plan.lr, plan.distill) == (3, "cubic", 0.2, 0.5)
    assert (plan.steps, plan.final_steps) == (steps, steps)
    assert prune.make_plan(Conf({"2": 0.5}, {"2": "mag"}), options, 10).pruners == {"2": "mag"}


def test_the_dense_model_teaches() -> None:
    data, found = images(), []
    for distill in (0.0, 1.0):
        options = PruneOptions(force=True, epochs=100, lr=0.1, distill=distill)
        _, _, steps = prune.prune("toys:mlp", None, data, Conf({"2": 0.5}), options, CPU, "x")
        found.append([replace(step.point, seconds=0) for step in steps])
    untrained = evaluate(mlp(), data.validation).metric
    assert found[0][0].metric < untrained - 20  # an untrained teacher teaches nothing
    assert found[1][0].metric > untrained - 20


def test_a_checkpoint_that_names_code_must_be_trusted(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint.write(path, "toys:mlp", mlp(), {})
    said = f"{path}: its model is code, 'toys:mlp'; if you trust it, add --model toys:mlp"
    assert fault(lambda: checkpoint.check_trusted(path, None)) == said
    checkpoint.check_trusted(path, "toys:mlp")
    other = f"{path}: holds model 'toys:mlp', not 'lenet5'; leave out --model, or name it as the file does"
    assert fault(lambda: checkpoint.check_trusted(path, "lenet5")) == other
    checkpoint.check_trusted(prune.PRUNED_LENET5, None)


def test_what_compression_does_not_count_is_said(command, capsys: pytest.CaptureFixture[str]) -> None:
    model = ("--model", "toys:Mixed", "--data", "toys:images")
    said = "warning: compression counts 64 of the model's 1,152 weights (5.556 %)"
    assert command("prune", *model, "--force", "-l", "head", "-p", 0.5) == 0
    assert said in capsys.readouterr().out
    assert command("test", "pruned/pruned.safetensors", *model) == 0
    assert said in capsys.readouterr().out
    summary = json.loads(Path("pruned/summary.json").read_text())
    assert command("test", "pruned/pruned.safetensors", *model, "--json") == 0
    assert json.loads(capsys.readouterr().out)["coverage"] == summary["coverage"]
    assert summary["compression"] == 0.5
    assert summary["coverage"]["left_out"][0] == {"module": "mixer", "type": "Mixer", "weights": 1024}


# Samples of the pruners


def test_the_samples_of_a_pruner_are_given_or_noted(command, capsys: pytest.CaptureFixture[str]) -> None:
    assert Plan.sample == prune_command.SAMPLE
    flags = (*UNTRAINED, "-l", "2", "-p", "0.5", "--pruner", "taylor1")
    for out, more in (("few", ("--sample", "3")), ("all", ())):
        assert command("prune", *flags, *more, "--out", out) == 0
    assert command("prune", *UNTRAINED, "--conf", "few/pruned.conf", "--out", "again") == 0
    few, every, again = (checkpoint.read(Path(out, "pruned.safetensors")).masks["2"] for out in ("few", "all", "again"))
    assert not torch.equal(few, every)
    assert torch.equal(few, again)
    capsys.readouterr()
    assert command("prune", "--conf", "few/pruned.conf", "--force") == 2
    assert "few/pruned.conf: was made with --model toys:mlp, not lenet5; give --model" in capsys.readouterr().err
