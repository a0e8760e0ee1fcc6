"""What a model is trained by and judged by: loss, metric and distillation, the user's own or those of classification.

Loss and metric get the model itself and decide how to call it, so that nothing here asks what a batch or an output is.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_prune.common.errors import UserError
from tune_prune.common.source_lines import describe_code
from tune_prune.tasks import in_memory
from tune_prune.tasks.batches import Batch, Call, call_model, record_calls, split_batch
from tune_prune.tasks.metric_functions import (
    FurtherMetric,
    MetricFunction,
    call_metric,
    load_further_metrics,
    load_metric,
)
from tune_prune.tasks.metrics import ERROR, Metric
from tune_prune.tasks.outputs import cross_entropy, divergence, find_logits, find_scores, list_tensors, predict_classes
from tune_prune.tasks.settings import DEFAULT, TaskSettings
from tune_prune.tasks.user_code import user_code

LossFunction = Callable[[nn.Module, Batch], Tensor]
DistillFunction = Callable[[nn.Module, nn.Module, Batch], Tensor]

_DEFAULT_NAMES = {"loss": "cross-entropy", "metric": "error", "optimizer": "SGD"}


@dataclass(frozen=True)
class Criterion:
    """A loss of what a model returns and of targets, as those of torch.nn are; it is called as a loss of a batch."""

    module: nn.Module

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Computes the loss of a batch of inputs and targets."""
        inputs, targets = split_batch(batch)
        scores = find_scores(call_model(model, inputs))
        if isinstance(scores, Tensor):
            scores = scores.float()  # a model may compute in bfloat16
            self.module.to(scores.device)
        loss: Tensor = self.module(scores, targets)
        return loss


def _is_cross_entropy(loss: LossFunction) -> bool:
    return isinstance(loss, Criterion) and isinstance(loss.module, nn.CrossEntropyLoss)


@dataclass(frozen=True)
class Objective:
    """Loss, metric and distillation of a task; None stands for those of classification.

    `metric` says how the metric's values are called and which are better; the names are what messages call the user's
    functions. `optimizer_function` makes the user's optimizer, and `fit_function` is the user's training loop.
    `further` are metrics that a search measures beside the one that it judges by.
    """

    metric: Metric = ERROR
    loss_function: LossFunction | None = None
    metric_function: MetricFunction | None = None
    distill_function: DistillFunction | None = None
    optimizer_function: Callable[..., Any] | None = None
    fit_function: Callable[..., Any] | None = None
    settings: TaskSettings = DEFAULT
    further: tuple[FurtherMetric, ...] = ()

    @property
    def is_classification(self) -> bool:
        """Whether loss, metric and distillation are those of classification."""
        return self.settings.is_default_objective

    def loss(self, model: nn.Module, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Computes the mean loss of a batch, a scalar. Raises a `UserError` where a user's function makes none."""
        if self.loss_function is None:
            with user_code("model", type(model).__name__, model.forward):
                return cross_entropy(model, batch, label_smoothing)
        if label_smoothing:
            raise UserError(
                f"label_smoothing is of cross-entropy; loss {self.name_of('loss')!r} has to smooth labels itself"
            )
        with user_code("loss", self.name_of("loss"), self.loss_function):
            loss = self.loss_function(model, batch)
        self._check_scalar("loss", self.loss_function, loss)
        return loss

    def _check_scalar(self, key: str, function: Callable[..., Any], value: object) -> None:
        """Raises a `UserError` where a function of the user's has not returned a scalar tensor."""
        if not isinstance(value, Tensor) or value.dim() != 0:
            made = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            rule = "it must return a scalar tensor, the mean over the batch"
            raise UserError(f"{self._describe(key, function)} returned {made}; {rule}")

    def classify(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Computes the mean loss of a batch, the class of the highest score for each label, and the labels."""
        with record_calls(model) as calls:
            loss = self.loss(model, batch)
        if calls:
            output = calls[-1].output
        else:
            with user_code("model", type(model).__name__, model.forward):
                output = call_model(model, split_batch(batch)[0])
        labels = split_batch(batch)[1]
        return loss, predict_classes(output, labels), labels

    def check_gradient(self, loss: Tensor) -> None:
        """Raises a `UserError` where a loss has no gradient."""
        if not loss.requires_grad:
            raise UserError(
                f"{self._describe('loss', self.loss_function)} returned a tensor without a gradient; "
                "compute it from the model's outputs, without detach, item or no_grad"
            )

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """Computes the user's metric over batches, in evaluation mode; a `UserError` where it makes no number."""
        assert self.metric_function is not None
        return call_metric(self.metric_function, self.name_of("metric"), model, batches)

    def training_loss(
        self,
        model: nn.Module,
        teacher: nn.Module | None,
        batch: Batch,
        share: float,
        temperature: float,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Computes the loss to train by: `share` of it is the distance to the teacher's outputs (Hinton et al. 2015).

        The teacher is called as the loss has called the model, so that the model runs once a step.
        """
        if teacher is None or share == 0:
            return self.loss(model, batch, label_smoothing)
        if self.distill_function is not None:
            with user_code("distill", self.name_of("distill"), self.distill_function):
                soft = self.distill_function(model, teacher, batch)
            self._check_scalar("distill", self.distill_function, soft)
            return (1 - share) * self.loss(model, batch, label_smoothing) + share * soft
        with record_calls(model) as calls:
            hard = self.loss(model, batch, label_smoothing)
        if not calls:
            name = type(model).__name__
            raise UserError(
                f"loss {self.name_of('loss')!r} does not call the model {name} itself, so that there is no output to "
                "distil; name a function distill(model, teacher, batch), or leave distill out"
            )
        return (1 - share) * hard + share * self._distance(calls[-1], teacher, temperature)

    def _distance(self, call: Call, teacher: nn.Module, temperature: float) -> Tensor:
        """The distance of a model's output from the teacher's: KL divergence of class scores, else squared."""
        with torch.no_grad():
            wanted = teacher(*call.args, **call.kwargs)
        pairs = list(zip(list_tensors(call.output), list_tensors(wanted), strict=True))
        if not pairs:
            raise UserError(
                f"the model returns {type(call.output).__name__} without floating-point tensors, which cannot be "
                "distilled; name a function distill(model, teacher, batch), or leave distill out"
            )
        if find_logits(call.output) is not None:
            return divergence(*pairs[0], temperature, classes=-1)
        if self.loss_function is None or _is_cross_entropy(self.loss_function):
            return divergence(*pairs[0], temperature, classes=1)
        return torch.stack([F.mse_loss(ours.float(), theirs.float()) for ours, theirs in pairs]).mean()

    def name_of(self, key: str) -> str:
        """What messages call the function under a key of the settings, such as "loss"; of a default its name."""
        return in_memory.describe(getattr(self.settings, key) or _DEFAULT_NAMES.get(key, ""))

    def _describe(self, key: str, function: Callable[..., Any] | None) -> str:
        """What messages call a function, and where it is defined."""
        return describe_code(key, self.name_of(key), function)


CLASSIFICATION = Objective()
"""Cross-entropy, and misclassified percent."""


def make_objective(settings: TaskSettings) -> Objective:
    """Imports the functions that settings name; a `UserError` where one cannot be, or `better` is missing."""
    if settings.better is not None and settings.metric is None:
        raise UserError(f"better is {settings.better}, and no metric is given; name the metric as well")
    measure, metric = None, ERROR
    if settings.metric is not None:
        measure, metric = load_metric(settings.metric, settings.better)
    loss = _load_loss(settings.loss) if settings.loss else None
    addresses = (settings.distill, settings.optimizer, settings.fit)
    distill, optimizer, fit = (in_memory.load_function(one) if one else None for one in addresses)
    further = load_further_metrics(settings.further_metrics or (), metric)
    return Objective(metric, loss, measure, distill, optimizer, fit, settings, further)


def _load_loss(address: str) -> LossFunction:
    """Loads a loss function, or makes one of a loss class of torch.nn: lists in its address become tensors."""
    found = in_memory.load_function(address)
    kind, arguments = (found.func, found.keywords) if isinstance(found, partial) else (found, {})
    if isinstance(kind, type) and issubclass(kind, nn.Module):
        values = {key: torch.tensor(one, dtype=torch.float32) if isinstance(one, list | tuple) else one
                  for key, one in arguments.items()}  # fmt: skip
        with user_code("loss", in_memory.describe(address)):
            found = kind(**values)
    return Criterion(found) if isinstance(found, nn.Module) else found
