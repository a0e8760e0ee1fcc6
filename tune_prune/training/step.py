"""A step of training: as it comes, or on a GPU recorded once as a CUDA graph and replayed.

A step of a small network is some sixty kernels that take microseconds each; launching them one by one takes a GPU's
processor longer than running them takes the GPU. A graph launches them all at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_prune.tasks.splits import Split, affine, as_float
from tune_prune.training.optim import SGD, Recipe

WARM_UP = 3
"""Steps that are run before one is recorded: the libraries choose their kernels in them."""


class StepResult(NamedTuple):
    """A batch before its step: the loss, and the share of images misclassified, NaN where it is not counted."""

    loss: Tensor
    wrong: Tensor


@dataclass(frozen=True)
class Step:
    """What every step of a training is made of; `masks` are pairs (weight, mask), `teacher` logits [n, classes]."""

    model: nn.Module
    split: Split
    recipe: Recipe
    optimizer: SGD
    generator: torch.Generator
    masks: Sequence[tuple[Tensor, Tensor]] = ()
    teacher: Tensor | None = None
    count_wrong: bool = False

    def __call__(self, index: Tensor, lr: float | Tensor) -> StepResult:
        """Step with the images of these numbers, int64 [batch] on the split's device."""
        # index_select copies whole rows; indexing by a tensor goes by elements and takes many times as long
        inputs, labels = (part.index_select(0, index) for part in self.split)
        inputs = as_float(inputs)
        if self.recipe.augment:
            inputs = affine(inputs, self.generator)
        scores = self.model(inputs)
        teacher = None if self.teacher is None else self.teacher.index_select(0, index)
        loss = _loss(scores, labels, teacher, self.recipe)
        loss.backward()
        if self.recipe.l1:
            _add_l1(self.optimizer.parameters, self.recipe.l1)
        self.optimizer.step(lr)
        if self.masks:
            torch._foreach_mul_([weight.data for weight, _ in self.masks], [mask for _, mask in self.masks])
        wrong = (scores.detach().argmax(1) != labels).float().mean() if self.count_wrong else _NOT_COUNTED
        return StepResult(loss.detach(), wrong)


_NOT_COUNTED = torch.tensor(torch.nan)


def _loss(scores: Tensor, labels: Tensor, teacher: Tensor | None, recipe: Recipe) -> Tensor:
    hard = F.cross_entropy(scores, labels)
    if teacher is None or recipe.distill == 0:
        return hard
    t = recipe.temperature
    soft = F.kl_div(F.log_softmax(scores / t, 1), F.log_softmax(teacher / t, 1), log_target=True, reduction="batchmean")
    # t * t keeps the soft gradients' size independent of the temperature
    return (1 - recipe.distill) * hard + recipe.distill * t * t * soft


def _add_l1(parameters: Sequence[Tensor], strength: float) -> None:
    for parameter in parameters:
        if parameter.dim() > 1 and parameter.grad is not None:
            parameter.grad.add_(parameter.detach().sign(), alpha=strength)


def can_record(model: nn.Module, recipe: Recipe, device: torch.device) -> bool:
    """Whether a step can be replayed: on a GPU, drawing nothing on the CPU, in layers that do always the same.

    Those of torch do; what a user's own module does may depend on what it sees.
    """
    known = all(type(module).__module__.startswith("torch.nn.modules.") for module in model.modules())
    return device.type == "cuda" and not recipe.augment and known and recipe.steps > WARM_UP


def record_cuda_graph(run: Callable[[], None]) -> Callable[[], None]:
    """Run something a few times, record it, and return what replays it (PyTorch's notes on CUDA semantics)."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    replay: Callable[[], None] = graph.replay
    return replay


Recorder = Callable[[Callable[[], None]], Callable[[], None]]
"""Records what a function does, and returns what does it again."""


class RecordedStep:
    """The same steps, from fixed places in memory: where a batch's numbers and the learning rate are put first."""

    def __init__(
        self,
        step: Step,
        batch_size: int,
        record: Callable[[Callable[[], None]], Callable[[], None]] = record_cuda_graph,
    ) -> None:
        device = step.split.labels.device
        self._step = step
        self._index = torch.zeros(batch_size, dtype=torch.int64, device=device)
        self._lr = torch.zeros((), device=device)
        state = [*step.model.parameters(), *step.model.buffers(), *step.optimizer.velocities]
        before = [value.detach().clone() for value in state]
        self._replay = record(self._run)
        with torch.no_grad():  # the steps so far were for the recording
            for value, was in zip(state, before, strict=True):
                value.copy_(was)

    def _run(self) -> None:
        self._took = self._step(self._index, self._lr)

    def __call__(self, index: Tensor, lr: float) -> StepResult:
        """Step with the images of these numbers."""
        self._index.copy_(index)
        self._lr.fill_(lr)
        self._replay()
        return StepResult(self._took.loss.clone(), self._took.wrong.clone())
