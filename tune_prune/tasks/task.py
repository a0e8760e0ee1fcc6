"""The task that all trials of a search share: a dense model, training and validation data, and what it is judged by."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tune_prune.common.errors import UserError, describe_error, prefix_errors
from tune_prune.common.source_lines import describe_code
from tune_prune.tasks import in_memory
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.metrics import Evaluation, Metric, evaluate
from tune_prune.tasks.models import build, load_state, to_device
from tune_prune.tasks.settings import DEFAULT, TaskSettings
from tune_prune.tasks.splits import AnySplit, Data, Split

ONE_SIDED_95 = 1.645
"""Standard deviations that a normal variable exceeds in 5 of 100 cases."""


@dataclass(frozen=True)
class Task:
    """A search's task, made once a run and never changed.

    `weights` is the dense model's state dict, and `dense` its metric and loss on `validation`. `teacher` are its logits
    on a `Split` for training, float32 [n, classes]; None for any other, where it runs along. `data` is the name of its
    data, and `settings` are what the user has said of the task.
    """

    model: str
    weights: dict[str, Tensor]
    train: AnySplit
    validation: AnySplit
    teacher: Tensor | None
    dense: Evaluation
    data: str = ""
    settings: TaskSettings = DEFAULT

    @property
    def metric(self) -> Metric:
        """What models are judged by."""
        return self.validation.objective.metric

    @property
    def notes(self) -> dict[str, object]:
        """What a checkpoint notes of the task: its data, and under `task` the settings that are not the default."""
        return describe_task(self.data, self.settings)

    def dense_model(self, device: torch.device) -> nn.Module:
        """Makes a new copy of the dense model on a device."""
        model = build(self.model)
        load_state(model, self.weights)
        return to_device(model, device)

    def to(self, device: torch.device) -> "Task":
        """Copies the task with its data and logits on a device."""
        teacher = None if self.teacher is None else self.teacher.to(device)
        return replace(self, train=self.train.to(device), validation=self.validation.to(device), teacher=teacher)

    def make_teacher(self, share: float) -> Tensor | nn.Module | None:
        """What a trial is distilled from: logits on the training split, or the dense model; for a `share` of 0 any.

        A training loop of the user's gets the dense model, whatever the share: logits are by the position in the split.
        """
        if self.settings.fit is None and (not share or self.teacher is not None):
            return self.teacher
        return self.dense_model(self.train.device)


def describe_task(data: str, settings: TaskSettings) -> dict[str, object]:
    """What a checkpoint or a conf notes of its data, and of its settings under `task` where there are some."""
    return {"data": data, "task": dict(settings.given)} if settings.given else {"data": data}


def prepare_task(
    name: str,
    model: nn.Module,
    data: str,
    device: torch.device,
    say: Callable[[str], None] = lambda line: None,
    *,
    settings: TaskSettings = DEFAULT,
    check_test: bool = False,
    where: str = "",
) -> tuple[Task, Callable[[], AnySplit]]:
    """Makes the task of a search; returns it, on the CPU, and a function that loads the test split.

    `model` is the dense model called `name`, with its weights. `say` gets a line for each split that is made here.
    Raises a `UserError` where the data cannot be loaded, which begins with `where`, and where model and data do not fit
    each other; `check_test` as in `check_compatible`.
    """
    model = to_device(model, device)
    with prefix_errors(where):
        loaded = load_data(data, say, settings, name)
    check_compatible(name, model, loaded, device, check_test=check_test)
    train, validation = loaded.train.to(device), loaded.validation.to(device)
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    teacher = train.scores(model).clone() if isinstance(train, Split) else None
    task = Task(name, state, train, validation, teacher, evaluate(model, validation), data, settings)
    return task.to(torch.device("cpu")), loaded.load_test


def check_trained(name: str, dense: Evaluation, validation: AnySplit, force: bool) -> None:
    """Raises a `UserError` where a model's validation error is near chance, unless `force` is true.

    Of other metrics chance is not known, but they have to be finite.
    Chance is the error of always answering the most frequent class. Near it is an error that is not below nine tenths
    of chance, as untrained networks have it, or that is so by luck: not below it at 95 %, one-sided.
    """
    name, objective = in_memory.describe(name), validation.objective
    if not math.isfinite(dense.metric):
        who = describe_code("metric", objective.name_of("metric"), objective.metric_function)
        raise UserError(f"{who} is {dense.metric} of the dense model on validation data; a finite number is needed")
    counts = validation.count_labels()
    if not len(counts):
        return
    share = int(counts.max()) / int(counts.sum())
    chance = 100 * (1 - share)
    luck = 100 * ONE_SIDED_95 * math.sqrt(share * (1 - share) / int(counts.sum()))
    if not force and dense.metric >= min(0.9 * chance, chance - luck):
        always = f"always answering {int(counts.argmax())} makes {chance:.2f} %"
        advice = "train it first and name its weights, or add --force (from Python: force=True)"
        raise UserError(f"model {name!r} is near chance: {dense.metric:.2f} % validation error, and {always}; {advice}")


def check_compatible(name: str, model: nn.Module, data: Data, device: torch.device, *, check_test: bool) -> None:
    """Raises a `UserError` where the model cannot take the inputs of a split, or has no output for some label.

    Also where all labels for training or for validation are the same: a constant output would have no error there. With
    `check_test` the test split is loaded and checked as well, for a command that will need it; nothing is measured.
    """
    name = in_memory.describe(name)
    splits = {"training": data.train, "validation": data.validation}
    for part, split in splits.items():
        _check_fit(name, model, data.name, part, split, device)
        if isinstance(split, Split) and bool((split.labels == split.labels[0]).all()):
            first = int(split.labels[0])
            raise UserError(f"data {data.name!r}: all {part} labels are {first}; give images of several classes")
    if check_test:
        _check_fit(name, model, data.name, "test", data.load_test(), device)


def _check_fit(name: str, model: nn.Module, data: str, part: str, split: AnySplit, device: torch.device) -> None:
    if isinstance(split, Split):
        _check_scores(name, model, data, part, split, device)
    else:
        split.to(device).head(2).check(model, with_gradient=part == "training")


def _check_scores(name: str, model: nn.Module, data: str, part: str, split: Split, device: torch.device) -> None:
    """Raises a `UserError` where the model fails on the first inputs of a split, or has no output for some label."""
    first = split.head(2).to(device)
    inputs = first.inputs
    try:
        scores = first.scores(model)
    except Exception as error:  # a user's model may raise anything
        what = f"{part} inputs of {data!r}, {list(inputs.shape)}"
        raise UserError(f"model {name!r} fails on {what} ({describe_error(error)})") from error
    if scores.dim() != 2 or len(scores) != len(inputs):
        made = f"of {len(inputs)} inputs it made {list(scores.shape)}"
        raise UserError(f"model {name!r} must return class scores [n, classes]; {made}")
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= scores.shape[1]:
        outputs = f"model {name!r} has {scores.shape[1]} outputs"
        raise UserError(f"data {data!r} has {part} labels from {low} to {high}; {outputs}")
