"""Networks with random graphs: sums, concatenations, depthwise and grouped layers, norms, gates, attention."""

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tune_prune.pruning import masks
from tune_prune.pruning.channels import removal
from tune_prune.pruning.channels.groups import Group
from tune_prune.pruning.channels.norms import count_normalised

WIDTHS = (4, 6, 8)


IMAGE_NORMS: tuple[Callable[[int], nn.Module], ...] = (
    nn.BatchNorm2d, nn.BatchNorm2d, nn.BatchNorm2d, nn.Identity, lambda channels: nn.GroupNorm(1, channels),
    lambda channels: nn.GroupNorm(channels // 2 if channels % 2 == 0 else channels, channels),
    lambda channels: nn.InstanceNorm2d(channels, affine=True),
    lambda channels: nn.InstanceNorm2d(channels, affine=True, track_running_stats=True),
)  # fmt: skip
"""Makes a norm of images from the number of channels."""


class Block(nn.Module):
    """A convolution of some kind, with a norm and an activation."""

    def __init__(self, draw: random.Random, inputs: int, outputs: int, kind: str) -> None:
        super().__init__()
        groups = {"depthwise": inputs, "grouped": 2}.get(kind, 1)
        outputs = inputs * draw.choice((1, 2)) if kind == "depthwise" else outputs
        self.outputs = outputs
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups, bias=draw.random() < 0.5)
        self.norm = draw.choice(IMAGE_NORMS)(outputs)
        self.act = draw.choice((nn.ReLU(), nn.Hardswish(), nn.Sigmoid(), nn.GELU()))

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(channels, 3), nn.Linear(3, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(functional.relu(self.down(x.mean((2, 3))))))[:, :, None, None]


class Images(nn.Module):
    """[n, 3, 8, 8] -> [n, 4]: blocks whose inputs are earlier outputs, their sums and their concatenations."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = random.Random(seed)
        widths, self.steps, self.parts = [3], [], nn.ModuleList()
        for _ in range(draw.randint(3, 7)):
            kind = draw.choice(("plain", "depthwise", "grouped", "sum", "concatenation", "gate", "plain"))
            one, other = (draw.randrange(len(widths)) for _ in range(2))
            width = widths[one]
            if kind == "sum":
                other = draw.choice([at for at, size in enumerate(widths) if size == width])
            elif kind == "concatenation":
                width += widths[other]
            elif kind == "gate":
                self.parts.append(Gate(width))
            else:
                outputs = draw.choice(WIDTHS)
                kind = "plain" if kind == "grouped" and (width % 2 or width < 4) else kind
                self.parts.append(Block(draw, width, outputs, kind))
                width = self.parts[-1].outputs
            widths.append(width)
            self.steps.append((kind, one, other))
        self.head = nn.Sequential(nn.Conv2d(widths[-1], 6, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.scores = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        values, parts = [x], iter(self.parts)
        for kind, one, other in self.steps:
            if kind == "sum":
                values.append(values[one] + values[other])
            elif kind == "concatenation":
                values.append(torch.cat([values[one], values[other]], 1))
            else:
                values.append(next(parts)(values[one]))
        return self.scores(self.head(values[-1]))


class Branch(nn.Module):
    """A residual block: two convolutions beside its input, or beside a projection of it, with relu before or after."""

    def __init__(self, draw: random.Random, inputs: int, outputs: int) -> None:
        super().__init__()
        self.is_before, inner = draw.random() < 0.3, draw.choice(WIDTHS)
        norm = nn.BatchNorm2d if draw.random() < 0.7 else lambda channels: nn.Identity()
        self.first, self.norm = nn.Conv2d(inputs, inner, 3, padding=1), norm(inner)
        self.second, self.last = nn.Conv2d(inner, outputs, 3, padding=1, bias=draw.random() < 0.5), norm(outputs)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(x) if self.is_before else x
        y = self.shortcut(x) + self.last(self.second(functional.relu(self.norm(self.first(y)))))
        return y if self.is_before else functional.relu(y)


class Residual(nn.Module):
    """[n, 3, 8, 8] -> [n, 4]: stages of residual blocks, of which the first of a stage may have a projection."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = random.Random(seed)
        width = draw.choice(WIDTHS)
        self.stem, blocks = nn.Conv2d(3, width, 3, padding=1), []
        for outputs in draw.choices(WIDTHS, k=draw.randint(1, 3)):
            for _ in range(draw.randint(1, 3)):
                blocks.append(Branch(draw, width, outputs))
                width = outputs
        self.blocks, self.scores = nn.ModuleList(blocks), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.scores(x.mean((2, 3)))


class RmsNorm(nn.Module):
    """An RMS norm as language models write it: over the last axis, times a weight or, as Gemma does, 1 + weight."""

    def __init__(self, channels: int, one: float = 0.0) -> None:
        super().__init__()
        self.weight, self.one = nn.Parameter(torch.ones(channels)), one

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6) * (self.one + self.weight)


class WrittenNorm(nn.Module):
    """A layer norm written by hand, as for channels along the second axis."""

    def __init__(self, channels: int, axis: int = -1) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(-1, self.axis)
        centred = x - x.mean(dim=-1, keepdim=True)
        x = centred / (x.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt() * self.scale + self.shift
        return x.transpose(-1, self.axis)


class Attention(nn.Module):
    """Heads of which groups share keys and values, with one projection for all three or one each.

    Queries and keys may be turned by their place in the sequence (Su et al. 2021), or normalised in each head.
    """

    def __init__(self, width: int, heads: int, shared: int, *, is_fused: bool, change: str = "nothing") -> None:
        super().__init__()
        self.heads, self.shared, self.size, self.is_fused, self.change = heads, shared, 4, is_fused, change
        self.register_buffer("frequencies", torch.tensor([1.0, 0.3]))
        self.norms = nn.ModuleList(RmsNorm(4) for _ in range(2)) if change == "norms" else None
        self.q, self.k, self.v = (nn.Linear(width, self.size * n) for n in (heads, heads // shared, heads // shared))
        self.qkv, self.out = nn.Linear(width, 3 * heads * self.size), nn.Linear(heads * self.size, width)

    def forward(self, x: Tensor) -> Tensor:
        rows, tokens, _ = x.shape
        if self.is_fused:
            parts = self.qkv(x).view(rows, tokens, 3, -1, self.size).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            parts = tuple(one(x).view(rows, tokens, -1, self.size).transpose(1, 2) for one in (self.q, self.k, self.v))
            parts = parts[0], *(part.repeat_interleave(self.shared, 1) for part in parts[1:])
        mixed = functional.scaled_dot_product_attention(
            self._changed(0, parts[0]), self._changed(1, parts[1]), parts[2]
        )
        return self.out(mixed.transpose(1, 2).reshape(rows, tokens, -1))

    def _changed(self, number: int, x: Tensor) -> Tensor:
        """Queries (0) or keys (1), [n, heads, tokens, size of a head]."""
        if self.norms is not None:
            return self.norms[number](x)
        if self.change == "rotation":
            angles = (torch.arange(float(x.shape[2]))[:, None] * self.frequencies[None]).repeat(1, 2)
            turned = torch.cat([-x[..., 2:], x[..., :2]], -1)
            return x * angles.cos() + turned * angles.sin()
        return x


NORMS: tuple[Callable[[int], nn.Module], ...] = (
    nn.Identity, nn.LayerNorm, lambda channels: nn.LayerNorm(channels, bias=False), nn.RMSNorm, RmsNorm,
    lambda channels: RmsNorm(channels, 1.0), WrittenNorm,
)  # fmt: skip
"""Makes a norm over the last axis from the number of channels."""


class Tokens(nn.Module):
    """[n, 5] words of 20 -> [n, 4]: an embedding, attention, and a gated feed-forward layer, each added."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = random.Random(seed)
        shared = draw.choice((1, 2))
        self.table, self.places = nn.Embedding(20, 8), nn.Parameter(torch.randn(1, 5, 8))
        is_fused, change = shared == 1 and draw.random() < 0.5, draw.choice(("nothing", "rotation", "norms"))
        self.attention = Attention(8, 4, shared, is_fused=is_fused, change=change)
        self.gate, self.up, self.down = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)
        norm = draw.choice(NORMS)
        self.norms, self.scores = nn.ModuleList(norm(8) for _ in range(3)), nn.Linear(8, 4)

    def forward(self, words: Tensor) -> Tensor:
        x = self.table(words) + self.places
        x = x + self.attention(self.norms[0](x))
        y = self.norms[1](x)
        x = x + self.down(functional.silu(self.gate(y)) * self.up(y))
        return self.scores(self.norms[2](x).mean(1))


class Sequences(nn.Module):
    """[n, 6, 5] -> [n, 4]: recurrent layers in one or both directions; the second may begin where the first ended."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = random.Random(seed)
        kind, self.goes_on = draw.choice((nn.LSTM, nn.GRU, nn.RNN)), draw.random() < 0.3
        self.is_first = draw.random() < 0.7
        options = {"bias": draw.random() < 0.8, "batch_first": self.is_first, "bidirectional": draw.random() < 0.4}
        if kind is nn.RNN:
            options["nonlinearity"] = draw.choice(("tanh", "relu"))
        width, layers = draw.choice(WIDTHS), draw.choice((1, 2))
        self.read = nn.Linear(5, draw.choice(WIDTHS))
        self.first = kind(self.read.out_features, width, layers, **options)
        inputs = width * (1 + options["bidirectional"])
        self.second = kind(inputs, width if self.goes_on else draw.choice(WIDTHS), layers, **options)
        outputs = self.second.hidden_size * (1 + options["bidirectional"])
        self.norm, self.scores = draw.choice((nn.Identity(), nn.LayerNorm(outputs))), nn.Linear(outputs, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.read(x)
        x, state = self.first(x if self.is_first else x.transpose(0, 1))
        x, _ = self.second(x, state) if self.goes_on else self.second(x)
        return self.scores(self.norm(x).mean(1 if self.is_first else 0))


NETWORKS: dict[str, tuple[Callable[[int], nn.Module], Callable[[], Tensor]]] = {
    "images": (Images, lambda: torch.randn(3, 3, 8, 8)),
    "residual": (Residual, lambda: torch.randn(3, 3, 8, 8)),
    "tokens": (Tokens, lambda: torch.randint(20, (3, 5))),
    "sequences": (Sequences, lambda: torch.randn(3, 6, 5)),
}
"""By kind: makes a network from a seed, and inputs for it."""


def make(kind: str, seed: int) -> tuple[nn.Module, Tensor]:
    """A network of a kind with random weights and running statistics, in evaluation mode, and inputs."""
    torch.manual_seed(seed)
    factory, inputs = NETWORKS[kind]
    model = factory(seed).eval()
    for module in model.modules():
        if getattr(module, "running_mean", None) is not None:
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if count_normalised(module):
            for name, parameter in module.named_parameters():
                if name in ("weight", "scale"):
                    nn.init.uniform_(parameter, 0.5, 1.5)
                else:
                    nn.init.normal_(parameter, std=0.3)
    return model, inputs()


def remove_at_random(model: nn.Module, groups: Sequence[Group], ratio: float, seed: int = 0) -> dict[str, Tensor]:
    """Removes a share of the channels of each of these groups, at random places; returns the masks."""
    found, generator = masks.dense_masks(model), torch.Generator().manual_seed(seed)
    scores = {label: torch.rand(mask.shape, generator=generator) for label, mask in found.items()}
    made = removal.remove(model, groups, found, scores, {group.name: ratio for group in groups})
    masks.apply(model, made)
    return made
