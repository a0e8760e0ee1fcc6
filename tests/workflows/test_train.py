import copy
import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toys import fault, mlp

from tune_prune.pruning import checkpoint
from tune_prune.tasks.batches import count_steps
from tune_prune.tasks.metrics import Evaluation, evaluate
from tune_prune.tasks.objective import make_objective
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.splits import Data, Split
from tune_prune.training.optim import Recipe
from tune_prune.workflows import train
from tune_prune.workflows.train import Epoch

CPU = torch.device("cpu")
RECIPE = Recipe(steps=5 * 7, lr=0.1, batch_size=32)  # five epochs of the toy data


def test_the_checkpoint_reproduces_the_lowest_error(toy_data: Data, tmp_path: Path) -> None:
    out = tmp_path / "mlp.safetensors"
    reported: list[Epoch] = []
    history = train.train("toys:mlp", toy_data, RECIPE, out, seed=1, device=CPU, on_epoch=reported.append)
    read = checkpoint.read(out)
    model, _ = checkpoint.restore(read, str(out))
    error, loss = evaluate(model, toy_data.validation)
    assert (error, loss) == min((e.val_metric, e.val_loss) for e in history)
    assert (read.notes["val_error"], read.notes["val_loss"], read.notes["seed"]) == (error, loss, 1)
    assert read.notes["recipe"]["lr"] == 0.1
    assert reported == history
    assert [e.epoch for e in history] == [1, 2, 3, 4, 5]
    assert history[-1].train_loss < history[0].train_loss


@pytest.mark.parametrize(
    ("measured", "best"),
    [
        ([(5, 1), (3, 1), (4, 1), (4, 1), (9, 1)], 2),
        ([(5, 1), (3, 0.2), (3, 0.1), (4, 0.01), (3, 0.1)], 3),
        ([(5, 1), (4, 1), (3, 1), (2, 1), (1, 1)], 5),
    ],
)
def test_the_best_epoch_is_kept(
    monkeypatch: pytest.MonkeyPatch, toy_data: Data, tmp_path: Path, measured: list[tuple[float, float]], best: int
) -> None:
    seen: list[dict[str, Tensor]] = []

    def scripted(model: nn.Module, split: Split) -> Evaluation:
        model.eval()
        seen.append(copy.deepcopy(model.state_dict()))
        return Evaluation(*measured[len(seen) - 1])

    monkeypatch.setattr(train, "evaluate", scripted)
    train.train("toys:Conv", toy_data, RECIPE, tmp_path / "a.safetensors", seed=1, device=CPU)
    kept = checkpoint.read(tmp_path / "a.safetensors").weights
    assert [all(torch.equal(kept[key], state[key]) for key in kept) for state in seen].index(True) + 1 == best
    means = {tuple(state["features.1.running_mean"].tolist()) for state in seen}
    assert len(means) == 5  # between evaluations the model is in training mode


def test_a_row_an_epoch(toy_data: Data, tmp_path: Path) -> None:
    history = train.train("toys:Conv", toy_data, RECIPE, tmp_path / "a.safetensors", seed=1, device=CPU)
    with (tmp_path / "a.safetensors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "train_loss", "train_error", "val_error", "val_loss"]
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5]
    for row, epoch in zip(rows, history, strict=True):
        for column in ("train_loss", "train_error", "val_error", "val_loss"):
            assert float(row[column]) == pytest.approx(getattr(epoch, column.replace("error", "metric")), abs=1e-4)


def test_the_seed_decides_and_nothing_before_it(toy_data: Data, tmp_path: Path) -> None:
    def run(seed: int) -> bytes:
        torch.rand(seed + len(list(tmp_path.iterdir())))  # what others drew before
        train.train("toys:mlp", toy_data, RECIPE, tmp_path / f"{seed}.safetensors", seed=seed, device=CPU)
        return (tmp_path / f"{seed}.safetensors").read_bytes()

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_less_than_an_epoch_is_refused(toy_data: Data, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"recipe\.steps must be at least one epoch, got 6"):
        train.train("toys:mlp", toy_data, Recipe(6, 0.1, batch_size=32), tmp_path / "a.safetensors", seed=1, device=CPU)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("batch_size", "steps"), [(32, 7), (240, 1), (241, 1), (1, 240)])
def test_steps_per_epoch(toy_data: Data, tmp_path: Path, batch_size: int, steps: int) -> None:
    assert count_steps(240, batch_size) == steps
    recipe = Recipe(steps, 0.01, batch_size=batch_size)
    assert len(train.train("toys:mlp", toy_data, recipe, tmp_path / "a.safetensors", seed=1, device=CPU)) == 1


def test_the_model_learned(toy_data: Data, tmp_path: Path) -> None:
    torch.manual_seed(1)
    untrained = evaluate(mlp(), toy_data.validation)
    history = train.train("toys:mlp", toy_data, RECIPE, tmp_path / "a.safetensors", seed=1, device=CPU)
    assert min(e.val_metric for e in history) < untrained.metric / 2


class StopError(Exception):
    """What cuts a training off."""


def with_settings(data: Data, **settings: str) -> Data:
    """The data of a task with these settings."""
    objective = make_objective(TaskSettings(**settings))
    train, validation = (replace(split, objective=objective) for split in (data.train, data.validation))
    return Data(train, validation, data.load_test)


@pytest.mark.parametrize("optimizer", [None, "torch.optim:AdamW(amsgrad=True)", "torch.optim:RMSprop(momentum=0.5)"])
def test_a_training_that_was_cut_off_goes_on_as_if_it_had_not_been(
    toy_data: Data, tmp_path: Path, optimizer: str | None
) -> None:
    toy_data = with_settings(toy_data, optimizer=optimizer) if optimizer else toy_data
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    settings = {"seed": 1, "device": CPU}
    history = train.train("toys:Conv", toy_data, RECIPE, whole, **settings)

    def stop(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            raise StopError

    with pytest.raises(StopError):
        train.train("toys:Conv", toy_data, RECIPE, cut, **settings, on_epoch=stop)
    assert checkpoint.read(cut).notes["val_error"] == min(e.val_metric for e in history[:2])  # the best so far is kept
    assert train.train("toys:Conv", toy_data, RECIPE, cut, **settings, resume=True) == history
    assert cut.read_bytes() == whole.read_bytes()
    assert Path(f"{cut}.csv").read_text() == Path(f"{whole}.csv").read_text()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".csv", ".safetensors", ".safetensors"]


def test_what_cannot_be_resumed(toy_data: Data, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"

    def resume(recipe: Recipe = RECIPE) -> list[Epoch]:
        return train.train("toys:mlp", toy_data, recipe, out, seed=1, device=CPU, resume=True)

    assert "a.safetensors.resume is not there" in fault(resume)

    def stop(epoch: Epoch) -> None:
        raise StopError

    with pytest.raises(StopError):
        train.train("toys:mlp", toy_data, RECIPE, out, seed=1, device=CPU, on_epoch=stop)
    assert ": changed since it was begun: recipe; give" in fault(lambda: resume(Recipe(14, 0.1, batch_size=32)))
    inputs, labels = toy_data.validation.inputs.clone(), toy_data.validation.labels
    inputs[0] = 0
    whole, toy_data = toy_data, Data(toy_data.train, Split(inputs, labels), toy_data.load_test)
    said = f"--resume: {out}.resume: changed since it was begun: validation inputs; give the same flags, data and code"
    assert fault(resume).startswith(said)
    toy_data = Data(Split(whole.train.inputs, 3 - whole.train.labels), whole.validation, whole.load_test)
    assert ": training labels; give" in fault(resume)
    toy_data = with_settings(whole, optimizer="torch.optim:Adam")
    assert ": changed since it was begun: optimizer code; give" in fault(resume)
    (tmp_path / "a.safetensors.resume").write_bytes(b"noise")
    assert "a.safetensors.resume" in fault(resume)


@pytest.mark.parametrize("name", ["n.csv", "n.resume", "n", "m.lr0.1"])
def test_a_model_of_any_name(toy_data: Data, tmp_path: Path, name: str) -> None:
    out, other = tmp_path / name, tmp_path / "m.lr0.2"
    train.train("toys:mlp", toy_data, RECIPE, other, seed=2, device=CPU)
    table = Path(f"{other}.csv").read_text()
    for _ in range(2):  # the second one replaces the files of the first
        train.train("toys:mlp", toy_data, RECIPE, out, seed=1, device=CPU)
        assert checkpoint.read(out).notes["seed"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"{name}.csv", "m.lr0.2", "m.lr0.2.csv"])
    assert Path(f"{other}.csv").read_text() == table != Path(f"{out}.csv").read_text()


def test_files_that_would_be_lost(toy_data: Data, tmp_path: Path) -> None:
    def start(name: str) -> list[Epoch]:
        return train.train("toys:mlp", toy_data, RECIPE, tmp_path / name, seed=1, device=CPU)

    start("a.csv")
    start("b.resume")
    (tmp_path / "mine.py").write_text("print()")
    (tmp_path / "folder").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for name, said in [
        ("a", "a: its table would replace .*/a.csv, which is none; name another file"),
        ("b", "b: its state would replace .*/b.resume, which is a model; name another file"),
        ("mine.py", "mine.py: exists, and is not a model that tune-prune wrote; name another file"),
        ("folder", "folder: exists, and is not a model"),
        ("a.csv.csv", "a.csv.csv: exists, and is not a model"),  # the table of a.csv
    ]:
        assert re.match(f"--out {tmp_path}/{said}", fault(lambda name=name: start(name)))
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("name", ["toys:Tied", "toys:Twice", "toys:Halved"])
def test_a_training_of_tied_and_of_halved_weights_goes_on(toy_data: Data, tmp_path: Path, name: str) -> None:
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    history = train.train(name, toy_data, RECIPE, whole, seed=1, device=CPU)

    def stop(epoch: Epoch) -> None:
        raise StopError

    with pytest.raises(StopError):
        train.train(name, toy_data, RECIPE, cut, seed=1, device=CPU, on_epoch=stop)
    assert train.train(name, toy_data, RECIPE, cut, seed=1, device=CPU, resume=True) == history
    assert cut.read_bytes() == whole.read_bytes()


def test_a_model_that_cannot_be_pruned_is_not_trained(toy_data: Data, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    said = fault(lambda: train.train("toys:orthogonal", toy_data, RECIPE, out, seed=1, device=CPU))
    assert "layer 2 is computed from other tensors" in said
    assert not any(tmp_path.iterdir())
