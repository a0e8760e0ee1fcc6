"""Which layer reads what another one computes: the channels of a model, as far as its graph is understood.

A layer's outputs may be taken away where all that happens to them, until layers read them, happens to each channel by
itself. Where anything else does (an addition, a concatenation, a normalisation over channels) they are left alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from tune_prune.common.errors import UserError
from tune_prune.export.resizing import by_channel
from tune_prune.pruning import masks

EACH_BY_ITSELF = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign,
    nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid,
)  # fmt: skip
POOLS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
)  # fmt: skip
ELEMENTWISE = {
    torch.relu, torch.tanh, torch.sigmoid, functional.relu, functional.relu6, functional.leaky_relu, functional.elu,
    functional.gelu, functional.silu, functional.hardswish, functional.tanh, functional.sigmoid, functional.dropout,
    functional.dropout2d, "relu", "relu_", "tanh", "tanh_", "sigmoid", "sigmoid_", "contiguous",
}  # fmt: skip
FUNCTIONAL_POOLS = {
    functional.max_pool1d, functional.max_pool2d, torch.max_pool1d, torch.max_pool2d, functional.avg_pool1d,
    functional.avg_pool2d, functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d,
}  # fmt: skip
FLATTEN = {torch.flatten, "flatten", "view", "reshape", "mean"}


@dataclass
class Channels:
    """What a layer computes: the layer, batch norms on the way, and the layers that read it, by qualified name."""

    layer: str
    norms: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)


class _Tracer(fx.Tracer):
    """Remembers where it was: a model that cannot be traced fails inside a module."""

    last = ""

    def call_module(self, m, forward, args, kwargs):  # type: ignore[no-untyped-def]
        self.last = self.path_of_module(m)
        return super().call_module(m, forward, args, kwargs)


def find_channels(model: nn.Module) -> list[Channels]:
    """The layers whose outputs may be taken away, in the order in which they are computed.

    Raises a `UserError` that names the module where a model cannot be traced (`torch.fx`).
    """
    tracer = _Tracer()
    try:
        graph = tracer.trace(model)
    except Exception as error:  # a forward method may raise anything on what is no tensor
        where = f"in {tracer.last}" if tracer.last else "at its beginning"
        raise UserError(f"the model cannot be traced, {where}: {error}") from error
    modules = dict(model.named_modules())
    calls = [node for node in graph.nodes if node.op == "call_module"]
    names = [str(node.target) for node in calls]
    weights = [id(module.weight) for module in modules.values() if isinstance(module, masks.PRUNABLE)]
    chains = []
    for node in calls:
        module = modules[str(node.target)]
        # what is used twice has readers elsewhere, too
        once = names.count(str(node.target)) == 1 and weights.count(id(getattr(module, "weight", None))) == 1
        if isinstance(module, masks.PRUNABLE) and getattr(module, "groups", 1) == 1 and once:
            way = _Follower(modules, Channels(str(node.target)))
            if all(way.follow(user, node, False) for user in node.users) and way.channels.readers:
                chains.append(way.channels)
    shared = {name for name in names if names.count(name) > 1}
    return [one for one in chains if not shared & {*one.readers, *one.norms}]


@dataclass
class _Follower:
    """What happens to the outputs of a layer; of a linear one they are the last axis, of any other the second."""

    modules: Mapping[str, nn.Module]
    channels: Channels

    def follow(self, node: fx.Node, value: fx.Node, flat: bool) -> bool:
        """Go on with what reads a value, `flat` where places were laid out beside channels.

        False where the channels cannot be told apart any more.
        """
        module = self.modules[str(node.target)] if node.op == "call_module" else None
        if isinstance(module, masks.PRUNABLE):
            self.channels.readers.append(str(node.target))
            return self._read(module, flat)
        if isinstance(module, _BatchNorm):
            self.channels.norms.append(str(node.target))
            fits = bool(module.num_features == self._count) or (flat and not self._linear)
        elif isinstance(module, nn.Flatten):
            flat, fits = True, (module.start_dim, module.end_dim) == (1, -1)
        elif module is not None:
            fits = isinstance(module, EACH_BY_ITSELF) or (isinstance(module, POOLS) and not self._linear and not flat)
        else:
            fits = _keeps_apart(node, value, self._linear or flat)
            flat = flat or (fits and node.target in FLATTEN)
        return fits and all(self.follow(user, node, flat) for user in node.users)

    @property
    def _linear(self) -> bool:
        return isinstance(self.modules[self.channels.layer], nn.Linear)

    @property
    def _count(self) -> int:
        return len(by_channel(self.modules[self.channels.layer], reads=False))

    def _read(self, reader: nn.Module, flat: bool) -> bool:
        """Whether a layer reads the channels as what they are."""
        if isinstance(reader, nn.Linear):
            return reader.in_features == self._count if self._linear else flat
        return not flat and not self._linear and bool(getattr(reader, "groups", 1) == 1)


def _keeps_apart(node: fx.Node, value: fx.Node, no_places: bool) -> bool:
    """Whether a function or a method leaves the channels of its first argument apart, in their order."""
    rest = [*node.args[1:], *node.kwargs.values()]
    if not node.args or node.args[0] is not value or value in rest:
        return False
    if node.target in FLATTEN:
        # x.flatten(1), x.view(x.size(0), -1), x.mean([2, 3])
        return bool(rest == [1] or (len(rest) == 2 and rest[1] == -1) or (not no_places and rest == [[2, 3]]))
    if node.target == "size":
        return rest == [0]
    return bool(node.target in ELEMENTWISE or (node.target in FUNCTIONAL_POOLS and not no_places))
