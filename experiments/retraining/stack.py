"""Many LeNet-300-100 as one stack of matrices, trained side by side: their steps, masks and errors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from trajectories import SHAPES, SIZES, Net

BATCH = 128


class Stack:
    """All networks: weights [nets, out, in], biases [nets, 1, out], masks, momentum, averages."""

    def __init__(self, nets: list[Net], dense: dict[str, Tensor], device: torch.device) -> None:
        count = len(nets)
        self.nets, self.device = nets, device
        every = [tensor.to(device) for tensor in dense.values()]
        self.weights = [t.unsqueeze(0).repeat(count, 1, 1) for t in every if t.dim() == 2]
        self.biases = [t.view(1, 1, -1).repeat(count, 1, 1) for t in every if t.dim() == 1]
        self.masks = [torch.ones_like(w, dtype=torch.bool) for w in self.weights]
        self.parameters = [*self.weights, *self.biases]
        self.velocities = [torch.zeros_like(p) for p in self.parameters]
        self.averages = [p.clone() for p in self.parameters]
        self.gradients = [torch.zeros_like(p) for p in self.parameters]

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, device=device).view(-1, 1, 1)

        self.distill = column([net.way.distill for net in nets])
        self.temperature = column([net.way.temperature for net in nets])
        self.decay = column([net.way.weight_decay for net in nets])
        self.mean = column([1 - net.way.average for net in nets])
        self.noise = column([net.way.noise for net in nets])
        self.dropout = column([net.way.dropout for net in nets])
        self.leak = column([net.way.leak for net in nets])
        self.leaks = any(net.way.leak != 1 for net in nets)
        self.lr = torch.zeros(count, 1, 1, device=device)
        self.index = torch.zeros(count, BATCH, dtype=torch.int64, device=device)

    def forward(self, inputs: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> list[Tensor]:
        """The activations of all layers, scores last; inputs are [nets or 1, n, 784]."""
        found, hidden = list[Tensor](), inputs.expand(len(weights[0]), -1, -1)
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight.transpose(1, 2))
            if layer < 2:
                hidden = hidden.relu_()
            found.append(hidden)
        return found

    def step(self, images: Tensor, labels: Tensor, teacher: Tensor) -> None:
        """One step of SGD with Nesterov momentum of every network."""
        count = len(self.nets)
        flat = self.index.view(-1)
        x = images.index_select(0, flat).view(count, BATCH, 784).float().div_(255)
        if any(net.way.noise for net in self.nets):
            x.addcmul_(torch.randn_like(x), self.noise)
        if any(net.way.dropout for net in self.nets):
            x.mul_((torch.rand_like(x) >= self.dropout) / (1 - self.dropout))
        wanted = labels.index_select(0, flat).view(count, BATCH, 1)
        soft = teacher.index_select(0, flat).view(count, BATCH, 10)
        masked = [w * m for w, m in zip(self.weights, self.masks, strict=True)]
        one, two, scores = self.forward(x, masked, self.biases)
        hard = scores.softmax(2)
        hard.scatter_add_(2, wanted, torch.full_like(wanted, -1, dtype=hard.dtype))
        t = self.temperature
        delta = (1 - self.distill) * hard + self.distill * t * ((scores / t).softmax(2) - (soft / t).softmax(2))
        delta = delta / BATCH
        inputs = (x, one, two)
        for layer in (2, 1, 0):
            torch.bmm(delta.transpose(1, 2), inputs[layer], out=self.gradients[layer])
            torch.sum(delta, 1, keepdim=True, out=self.gradients[3 + layer])
            if layer:
                delta = torch.bmm(delta, masked[layer]) * (inputs[layer] > 0)
        if self.leaks:
            for gradient, mask in zip(self.gradients[:3], self.masks, strict=True):
                gradient.mul_(torch.where(mask, 1.0, self.leak))
        for p, v, g, a in zip(self.parameters, self.velocities, self.gradients, self.averages, strict=True):
            g.addcmul_(p, self.decay)
            v.mul_(0.9).add_(g)
            g.add_(v, alpha=0.9)
            p.addcmul_(g, self.lr, value=-1)
            a.lerp_(p, self.mean)

    def mean_gradients(self, rows: Tensor, layer: int) -> Tensor:
        """How large the gradients of a layer's weights are, by their momentum: the mean of many batches."""
        return self.velocities[layer][rows].abs()

    def set_masks(self, rows: Tensor, kept: Tensor, rule: str) -> None:
        """Keeps the largest weights: kept is [rows, layers]; those that are masked count unless they may return."""
        scores = [(self.weights[i][rows] * self.masks[i][rows]).abs().flatten(1) for i in range(3)]
        self.choose(rows, scores, kept, rule)

    def choose(self, rows: Tensor, scores: list[Tensor], kept: Tensor, rule: str) -> None:
        """New masks by scores [rows, size]."""
        if rule in ("global", "lamp"):
            if rule == "lamp":
                scores = [lamp(s) for s in scores]
            pooled = top(torch.cat(scores, 1), kept.sum(1))
            chosen = list(pooled.split(SIZES, 1))
        else:
            chosen = [top(s, kept[:, i]) for i, s in enumerate(scores)]
        for i, mask in enumerate(chosen):
            self.masks[i][rows] = mask.view(len(rows), *SHAPES[i])


def top(scores: Tensor, count: Tensor) -> Tensor:
    """A mask of the largest of each row; counts are [rows]."""
    threshold = scores.sort(1, descending=True).values.gather(1, (count - 1).clamp(min=0).view(-1, 1))
    return (scores >= threshold) & (scores > 0)


def lamp(scores: Tensor) -> Tensor:
    """w^2 over the sum of squares that are at least as large (Lee et al. 2021, eq. 3); removed weights stay at 0."""
    squares, order = scores.double().square().sort(1, descending=True)
    return torch.zeros_like(squares).scatter_(1, order, squares / squares.cumsum(1).clamp(min=1e-300))


@dataclass(frozen=True)
class Images:
    """Pixels [n, 784] as bytes, and labels."""

    pixels: Tensor
    labels: Tensor

    @torch.no_grad()
    def measure(self, stack: Stack, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The error in percent and the loss of each network."""
        count = len(weights[0])
        wrong, loss = (torch.zeros(count, dtype=torch.float64, device=stack.device) for _ in range(2))
        for begin in range(0, len(self.labels), 1000):
            x = self.pixels[begin : begin + 1000].float().div_(255).unsqueeze(0)
            labels = self.labels[begin : begin + 1000].expand(count, -1)
            scores = stack.forward(x, weights, biases)[-1]
            wrong = wrong + (scores.argmax(2) != labels).double().sum(1)
            loss = loss - scores.log_softmax(2).gather(2, labels.unsqueeze(2)).double().sum((1, 2))
        return 100 * wrong / len(self.labels), loss / len(self.labels)


class Batches:
    """Batches of each of several seeds: a permutation an epoch, its last short batch left out."""

    def __init__(self, seeds: int, count: int, device: torch.device) -> None:
        self._shape, self._device, self._at, self._order = (seeds, count), device, count, torch.zeros(0)
        self._generator = torch.Generator(device).manual_seed(0)

    def next(self) -> Tensor:
        """Positions [seeds, BATCH]."""
        if self._at + BATCH > self._shape[1]:
            seeds, count = self._shape
            drawn = [torch.randperm(count, generator=self._generator, device=self._device) for _ in range(seeds)]
            self._order, self._at = torch.stack(drawn), 0
        self._at += BATCH
        return self._order[:, self._at - BATCH : self._at]


def record(run_step: Callable[[], None], stack: Stack, device: torch.device) -> Callable[[], None]:
    """The step as a CUDA graph; what its recording changed is undone."""
    if device.type != "cuda":
        return run_step
    state = [*stack.parameters, *stack.velocities, *stack.averages]
    saved = [value.clone() for value in state]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run_step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run_step()
    for value, original in zip(state, saved, strict=True):
        value.copy_(original)
    replay: Callable[[], None] = graph.replay
    return replay


def rows_of(stack: Stack, chosen: list[int]) -> Tensor:
    """Positions of networks, as an index."""
    return torch.tensor(chosen, device=stack.device)
