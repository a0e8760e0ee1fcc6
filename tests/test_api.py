import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from searches import Trials, without_ray
from tasks_of_users import rows, trained_regressor
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from toys import Conv, fault, images, mlp

import tune_prune
from tune_prune.common.flags import declared_settings
from tune_prune.pruning import iterative, masks
from tune_prune.pruning.plan import Plan
from tune_prune.tasks import in_memory
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.settings import TaskSettings

SCRIPT = """
import sys
from pathlib import Path
import torch
from torch import nn
import tune_prune
from toys import images, seeded
from tune_prune.pruning import masks
from tune_prune.tasks.metrics import evaluate
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe


class Local(nn.Sequential):  # of this process alone: no worker could import it
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))

data, model = images(), Local()
fit(model, data.train, Recipe(100, 0.1), seeded(0))
before = [weight.clone() for weight in model.state_dict().values()]
front = tune_prune.search(
    model, data, budget=4, acc_tradeoff=20, ratios={"2": (0.1, 0.9)}, granularity="2:4", steps=10,
    run_dir=Path(sys.argv[1]), quiet=True,
)
pruned = front.best.model()
assert isinstance(pruned, Local)
assert evaluate(pruned, data.load_test()).metric == front.best.test_metric
once = tune_prune.prune(model, front.best.conf)
for made in (pruned, once):
    zeros = sum(int((weight == 0).sum()) for weight in masks.prunable(made).values())
    assert zeros / 1088 == front.best.compression, (zeros, front.best)
assert all(torch.equal(*both) for both in zip(model.state_dict().values(), before, strict=True))
"""


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> tune_prune.Front:
    """Of a search, in another process, of a trained model that was handed over as an object."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "notebook.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{Path(__file__).parent.parent}"}
    command = [sys.executable, str(folder / "notebook.py"), str(folder / "run")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return tune_prune.Front(folder / "run")


def test_a_task_of_objects(trials: Trials, tmp_path: Path) -> None:
    """A loss, a metric, an optimizer and loaders that no worker could import."""
    (inputs, wanted), validation, test = rows()
    loader = DataLoader(TensorDataset(inputs, wanted), batch_size=32, shuffle=True)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (model(batch[0]) - batch[1]).square().mean()

    def distance(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
        return float(torch.cat([(model(rows) - wanted).abs() for rows, wanted in batches]).mean())

    front = tune_prune.search(
        trained_regressor(), (loader, validation, test), loss=loss, metric=distance,
        optimizer=lambda parameters, lr: torch.optim.AdamW(parameters, lr), lr=(0.001, 0.01),
        budget=3, acc_tradeoff=0.5, steps=5, batch_size=32, run_dir=tmp_path / "run", quiet=True,
    )  # fmt: skip
    assert front.summary["trials"]["completed"] + front.summary["trials"]["stopped"] == 3
    assert len(front) > 0
    assert trials.started >= 3


def test_augmentation_by_name(trials: Trials, tmp_path: Path) -> None:
    front = tune_prune.search(
        mlp(), images(), augment="crop-flip", budget=2, acc_tradeoff=20, steps=3, force=True,
        run_dir=tmp_path / "run", quiet=True,
    )  # fmt: skip
    assert front.summary["trials"]["failed"] == 0


def test_a_certified_member(trials: Trials, tmp_path: Path) -> None:
    given = {"budget": 2, "acc_tradeoff": 90, "steps": 3, "force": True, "quiet": True}
    found = tune_prune.search(mlp(), images(), certify=0.9, run_dir=tmp_path / "run", **given)  # type: ignore[arg-type]
    assert found.certified == found.best is not None  # no error is 90 points above
    plain = tune_prune.search(mlp(), images(), run_dir=tmp_path / "plain", **given)  # type: ignore[arg-type]
    assert plain.certified is None


def test_a_front_of_objects(front: tune_prune.Front) -> None:
    assert front.summary["trials"]["completed"] + front.summary["trials"]["stopped"] == 4
    assert len(front) == len(front.to_pandas()) > 0
    members = list(front)
    assert front.best == members[-1]
    assert [member.compression for member in members] == sorted(member.compression for member in members)
    assert members[-1].factor == pytest.approx(1 / (1 - members[-1].compression))
    assert members[-1].conf.is_file()


def test_what_was_handed_over_in_another_process_is_not_found(front: tune_prune.Front) -> None:
    best = front.best
    assert best is not None
    in_memory.keep_model(mlp())  # one of this process is another
    said = "model Local was handed over as an object in another process, and has no address; "
    assert fault(best.model).endswith(said + "front.best.load_into(model) needs none")


def test_a_front_outlives_its_process(front: tune_prune.Front, tmp_path: Path) -> None:
    opened = tune_prune.Front.open(str(front.run_dir))
    best = opened.best
    assert best is not None
    loaded = best.load_into(mlp())
    kept = sum(int((weight != 0).sum()) for weight in masks.prunable(loaded).values())
    assert kept / 1088 == pytest.approx(1 - best.compression, abs=1e-12)
    assert evaluate(loaded, images().load_test()).metric == best.test_metric
    assert "does not fit the model; made for 'Local (handed over from Python)'" in fault(lambda: best.load_into(Conv()))
    assert f"{tmp_path}/summary.json" in fault(lambda: tune_prune.Front.open(tmp_path))


def test_files_name_an_object_by_its_class(front: tune_prune.Front, command: Callable[..., int], capsys: Any) -> None:
    best = front.best
    assert best is not None
    assert front.summary["model"] == "Local (handed over from Python)"
    assert front.summary["data"] == "data (handed over from Python)"
    assert '# model = "Local (handed over from Python)"' in best.conf.read_text()
    assert "in_memory" not in best.conf.read_text() + (front.run_dir / "summary.json").read_text()
    assert command("prune", "--conf", best.conf, "--replay") == 2
    said = "cannot be replayed, its model, data came from Python as an object; write the address of what makes it into"
    assert said in capsys.readouterr().err
    assert command("test", best.checkpoint) == 2
    said = "its model is Local (handed over from Python) as an object; load it there, front.best.load_into(model), and"
    assert said in capsys.readouterr().err


def test_an_object_is_saved_under_a_name(front: tune_prune.Front, command: Callable[..., int], tmp_path: Path) -> None:
    """What the message of `tune-prune test` advises."""
    best = front.best
    assert best is not None
    model, path = best.load_into(mlp()), tmp_path / "named.safetensors"
    tune_prune.save(model, tune_prune.masks(model), path, name="toys:mlp")
    assert command("test", path, "--model", "toys:mlp", "--data", "toys:images") == 0


def test_a_search_goes_on_with_its_objects(trials: Trials, tmp_path: Path) -> None:
    """Those of another process are handed over again."""
    model, data = mlp(), images()
    given = {"acc_tradeoff": 90, "force": True, "quiet": True, "options": {"max_concurrent": 1}}

    def distance(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
        return float(torch.cat([model(inputs).argmax(1) != labels for inputs, labels in batches]).float().mean())

    begun = tune_prune.search(
        model, data, metric=distance, steps=3, lr=0.05, budget=2, run_dir=str(tmp_path / "run"), **given
    )  # type: ignore[arg-type]
    kept = dict(in_memory._kept)
    again = tune_prune.search(resume=str(begun.run_dir), budget=3, quiet=True)
    assert again.summary["trials"]["completed"] + again.summary["trials"]["stopped"] == 3
    in_memory._kept.clear()
    said = fault(lambda: tune_prune.search(resume=begun.run_dir, budget=4, quiet=True))
    assert said == f"resume={str(begun.run_dir)!r}: its model was handed over as an object; hand it over again"
    objects = {"data": data, "metric": distance}
    torch.manual_seed(1)
    other = fault(lambda: tune_prune.search(mlp(), resume=begun.run_dir, budget=4, quiet=True, **objects))  # type: ignore[arg-type]
    assert "weights" in other
    found = tune_prune.search(model, resume=begun.run_dir, budget=4, quiet=True, **objects)  # type: ignore[arg-type]
    assert found.summary["trials"]["completed"] + found.summary["trials"]["stopped"] == 4
    in_memory._kept.update(kept)
    said = fault(lambda: tune_prune.search(resume=begun.run_dir, lr=0.1, seed=3, run_dir="other"))
    assert said == "resume goes on with the search as it was begun; leave out run_dir, lr, seed"


def test_messages_name_arguments() -> None:
    with pytest.raises(tune_prune.UserError) as raised:
        tune_prune.search(mlp(), images(), time_budget="x")
    assert str(raised.value) == "time_budget must be a duration such as 90s, 15m or 1h30m, got 'x'"
    assert fault(lambda: tune_prune.search(mlp())) == "give model and data, or a space that names them"
    assert "run_dir /tmp exists already" in fault(
        lambda: tune_prune.search(mlp(), images(), space="lenet5", run_dir="/tmp")
    )


def test_a_pruner_that_needs_images(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_text("2\n0.5\ntaylor1\n")
    said = fault(lambda: tune_prune.prune(mlp(), path))
    assert said == f"{path}: its pruners need training images; give train=(inputs, labels)"
    pruned = tune_prune.prune(mlp(), path, images().train)
    assert int((masks.prunable(pruned)["2"] == 0).sum()) == round(0.5 * masks.prunable(pruned)["2"].numel())
    path.write_text("9\n0.5\n")
    assert "layer 9 cannot be pruned; layers that can: 2, 4" in fault(lambda: tune_prune.prune(mlp(), path))


LAYERS = "net.0,net.2\n0.5,0.5\ntaylor1,taylor1\n"


def squared(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


def test_data_of_any_kind_and_a_loss(tmp_path: Path) -> None:
    """The same rows as tensors, a data set and loaders, and the same loss as a function and by address."""
    path, model = tmp_path / "a.conf", trained_regressor()
    path.write_text(LAYERS)
    split = rows()[0]
    data: list[object] = [split, TensorDataset(*split), DataLoader(TensorDataset(*split), 128)]
    losses = [squared, "torch.nn:MSELoss", nn.MSELoss]
    pruned = [
        tune_prune.masks(tune_prune.prune(model, path, one, loss=loss)) for one, loss in zip(data, losses, strict=True)
    ]
    for one in pruned:
        assert {label: int((mask == 0).sum()) for label, mask in one.items()} == {"net.0": 12, "net.2": 4}
        assert all(torch.equal(mask, pruned[0][label]) for label, mask in one.items())
    other = tune_prune.prune(model, path, split, loss=lambda model, batch: model(batch[0]).sum())
    assert any(not torch.equal(mask, pruned[0][label]) for label, mask in tune_prune.masks(other).items())


def test_a_conf_runs_no_loss_that_the_user_does_not_name(tmp_path: Path) -> None:
    path, model, split = tmp_path / "a.conf", trained_regressor(), rows()[0]
    path.write_text(LAYERS + '# task = {loss = "tasks_of_users:mean_squared"}\n')
    said = fault(lambda: tune_prune.prune(model, path, split))
    named = "'tasks_of_users:mean_squared'"
    assert said == f"{path}: its loss is code, {named}; if you trust it, give loss={named}"
    assert tune_prune.prune(model, path, split, loss="tasks_of_users:mean_squared")
    assert tune_prune.prune(model, path, split, loss=squared)
    path.write_text(LAYERS + f'# task = {{loss = "{in_memory.keep_function(squared)}"}}\n'.replace("'", ""))
    said = fault(lambda: tune_prune.prune(model, path, split))
    assert said == f"{path}: its loss came from Python as an object; give it again as loss=..."


def test_what_prune_cannot_take(tmp_path: Path) -> None:
    path, model, split = tmp_path / "a.conf", trained_regressor(), rows()[0]
    path.write_text(LAYERS)
    cases: list[tuple[object, object, str]] = [
        (split, "mine", "tune_prune.prune: loss must be an address, package.module:function, got 'mine'"),
        (split, 3, "loss must be a name, an address or a function, got int"),
        (split, "tasks_of_users:no_scalar", "returned a tensor [2, 1]; it must return a scalar tensor"),
        (split, "tasks_of_users:no_gradient", "returned a tensor without a gradient"),
        ((split[0], split[1][:5]), squared, "tensors of the training split must have a row for each sample"),
        (iter([split]), squared, "can be iterated only once"),
    ]
    for train, loss, rule in cases:
        said = fault(lambda: tune_prune.prune(model, path, train, loss=loss))  # type: ignore[arg-type]  # noqa: B023
        assert rule in said


def test_as_many_images_as_the_conf_notes(tmp_path: Path) -> None:
    path, model, train = tmp_path / "a.conf", mlp(), images().train
    made = []
    for note, sample in (("# sample = 20", 20), ("", Plan.sample)):
        path.write_text(f"2\n0.5\ntaylor1\n{note}\n")
        state = iterative.initial_state(mlp())
        state.model.load_state_dict(model.state_dict())
        plan = Plan({"2": 0.5}, {"2": "taylor1"}, sample=sample)
        iterative.prune_once(state, plan, 1, train, iterative.round_generator(0, 1))
        pruned = tune_prune.prune(model, path, train)
        assert torch.equal(masks.prunable(pruned)["2"], masks.prunable(state.model)["2"])
        made.append(masks.prunable(pruned)["2"])
    assert not torch.equal(*made)
    path.write_text("2\n0.5\ntaylor1\n# sample = [20]\n")
    said = fault(lambda: tune_prune.prune(model, path, train))
    assert said == f"{path}: sample must be a whole number in [1, inf), got [20]"


def test_a_model_that_is_kept_stays_as_it_was() -> None:
    model = Conv()
    name = in_memory.keep_model(model)
    one, other = (in_memory.model(str(in_memory.parse_arguments(name)["key"])) for _ in range(2))
    assert one is not other
    assert one is not model
    assert in_memory.find(name) == {in_memory.parse_arguments(name)["key"]: model}
    assert in_memory.find("lenet5") == {}
    assert isinstance(in_memory.model(str(in_memory.parse_arguments(in_memory.keep_model(Conv))["key"])), Conv)


def test_the_package_imports_nothing_heavy_until_it_is_asked() -> None:
    code = "import sys, tune_prune; assert not {'torch', 'ray', 'optuna'} & sys.modules.keys(); tune_prune.prune"
    subprocess.run([sys.executable, "-c", code + "; assert 'torch' in sys.modules"], check=True)
    with pytest.raises(AttributeError, match="no attribute 'prone'"):
        _ = tune_prune.prone  # type: ignore[attr-defined]


def test_every_setting_of_a_task_is_an_argument() -> None:
    assert declared_settings(TaskSettings).keys() <= inspect.signature(tune_prune.search).parameters.keys()
    said = fault(lambda: tune_prune.search(mlp(), images(), loss=torch.zeros(3)))  # type: ignore[arg-type]
    assert said == "loss must be a name, an address or a function, got Tensor"
    said = fault(lambda: tune_prune.search(mlp(), images(), precision="fp8"))
    assert said == "precision must be fp32, tf32 or bf16, got fp8"


def test_metrics_beside_the_error_and_limits_on_them(tmp_path: Path) -> None:
    def doubt(model: torch.nn.Module, batches: Any) -> float:
        return float(1 - torch.cat([model(inputs).softmax(1).max(1).values for inputs, _ in batches]).mean())

    task = {"further_metrics": [doubt], "at_most": {"val_doubt": 0.9, "macs": 1.0}, "at_least": {"val_doubt": 0.0}}
    with without_ray():
        found = tune_prune.search(
            mlp(),
            images(),
            budget=2,
            acc_tradeoff=90,
            force=True,
            refine=0,
            steps=2,
            run_dir=tmp_path,
            quiet=True,
            **task,
        )
    assert found.summary["further_metrics"] == ["doubt"]
    assert found.summary["at_least"] == {"val_doubt": 0.0}
    assert all(0 <= row["val_doubt"] <= 0.9 and 0 <= row["test_doubt"] <= 1 for row in found.summary["front"])
