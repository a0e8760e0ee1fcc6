"""Training loops of users: plain ones, and stand-ins that are called as Lightning and Hugging Face's Trainer are."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toys import fault, images, mlp, seeded

from tune_prune.pruning import masks
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.metrics import Evaluation
from tune_prune.tasks.objective import make_objective
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.sources import Rows
from tune_prune.tasks.splits import AnySplit, Data, Split
from tune_prune.training.loop import check_training, fit
from tune_prune.training.optim import Recipe
from tune_prune.workflows import train

RECIPE = Recipe(10, 0.05, batch_size=60, distill=0.25)
calls: list[dict[str, Any]] = []

Batches = Iterable[tuple[Tensor, Tensor]]


def endless(batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from batches


def plain(model: nn.Module, batches: Batches, steps: int, lr: float, after_step: Callable[[], None]) -> Tensor:
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.5)
    for _, (inputs, labels) in zip(range(steps), endless(batches), strict=False):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        after_step()
    return loss.detach()


class LightningModule(nn.Module):
    """A module with its own step and optimizer, as Lightning's."""

    def __init__(self, model: nn.Module, lr: float) -> None:
        super().__init__()
        self.model, self.lr = model, lr

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.lr, momentum=0.9)


class LightningTrainer:
    """Trains for so many steps, and calls its callbacks after each, as Lightning's."""

    def __init__(self, max_steps: int, callbacks: list[Any]) -> None:
        self.max_steps, self.callbacks = max_steps, callbacks

    def fit(self, module: LightningModule, batches: Batches) -> None:
        optimizer, done = module.configure_optimizers(), 0
        while done < self.max_steps:
            for at, batch in enumerate(batches):
                module.training_step(batch, at).backward()
                optimizer.step()
                optimizer.zero_grad()
                done += 1
                for callback in self.callbacks:
                    callback.on_train_batch_end(self, module, None, batch, at)
                if done == self.max_steps:
                    break


def lightning(model: nn.Module, batches: Batches, steps: int, lr: float, after_step: Callable[..., None]) -> None:
    callback = SimpleNamespace(on_train_batch_end=after_step)
    LightningTrainer(max_steps=steps, callbacks=[callback]).fit(LightningModule(model, lr), batches)


class HuggingFaceTrainer:
    """Trains on a data loader of its own making, by the arguments that it is given, as Hugging Face's."""

    def __init__(self, model: nn.Module, args: Any, callbacks: list[Any]) -> None:
        self.model, self.args, self.callbacks = model, args, callbacks

    def get_train_dataloader(self) -> Batches:
        raise NotImplementedError

    def train(self) -> Any:
        optimizer, step = torch.optim.AdamW(self.model.parameters(), self.args.learning_rate), 0
        while step < self.args.max_steps:
            loader = self.get_train_dataloader()
            for _, (inputs, labels) in zip(range(self.args.max_steps - step), loader, strict=False):
                loss = F.cross_entropy(self.model(inputs), labels)
                loss.backward()
                optimizer.step()
                step += 1
                for callback in self.callbacks:
                    callback.on_step_end(self.args, None, None, model=self.model)
                optimizer.zero_grad()
        return SimpleNamespace(training_loss=loss.item())


def hugging_face(model: nn.Module, batches: Batches, steps: int, lr: float, after_step: Callable[..., None]) -> float:
    class Trainer(HuggingFaceTrainer):
        def get_train_dataloader(self) -> Batches:
            return batches

    arguments = SimpleNamespace(max_steps=steps, learning_rate=lr)
    trainer = Trainer(model, arguments, [SimpleNamespace(on_step_end=after_step)])
    found: float = trainer.train().training_loss
    return found


def distilling(
    model: nn.Module,
    batches: Batches,
    steps: int,
    lr: float,
    after_step: Callable[[], None],
    teacher: nn.Module | None,
    distill: float,
    momentum: float = 0.1,
    other: str = "mine",
) -> None:
    calls.append({"teacher": teacher, "distill": distill, "momentum": momentum, "other": other})
    after_step()


def forgetful(model: nn.Module, batches: Batches, steps: int, lr: float, after_step: Callable[[], None]) -> None:
    next(model.parameters()).data.fill_(1.0)


def broken(model: nn.Module, batches: Batches, steps: int, lr: float, after_step: Callable[[], None]) -> None:
    raise KeyError("trainer")


def kinds(**settings: Any) -> list[AnySplit]:
    objective, train = make_objective(TaskSettings(**settings)), images().train
    rows = Rows((train.inputs, train.labels))
    return [Split(train.inputs, train.labels, objective=objective), BatchSplit(rows, objective, "toys")]


def masked() -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = mlp()
    found = {label: (weight > -0.05).float() for label, weight in masks.prunable(model).items()}
    masks.apply(model, found)
    return model, found


@pytest.mark.parametrize("name", ["plain", "lightning", "hugging_face"])
@pytest.mark.parametrize("kind", [0, 1])
def test_a_loop_of_ones_own_trains_and_masks_hold(name: str, kind: int) -> None:
    split, (model, found) = kinds(fit=f"test_user_fit:{name}")[kind], masked()
    before = split.evaluate(model)
    mean = fit(model, split, RECIPE, seeded(0), masks=masks.pairs(model, found))
    assert masks.find_damaged(model, found) is None
    assert split.evaluate(model).metric < before.metric
    assert (mean > 0) == (name != "lightning")  # which returns nothing
    assert all(weight.grad is None for weight in model.parameters())


def test_the_batches_are_those_of_the_split_in_a_new_order_every_epoch() -> None:
    for split in kinds(fit="test_user_fit:plain"):
        seen: list[Tensor] = []

        def look(
            model: nn.Module, batches: Any, steps: int, lr: float, after_step: Any, seen: list[Tensor] = seen
        ) -> None:
            assert (len(batches), batches.batch_size, steps, lr) == (4, 60, 10, 0.05)
            seen += [inputs for _ in range(2) for inputs, _ in batches]

        object.__setattr__(split.objective, "fit_function", look)
        fit(mlp(), split, RECIPE, seeded(7))
        first, second = torch.cat(seen[:4]), torch.cat(seen[4:])
        assert first.is_floating_point()
        assert not torch.equal(first, second)
        assert torch.equal(first.flatten(1).sum(1).sort().values, second.flatten(1).sum(1).sort().values)


def test_masks_hold_between_the_steps() -> None:
    split, (model, found) = kinds(fit="test_user_fit:plain")[0], masked()
    zeros: list[bool] = []

    def look(model: nn.Module, batches: Any, steps: int, lr: float, after_step: Callable[[], None]) -> None:
        def after() -> None:
            after_step()
            zeros.append(masks.find_damaged(model, found) is None)

        plain(model, batches, steps, lr, after)

    object.__setattr__(split.objective, "fit_function", look)
    fit(model, split, RECIPE, seeded(0), masks=masks.pairs(model, found))
    assert zeros == 10 * [True]


def test_what_the_loop_names_it_gets() -> None:
    calls.clear()
    split, teacher = kinds(fit="test_user_fit:distilling(other='given')")[1], mlp()
    fit(mlp(), split, RECIPE, seeded(0), teacher=teacher)
    assert calls == [{"teacher": teacher, "distill": 0.25, "momentum": 0.9, "other": "given"}]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "forgetful",
            r"^fit 'test_user_fit:forgetful' \(test_user_fit.py:\d+\) never called after_step; call it after",
        ),
        ("broken", r"^fit 'test_user_fit:broken' fails at test_user_fit.py:\d+, `raise KeyError\(\"trainer\"\)`"),
        ("endless", r"^fit 'test_user_fit:endless' .*TypeError: endless\(\) takes 1 positional argument but 5"),
        ("absent", r"'test_user_fit:absent': test_user_fit has no 'absent'"),
    ],
)
def test_mistakes_are_named(name: str, said: str) -> None:
    model, found = masked()
    split = lambda: kinds(fit=f"test_user_fit:{name}")[0]  # noqa: E731
    assert re.search(said, fault(lambda: fit(model, split(), RECIPE, seeded(0), masks=masks.pairs(model, found))))
    assert re.search(said, fault(lambda: check_training(mlp(), split())))


def test_a_check_leaves_the_model_as_it_was() -> None:
    model = mlp()
    before = [weight.clone() for weight in model.parameters()]
    for split in kinds(fit="test_user_fit:plain"):
        check_training(model, split)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), before, strict=True))


def test_a_loop_of_ones_own_trains_a_dense_model(tmp_path: Path) -> None:
    training = kinds(fit="test_user_fit:plain")[0]
    data = Data(training, images().validation, images().load_test, "toys")
    out = tmp_path / "a.safetensors"
    [epoch] = train.train("toys:mlp", data, Recipe(8, 0.02, batch_size=60), out, seed=0, device=torch.device("cpu"))
    assert epoch.epoch == 2
    assert out.is_file()


def test_the_end_is_told_once() -> None:
    told: list[tuple[int, Evaluation]] = []
    split = kinds(fit="test_user_fit:hugging_face")[0]
    mean = fit(mlp(), split, RECIPE, seeded(0), on_epoch=lambda epoch, measured: told.append((epoch, measured)))
    assert [(epoch, measured.loss) for epoch, measured in told] == [(2, mean)]


def test_an_optimizer_beside_a_loop_is_refused() -> None:
    said = fault(lambda: TaskSettings(fit="a:b", optimizer="torch.optim:Adam"))
    assert said == "--optimizer with --fit, which makes its own optimizer; leave one of them out"
