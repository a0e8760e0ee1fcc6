"""One step of training, run eagerly, or on a GPU recorded once as a CUDA graph and replayed.

A step of a small network is some sixty kernels of a few microseconds each. To launch them one by one takes the
processor longer than it takes the GPU to run them; a graph launches them all at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_prune.tasks.augment import affine
from tune_prune.tasks.precision import use_precision
from tune_prune.tasks.splits import Split
from tune_prune.training.data_parallel import Replica
from tune_prune.training.optim import SGD, Optimizer, Recipe

WARM_UP = 3
"""Steps that are run before one is recorded: the libraries choose their kernels in them."""

Recorder = Callable[[Callable[[], None]], Callable[[], None]]
"""Records what a function does on the device, and returns a function that replays it."""

_NOT_COUNTED = torch.tensor(torch.nan)
_ALL = slice(None)


class StepResult(NamedTuple):
    """A batch's results before the step: the loss, and the share of images misclassified, NaN where not counted."""

    loss: Tensor
    wrong: Tensor


@dataclass(frozen=True)
class Step:
    """An eager training step; `masks` are pairs (weight, mask), `teacher` holds logits [n, classes] for the split.

    With a `replica`, a step computes this process's part of a batch.
    """

    model: nn.Module
    split: Split
    recipe: Recipe
    optimizer: Optimizer
    generator: torch.Generator
    masks: Sequence[tuple[Tensor, Tensor]] = ()
    teacher: Tensor | None = None
    count_wrong: bool = False
    replica: Replica | None = None

    def __call__(self, index: Tensor, lr: float | Tensor) -> StepResult:
        """Trains on the images at these positions of the split, int64 [n] on its device, a batch at a time."""
        if self.recipe.accumulate == 1:
            result = self._add_gradient(index, 1.0)
        else:
            parts = index.split(self.recipe.batch_size)
            found = [self._add_gradient(part, len(part) / len(index), part is parts[-1]) for part in parts]
            result = StepResult(*(torch.stack(values).sum() for values in zip(*found, strict=True)))
        update(self.optimizer, self.recipe, self.masks, lr)
        return result

    def _add_gradient(self, index: Tensor, share: float, last: bool = True) -> StepResult:
        """Adds the gradient of a batch, which is this share of the step's images; returns so much of its results."""
        if self.replica is None:
            loss, scores, labels = self._forward(self.model, index)
        else:
            rows = self.replica.part.rows(len(index))
            share *= self.replica.part.weight(len(index))
            compute = partial(self._forward, index=index, rows=rows)
            loss, scores, labels = self.replica.run(compute, synchronize=last)
        if share != 1:
            loss = share * loss
        loss.backward()
        wrong = (scores.detach().argmax(1) != labels).float().mean() * share if self.count_wrong else _NOT_COUNTED
        return StepResult(loss.detach(), wrong)

    def _forward(self, model: nn.Module, index: Tensor, rows: slice = _ALL) -> tuple[Tensor, Tensor, Tensor]:
        """Computes the loss of these rows of a batch, their scores, and returns their labels."""
        if not self.recipe.augment:  # which is drawn for the whole batch, by every process alike
            index, rows = index[rows], _ALL
        # index_select copies whole rows; indexing by a tensor goes by elements and takes many times as long
        inputs, labels = (part.index_select(0, index) for part in (self.split.inputs, self.split.labels))
        inputs = self.split.as_float(inputs)
        if self.recipe.augment:
            inputs, labels, index = affine(inputs, self.generator)[rows], labels[rows], index[rows]
        with use_precision(self.split.objective.settings.precision, labels.device):
            scores = model(inputs)
        scores = scores.float()  # a model may compute in bfloat16; other scores stay as they are
        teacher = None if self.teacher is None else self.teacher.index_select(0, index)
        return _compute_loss(scores, labels, teacher, self.recipe), scores, labels


def update(optimizer: Optimizer, recipe: Recipe, masks: Sequence[tuple[Tensor, Tensor]], lr: float | Tensor) -> None:
    """Updates the weights by their gradients, and sets removed ones back to zero; `masks` are pairs (weight, mask)."""
    if recipe.l1:
        add_l1(optimizer.parameters, recipe.l1)
    if recipe.clip:
        clip_gradients(optimizer.parameters, masks, recipe.clip)
    optimizer.step(lr)
    if masks:
        torch._foreach_mul_([weight.data for weight, _ in masks], [mask for _, mask in masks])


def can_record(model: nn.Module, recipe: Recipe, device: torch.device, precision: str | None = None) -> bool:
    """Whether a training's steps by `SGD` can be recorded and replayed.

    That takes a GPU, no random draws on the CPU, more steps than the warm-up, and modules of `torch.nn` alone: these
    run the same kernels for every batch, which a user's own module may not. Automatic mixed precision keeps copies of
    weights between its calls, and is not recorded.
    """
    modules_of_torch = all(type(module).__module__.startswith("torch.nn.modules.") for module in model.modules())
    recordable = not recipe.augment and modules_of_torch and precision != "bf16"
    return device.type == "cuda" and recordable and recipe.steps > WARM_UP


def record_cuda_graph(run: Callable[[], None]) -> Callable[[], None]:
    """Runs a function `WARM_UP` times, records it, and returns the replay (PyTorch's notes on CUDA semantics)."""
    side_stream = torch.cuda.Stream()
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):
        for _ in range(WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    replay: Callable[[], None] = graph.replay
    return replay


class RecordedStep:
    """A step that is recorded once and replayed; each batch's index and learning rate are copied to fixed tensors."""

    def __init__(self, step: Step, batch_size: int, record: Recorder = record_cuda_graph) -> None:
        device = step.split.labels.device
        self._step = step
        self._index = torch.zeros(batch_size, dtype=torch.int64, device=device)
        self._lr = torch.zeros((), device=device)
        assert isinstance(step.optimizer, SGD)
        state = [*step.model.parameters(), *step.model.buffers(), *step.optimizer.velocities]
        saved = [value.detach().clone() for value in state]
        self._replay = record(self._run)
        with torch.no_grad():  # undo the steps that the recording took
            for value, original in zip(state, saved, strict=True):
                value.copy_(original)

    def _run(self) -> None:
        self._result = self._step(self._index, self._lr)

    def __call__(self, index: Tensor, lr: float) -> StepResult:
        """Trains on the images at these positions of the split."""
        self._index.copy_(index)
        self._lr.fill_(lr)
        self._replay()
        return StepResult(self._result.loss.clone(), self._result.wrong.clone())


def _compute_loss(scores: Tensor, labels: Tensor, teacher: Tensor | None, recipe: Recipe) -> Tensor:
    hard = F.cross_entropy(scores, labels, label_smoothing=recipe.label_smoothing)
    if teacher is None or recipe.distill == 0:
        return hard
    t = recipe.temperature
    soft = F.kl_div(F.log_softmax(scores / t, 1), F.log_softmax(teacher / t, 1), log_target=True, reduction="batchmean")
    # t * t keeps the soft gradients' size independent of the temperature
    return (1 - recipe.distill) * hard + recipe.distill * t * t * soft


def add_l1(parameters: Sequence[Tensor], strength: float) -> None:
    """Adds the gradient of an L1 penalty to all parameters but vectors."""
    for parameter in parameters:
        if parameter.dim() > 1 and parameter.grad is not None:
            parameter.grad.add_(parameter.detach().sign(), alpha=strength)


def clip_gradients(parameters: Sequence[Tensor], masks: Sequence[tuple[Tensor, Tensor]], norm: float) -> None:
    """Scales gradients down to a norm where theirs is larger (Pascanu et al. 2013); removed weights do not count."""
    for weight, mask in masks:
        if weight.grad is not None:
            weight.grad.mul_(mask)
    torch.nn.utils.clip_grad_norm_(parameters, norm)
