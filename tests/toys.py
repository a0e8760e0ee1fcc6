"""Toys that the tests share. Factories are named as a user names theirs, by address: `toys:mlp`."""

import warnings
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from tune_prune.common.errors import UserError
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.results.trial_params import TrialParams
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.splits import Data, Split
from tune_prune.tasks.task import Task


def mlp() -> nn.Sequential:
    """[n, 1, 8, 8] -> [n, 4]; 1,024 + 64 weights in layers 2 and 4."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))


class Conv(nn.Module):
    """[n, 1, 8, 8] -> [n, 4]; 36 + 288 + 128 weights in features.0, features.4 and head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.head = nn.Linear(32, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(inputs).flatten(1))


class Blocks(nn.Module):
    """[n, 1, 8, 8] -> [n, 4]; 512 weights in `stem`, 3 * 128 in two blocks alike and a third one, and 32 in `head`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(64, 8), nn.Linear(8, 4)
        self.blocks = nn.ModuleList(Residual(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)) for _ in range(2))
        self.last = Residual(nn.Linear(8, 16, bias=False), nn.Linear(16, 8, bias=False))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        x = self.stem(inputs.flatten(1))
        for block in self.blocks:
            x = block(x)
        return self.head(self.last(x))


class Residual(nn.Sequential):
    """x + f(x)."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs + super().forward(inputs)


class Tied(nn.Module):
    """[n, 1, 8, 8] -> [n, 4]; `again` uses the weight of `first`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 4)
        self.again.weight = self.first.weight

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.again(self.first(inputs.flatten(1)).relu()).relu())


class TiedInside(nn.Module):
    """[n, 1, 8, 8] -> [n, 4]; `inner` and `again` share a weight, and read channels of `first`, which could go."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.again, self.head = (nn.Linear(64, n) for n in (64, 64, 64, 4))
        self.again.weight = self.inner.weight

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.again(self.inner(self.first(inputs.flatten(1)).relu()).relu()).relu())


class Twice(nn.Module):
    """[n, 1, 8, 8] -> [n, 4]; `again` is another name of `first`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, 64), nn.Linear(64, 4)
        self.again = self.first

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.again(self.first(inputs.flatten(1)).relu()).relu())


class Mixer(nn.Module):
    """A linear layer of its own kind, [inputs, outputs], whose weight a function uses."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(inputs, outputs, generator=seeded(0)) / inputs**0.5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ self.kernel


class Mixed(nn.Module):
    """[n, 1, 8, 8] -> [n, 4]; the 64 weights of `head` can be pruned, and 1,024 + 64 others cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1, 64))
        self.mixer, self.head = Mixer(64, 16), nn.Linear(16, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.mixer(inputs.flatten(1) + self.place).relu())


class Recurrent(nn.Module):
    """[n, 1, 8, 8] -> [n, 4]; 1,536 + 64 weights in the gates of `rows` and in `head`, and 128 others."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(8, 16))
        self.rows = nn.LSTM(8, 16, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.rows(inputs.flatten(1, 2))[0] + self.place)[:, -1])


class Halved(nn.Module):
    """[n, 1, 8, 8] -> [n, 4] in bfloat16 or float16; the layers of `mlp`, as net.1 and net.3."""

    def __init__(self, dtype: str = "bfloat16") -> None:
        super().__init__()
        self.net = mlp().to(getattr(torch, dtype))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.net(inputs.to(self.net[1].weight.dtype))


COMPUTED: dict[str, Callable[..., nn.Module]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "old_weight_norm": nn.utils.weight_norm,
    "old_spectral_norm": nn.utils.spectral_norm,
    "pruned": lambda layer: prune.random_unstructured(layer, "weight", 0.25),
}
"""How PyTorch computes a layer's weight from other tensors, zeros from zeros."""


def computed(kind: str) -> nn.Sequential:
    """[n, 1, 8, 8] -> [n, 4]; 72 + 2,048 + 64 weights, in layers 1, 4 and 6, of which the first two are computed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # older ways to do the same
        layers = [COMPUTED[kind](layer) for layer in (nn.Conv2d(1, 8, 3, stride=2), nn.Linear(72, 16))]
    return nn.Sequential(layers[0], nn.ReLU(), nn.Flatten(), layers[1], nn.ReLU(), nn.Linear(16, 4))


def orthogonal() -> nn.Sequential:
    """`mlp` of which layer 2 is orthogonal: its zeros are not those of the tensor that it is computed from."""
    return nn.Sequential(nn.Flatten(), parametrizations.orthogonal(nn.Linear(64, 16)), nn.ReLU(), nn.Linear(16, 4))


class Words(nn.Module):
    """[n, t] words of 20, of which 0 is padding, -> [n, 20]; `head` uses the weight of `table`."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8, padding_idx=0)
        self.steps = nn.GRU(8, 8, num_layers=2, batch_first=True)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.table.weight

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.head(self.steps(self.table(words))[0][:, -1])


class Attending(nn.Module):
    """[n, 1, 8, 8] -> [n, 4]; each row is a token, and the attention has four heads of two queries."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention = nn.Linear(8, 8), nn.MultiheadAttention(8, 4, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        tokens = self.first(inputs.flatten(0, 1)).relu()
        return self.head((tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]).mean(1))


class Deciding(nn.Module):
    """[n, 1, 8, 8] -> [n, 4]; what it does depends on its input, so that it has no graph."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Gate()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.inner(inputs.flatten(1))


class Gate(nn.Module):
    """What decides there."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(inputs if inputs.sum() > 0 else -inputs)


def images() -> Data:
    """240 / 120 / 120 images of four classes, uint8 [n, 1, 8, 8]: a pattern a class, under noise."""
    generator = torch.Generator().manual_seed(5)
    patterns = torch.rand(4, 1, 8, 8, generator=generator)

    def split(n: int) -> Split:
        labels = torch.randint(4, (n,), generator=generator)
        noisy = patterns[labels] + 0.7 * torch.randn(n, 1, 8, 8, generator=generator)
        return Split(noisy.mul(128).clamp(0, 255).to(torch.uint8), labels)

    train, validation, test = split(240), split(120), split(120)
    return Data(train, validation, lambda: test)


def seen_images() -> Data:
    """The same images, of which those for validation are also those for the test."""
    data = images()
    return Data(data.train, data.validation, lambda: data.validation)


def images_with_another_test() -> Data:
    """The same images for training and validation, and none of the test images with its own class."""
    data = images()
    test = data.load_test()
    return Data(data.train, data.validation, lambda: replace(test, labels=(test.labels + 1) % 4))


def task_of(model: nn.Module, name: str) -> Task:
    """What a search of this model on the images shares; `name` is its address."""
    data = images()
    weights = {key: value.detach().clone() for key, value in model.state_dict().items()}
    teacher = data.train.scores(model).clone()
    return Task(name, weights, data.train, data.validation, teacher, evaluate(model, data.validation))


def unlabelled(inputs: torch.Tensor) -> Split:
    """Inputs as a split, with labels that mean nothing."""
    return Split(inputs, torch.zeros(len(inputs), dtype=torch.int64))


def seeded(seed: int) -> torch.Generator:
    """A random source."""
    return torch.Generator().manual_seed(seed)


def fault(call: Callable[[], object]) -> str:
    """What the UserError says that the call raises; one line always."""
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def ended(
    trial: int, *points: tuple[float, float], limit: float = 2.0, state: str = "complete", parent: int | None = None
) -> TrialRecord:
    """A trial that measured these (compression, error), with the checkpoints that its worker would have kept."""
    found = [
        PointRecord(
            round=number,
            compression=compression,
            factor=1 / (1 - compression),
            val_metric=error,
            val_loss=error / 30,
            feasible=error <= limit,
            seconds=1.5,
            ratios={"2": compression},
            checkpoint=f"rounds/{trial}-{number}.safetensors" if error <= limit or number == len(points) else None,
        )
        for number, (compression, error) in enumerate(points, start=1)
    ]
    params = TrialParams({"2": points[-1][0] if points else 0.0}, "mag")
    return TrialRecord(trial, state, params, {"2": "mag"}, found, parent=parent, refines=parent)


def turned(record: TrialRecord) -> TrialRecord:
    """A trial that measured the same by a metric of which higher is better: every value is the negative."""
    return replace(record, points=[replace(point, val_metric=-point.val_metric) for point in record.points])
