import json
from pathlib import Path

import pytest
import torch
from searches import SPACE, searched, without_ray
from toys import fault

from tune_prune.pruning import checkpoint
from tune_prune.results import conf
from tune_prune.results.conf import Conf
from tune_prune.workflows.prune import open_model
from tune_prune.workflows.replay import Comparison, replay

CPU = torch.device("cpu")
TOY = ("--model", "toys:mlp", "--data", "toys:images")


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_layers_that_were_taken_back_and_a_start(command, capsys: pytest.CaptureFixture[str]) -> None:
    command("train", *TOY, "--epochs", 30, "--out", "dense.safetensors")
    layers = ("-l", 2, "-p", 0.999, "-l", 4, "-p", 0.3)
    assert command("prune", "--force", *TOY, *layers, "--checkpoint", "dense.safetensors", "--acc-tradeoff", 5) == 0
    assert conf.read(Path("pruned/pruned.conf")).ratios["2"] == 0
    capsys.readouterr()
    assert command("prune", "--conf", "pruned/pruned.conf", "--replay", "--json") == 0
    assert json.loads(capsys.readouterr().out)["agrees"]


@pytest.mark.parametrize(
    "how", [(), ("--iterations", 3, "--retrain", "--epochs", 2, "--schedule", "cubic", "--l1", 1e-4, "--seed", 7)]
)
def test_what_prune_did_comes_out_again(
    command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: tuple[object, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("prune", "--force", *TOY, "-l", 2, "-p", 0.8, *how, "--json") == 0
    pruned = json.loads(capsys.readouterr().out)
    assert command("prune", "--conf", "pruned/pruned.conf", "--replay", "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert again.pop("agrees")
    assert {name: both["replayed"] for name, both in again.items()} == {name: pruned[name] for name in again}


def test_a_difference_is_shown(command, capsys: pytest.CaptureFixture[str]) -> None:
    command("prune", "--force", *TOY, "-l", 2, "-p", 0.8)
    path = Path("pruned/pruned.conf")
    found = conf.read(path)
    conf.write(path, Conf(found.ratios, found.pruners, found.notes | {"val_error": 0.125}))
    capsys.readouterr()
    assert command("prune", "--conf", path, "--replay") == 1
    shown, said = capsys.readouterr()
    assert "val_error: stated 0.125, replayed" in shown
    assert shown.count("<- differs") == 1
    assert said == "tune-prune: pruned/pruned.conf: the replay differs in val_error\n"
    assert command("prune", "--conf", path, "--replay", "--json") == 1
    assert not json.loads(capsys.readouterr().out)["agrees"]


def test_a_conf_that_does_not_say_how_it_was_made(command, capsys: pytest.CaptureFixture[str]) -> None:
    said = fault(lambda: replay(Conf({"2": 0.5}, None, {"model": "lenet5"}), CPU, Path("a.conf")))
    assert said == "a.conf: cannot be replayed, it does not note its data; confs of a search or of prune do"
    notes = {"model": "lenet5", "data": "mnist", "seed": 0}
    assert "its trial or epochs" in fault(lambda: replay(Conf({"2": 0.5}, None, notes), CPU, Path("a.conf")))
    notes |= {"trial": 3}
    said = fault(lambda: replay(Conf({"2": 0.5}, None, notes), CPU, Path("a.conf")))
    assert "does not note its compression or val_error or test_error" in said
    assert "its round" in fault(lambda: replay(Conf({"2": 0.5}, None, notes | {"val_error": 1}), CPU, Path("a.conf")))
    assert command("prune", "--replay") == 2
    assert "--replay without --conf" in capsys.readouterr().err


def test_what_is_not_stated_does_not_differ() -> None:
    assert not Comparison("val_error", None, 0.5).differs
    assert Comparison("val_error", None, 0.5).line() == "val_error: stated nothing, replayed 0.5"
    assert Comparison("val_error", 0.4, 0.5).differs
    assert Comparison("val_error", 0.5, 0.5).line() == "val_error: stated 0.5, replayed 0.5"


# The weights that a conf was made from


def train(command, name: str, seed: int = 0) -> None:
    assert command("train", *TOY, "--epochs", 5, "--seed", seed, "--out", name) == 0


def replays(command, capsys: pytest.CaptureFixture[str], path: str, *flags: object) -> str:
    """Replays a conf, which must agree or be refused; what was said of the latter."""
    capsys.readouterr()
    code = command("prune", "--conf", path, "--replay", "--json", *flags)
    out, err = capsys.readouterr()
    assert (code, json.loads(out)["agrees"] if out else None) in [(0, True), (2, None)]
    assert err.count("\n") == (1 if code else 0)
    return err


def test_weights_that_lie_elsewhere(command, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    train(command, "dense.safetensors")
    train(command, "other.safetensors", seed=1)
    command("prune", "--force", *TOY, "-l", 2, "-p", 0.8, "--checkpoint", "dense.safetensors")
    path = "pruned/pruned.conf"
    assert conf.read(Path(path)).notes["weights"] == f"{tmp_path}/dense.safetensors"
    assert replays(command, capsys, path) == ""
    Path("dense.safetensors").rename("moved.safetensors")
    said = f"{path}: its weights are not there: {tmp_path}/dense.safetensors; give them with --checkpoint FILE"
    assert replays(command, capsys, path) == f"tune-prune: {said}\n"
    assert replays(command, capsys, path, "--checkpoint", "moved.safetensors") == ""
    said = f"tune-prune: {path}: other.safetensors holds other weights than those that it was made from; "
    assert replays(command, capsys, path, "--checkpoint", "other.safetensors").startswith(said)
    Path("other.safetensors").rename("dense.safetensors")
    assert f"{tmp_path}/dense.safetensors holds other weights" in replays(command, capsys, path)


def test_a_folder_that_is_moved_with_its_weights(
    command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(command, "pruned/dense.safetensors")
    command("prune", "--force", *TOY, "-l", 2, "-p", 0.8, "--checkpoint", "pruned/dense.safetensors")
    Path("pruned").rename("sent")
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert replays(command, capsys, "../sent/pruned.conf") == ""


def test_masks_of_a_start_count(command, capsys: pytest.CaptureFixture[str]) -> None:
    command("prune", "--force", *TOY, "-l", 2, "-p", 0.5, "--out", "first")
    command("prune", "--force", *TOY, "-l", 4, "-p", 0.5, "--checkpoint", "first/pruned.safetensors")
    assert replays(command, capsys, "pruned/pruned.conf") == ""
    saved = checkpoint.read(Path("first/pruned.safetensors"))
    model, _ = checkpoint.restore(saved, "first")
    checkpoint.write(Path("first/pruned.safetensors"), "toys:mlp", model, {})  # the zeros may grow again
    assert "holds other weights" in replays(command, capsys, "pruned/pruned.conf")


def test_a_search_notes_its_weights(
    command, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(command, "dense.safetensors")
    toml = tmp_path / "toy.toml"
    toml.write_text(SPACE.replace('"toys:images"', '"toys:images"\nweights = "dense.safetensors"'))
    with without_ray():
        code, run_dir = searched(toml, budget=2)
    assert code in (0, 3)
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    path = str(run_dir / ("closest.conf" if code else "best.conf"))
    assert conf.read(Path(path)).notes["weights"] == f"{tmp_path}/dense.safetensors"
    assert replays(command, capsys, path) == ""
    Path(tmp_path, "dense.safetensors").rename(run_dir / "dense.safetensors")
    assert "its weights are not there" in replays(command, capsys, path)
    assert replays(command, capsys, path, "--checkpoint", run_dir / "dense.safetensors") == ""


def test_weights_in_the_run_directory(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    for name, noted in (("best.conf", "dense.safetensors"), ("confs/001.conf", "../dense.safetensors")):
        assert conf.note_path(run_dir / "dense.safetensors", run_dir / name, run_dir) == noted
        moved = tmp_path / "moved" / name
        assert conf.noted_path(noted, moved).resolve() == tmp_path / "moved" / "dense.safetensors"
    outside = str(tmp_path / "dense.safetensors")
    assert conf.note_path(Path(outside), run_dir / "best.conf", run_dir) == outside
    assert str(conf.noted_path(outside, run_dir / "best.conf")) == outside


def test_random_weights_are_not_those_of_a_model(
    command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(command, "dense.safetensors")
    command("prune", "--force", *TOY, "-l", 2, "-p", 0.8, "--checkpoint", "dense.safetensors")
    path = Path("pruned/pruned.conf")
    made = conf.read(path)
    unknown = {key: value for key, value in made.notes.items() if not key.startswith("weights")}
    conf.write(path, Conf(made.ratios, made.pruners, unknown))
    assert replays(command, capsys, str(path)) == (
        f"tune-prune: {path}: does not note the weights of 'toys:mlp' that it was made from; "
        "give them with --checkpoint FILE\n"
    )
    assert replays(command, capsys, str(path), "--checkpoint", "dense.safetensors") == ""
    hashed = unknown | {"weights_hash": made.notes["weights_hash"]}
    conf.write(path, Conf(made.ratios, made.pruners, hashed))
    assert "the weights of 'toys:mlp' are others than those" in replays(command, capsys, str(path))


# Notes that cannot be what they say

NOTES = {
    **{"model": "toys:mlp", "data": "toys:images", "seed": 0, "trial": 3, "round": 1, "pruner": "mag"},
    **{"rounds": 1, "val_error": 50.0},
}
EARLIER = {"trial": 1, "round": 1, "ratio/2": 0.1, "pruner": "mag"}


def start_hash() -> str:
    """The hash of the weights that the toy starts with."""
    return checkpoint.hash_weights(*open_model("toys:mlp", None))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seed": "banana"}, "seed must be a whole number in [0, inf), got 'banana'"),
        ({"seed": [1]}, "seed must be a whole number in [0, inf), got [1]"),
        ({"seed": -1}, "seed must be a whole number in [0, inf), got -1"),
        ({"trial": 1.5}, "trial must be a whole number in [0, inf), got 1.5"),
        ({"trial": True}, "trial must be a whole number in [0, inf), got True"),
        ({"round": 0}, "round must be a whole number in [1, inf), got 0"),
        ({"model": 3}, "model must be text, got 3"),
        ({"data": ["mnist"]}, "data must be text, got ['mnist']"),
        ({"weights": 1}, "weights must be text, got 1"),
        ({"lr": "fast"}, "lr must be a number in [0, inf), got 'fast'"),
        ({"lr": [0.1, 0.2]}, "lr must be a number in [0, inf), got [0.1, 0.2]"),
        ({"rounds": 0.5}, "rounds must be a whole number in [1, inf), got 0.5"),
        ({"sample": {"a": 1}}, "sample must be a whole number in [1, inf), got {'a': 1}"),
        ({"cached_sample": "all"}, "cached_sample must be a whole number in [1, inf), got 'all'"),
        ({"schedule": [1]}, "schedule: unknown schedule '[1]'; known: linear"),
        ({"pruner": 7}, "pruner: unknown pruner '7'; known: mag"),
        ({"mode": ["global"]}, "mode must be one of layer, global, got ['global']"),
        ({"scale_dropout": "yes"}, "scale_dropout must be true or false, got 'yes'"),
        ({"val_error": "low"}, "val_error must be a number in [0, 100], got 'low'"),
        ({"ratio/2": 1.0}, "ratio/2 must be a number in [0, 1), got 1.0"),
        ({"ratio/9": 0.5}, "layer 9 cannot be pruned; layers that can: 2, 4"),
        ({"mode": "global", "ratio/4": 0.1}, "mode 'global' takes one ratio for all layers, got {'2': 0.5, '4': 0.1}"),
        ({"history": 5}, "history must be a list of tables, got 5"),
        ({"history": [5]}, "history must be a list of tables, got [5]"),
        ({"history": [{"trial": 1}]}, "history[0] must note trial and round, has trial"),
        ({"history": [EARLIER, EARLIER | {"lr": "x"}]}, "history[1].lr must be a number in [0, inf), got 'x'"),
        ({"history": [EARLIER | {"ratio/2": -1}]}, "history[0].ratio/2 must be a number in [0, 1), got -1"),
        ({"history": [EARLIER | {"ratio/9": 0.1}]}, "layer 9 cannot be pruned"),
        ({"history": [{"trial": 1, "round": 1, "ratio/2": 0.1}]}, "names no pruner for layer 2; line 3 holds one"),
        ({"trial": None, "epochs": "ten"}, "epochs must be a number in [0, inf), got 'ten'"),
        ({"trial": None, "epochs": 1, "iterations": []}, "iterations must be a whole number in [1, inf), got []"),
    ],
)
def test_notes_of_wrong_types(command, capsys: pytest.CaptureFixture[str], wrong: dict[str, object], said: str) -> None:
    notes = {key: value for key, value in (NOTES | wrong).items() if value is not None}
    conf.write(Path("a.conf"), Conf({"2": 0.5}, None, {"weights_hash": start_hash()} | notes))
    assert command("prune", "--conf", "a.conf", "--replay") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.removeprefix("tune-prune: ").removeprefix("a.conf: ").startswith(said)


def test_right_notes_of_that_conf_are_replayed(command, capsys: pytest.CaptureFixture[str]) -> None:
    history = {"history": [EARLIER | {"ratios": 3}]}  # no parameters of a trial
    conf.write(Path("a.conf"), Conf({"2": 0.5}, None, NOTES | history | {"weights_hash": start_hash()}))
    assert command("prune", "--conf", "a.conf", "--replay") == 1  # the error is not 50 %
    assert "val_error: stated 50.0, replayed" in capsys.readouterr().out
