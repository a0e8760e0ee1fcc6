"""docs/tasks.md: every key stands in its table, and the code of its recipes runs as printed."""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from tasks_of_users import Regressor, rows
from torch import Tensor, nn
from toys import images, mlp

from tune_prune.hpo.space_keys import KEYS
from tune_prune.pruning import masks
from tune_prune.tasks import in_memory
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.models import build
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.task import check_compatible
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe

TEXT = (Path(__file__).parent.parent / "docs" / "tasks.md").read_text(encoding="utf-8")
SECTIONS = dict(section.split("\n", 1) for section in re.split(r"^##+ ", TEXT, flags=re.MULTILINE)[1:])
RECIPES = {
    title: code for title, text in SECTIONS.items() for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
}

Install = Callable[[str], ModuleType]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Imports the code of a recipe as the module `recipe`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def run(recipe: str) -> ModuleType:
        (tmp_path / "recipe.py").write_text(RECIPES[recipe], encoding="utf-8")
        importlib.invalidate_caches()
        return importlib.import_module("recipe")

    yield run
    sys.modules.pop("recipe", None)


def test_every_key_is_documented() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)) == set(KEYS["task"])


def test_a_loader_distorts_images_anew(install: Install) -> None:
    install("A DataLoader with augmentation")
    data = load_data("recipe:data")
    check_compatible("torchvision:resnet18(num_classes=10)", build("torchvision:resnet18(num_classes=10)"), data,
                     torch.device("cpu"), check_test=True)  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    first, second = (next(data.train.epoch(64, generator)) for _ in range(2))
    assert first[0].shape == (64, 3, 32, 32)
    assert not torch.equal(first[0], second[0])
    assert all(torch.equal(*both) for both in zip(*(next(data.validation.batches()) for _ in range(2)), strict=True))


def test_torchvisions_own_preprocessing(install: Install) -> None:
    install("A torchvision model with its own preprocessing")
    data = load_data("recipe:data")
    assert data.train.head(2).evaluate(build("recipe:model")).loss > 0
    inputs = next(data.train.batches(2))[0]
    assert inputs.shape == (2, 3, 224, 224)
    assert inputs.is_floating_point()


def test_regression(install: Install) -> None:
    recipe, model = install("Regression by RMSE"), Regressor()
    split = rows()[1]
    with torch.no_grad():
        assert recipe.rmse(model, [split]) == pytest.approx(float(recipe.loss(model, split)) ** 0.5)


def train(module: ModuleType, model: nn.Module, data: object) -> None:
    """Trains a pruned model by a recipe's loop: it learns, and what was removed stays so."""
    settings = TaskSettings(fit=in_memory.keep_function(module.fit))
    found = {label: (weight.abs() > 0.03).float() for label, weight in masks.prunable(model).items()}
    masks.apply(model, found)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    split = load_data(in_memory.keep_data(data), settings=settings).train
    fit(model, split, Recipe(4, 0.01, batch_size=40), torch.Generator(), masks=masks.pairs(model, found))
    assert masks.find_damaged(model, found) is None
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of Lightning's own calls of torch
def test_lightning(install: Install) -> None:
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), self.lr)

    train(install("Lightning"), Module(), images())


def test_hugging_faces_trainer(install: Install) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    size = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    ids = torch.randint(20, (80, 5), generator=torch.Generator().manual_seed(0))
    split = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 2}
    train(install("Hugging Face's Trainer"), transformers.BertForSequenceClassification(size), (split, split, split))
