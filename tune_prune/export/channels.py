"""Finds the output channels of a model that can be removed: which layer computes them, and which layers consume them.

A layer's output channels can be removed if every operation between the layer and its consumers works on each channel by
itself. Where there is any other operation (an addition, a concatenation, a normalisation over channels) they stay.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from tune_prune.common.errors import UserError
from tune_prune.export.resizing import flatten_by_channel, is_resizable

ELEMENTWISE_MODULES = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign,
    nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid,
)  # fmt: skip
POOLING_MODULES = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
)  # fmt: skip
ELEMENTWISE_FUNCTIONS = {
    torch.relu, torch.tanh, torch.sigmoid, functional.relu, functional.relu6, functional.leaky_relu, functional.elu,
    functional.gelu, functional.silu, functional.hardswish, functional.tanh, functional.sigmoid, functional.dropout,
    functional.dropout2d, "relu", "relu_", "tanh", "tanh_", "sigmoid", "sigmoid_", "contiguous",
}  # fmt: skip
POOLING_FUNCTIONS = {
    functional.max_pool1d, functional.max_pool2d, torch.max_pool1d, torch.max_pool2d, functional.avg_pool1d,
    functional.avg_pool2d, functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d,
}  # fmt: skip
FLATTENING_FUNCTIONS = {torch.flatten, "flatten", "view", "reshape", "mean"}


@dataclass
class Channels:
    """The output channels of a layer: the layer, the batch norms they pass, and their consumers, by qualified name."""

    layer: str
    norms: list[str] = field(default_factory=list)
    consumers: list[str] = field(default_factory=list)


class _Tracer(fx.Tracer):
    """Keeps the name of the last module traced: in it a model that cannot be traced fails."""

    last = ""

    def call_module(self, m, forward, args, kwargs):  # type: ignore[no-untyped-def]
        self.last = self.path_of_module(m)
        return super().call_module(m, forward, args, kwargs)


def find_channels(model: nn.Module) -> list[Channels]:
    """Lists the layers whose output channels can be removed, in the order in which they are computed.

    Layers that share a weight with another, and those that they read from, keep their channels.

    Raises a `UserError` that names the module where `torch.fx` cannot trace the model.
    """
    tracer = _Tracer()
    try:
        graph = tracer.trace(model)
    except Exception as error:  # a forward method may raise anything when it gets a proxy in place of a tensor
        where = f"in {tracer.last}" if tracer.last else "at its beginning"
        raise UserError(f"the model cannot be traced, {where}: {error}") from error
    modules = dict(model.named_modules())
    calls = [node for node in graph.nodes if node.op == "call_module"]
    names = [str(node.target) for node in calls]
    shared = _find_sharing(modules)
    found = []
    for node in calls:
        module = modules[str(node.target)]
        if is_resizable(module) and getattr(module, "groups", 1) == 1:
            follower = _Follower(modules, Channels(str(node.target)))
            if all(follower.follow(user, node, False) for user in node.users) and follower.channels.consumers:
                found.append(follower.channels)
    # the outputs of a layer that is used twice have consumers elsewhere, too; tied weights would no longer be tied
    staying = {name for name in names if names.count(name) > 1} | shared
    return [one for one in found if not staying & {one.layer, *one.consumers, *one.norms}]


def _find_sharing(modules: Mapping[str, nn.Module]) -> set[str]:
    """The names of the modules that share a parameter with another module, or with another name of their own."""
    owners = [(name, id(value)) for name, module in modules.items() for value in module._parameters.values()]
    times = Counter(parameter for _, parameter in owners)
    return {name for name, parameter in owners if times[parameter] > 1 and parameter != id(None)}


@dataclass
class _Follower:
    """Follows the outputs of a layer to their consumers and notes these and the batch norms between.

    The channels of a linear layer are the last axis of its output, those of any other layer the second.
    """

    modules: Mapping[str, nn.Module]
    channels: Channels

    def follow(self, node: fx.Node, value: fx.Node, flat: bool) -> bool:
        """Follows a value through its user `node` and on; False where its channels cannot be told apart any more.

        `flat`: the value has been flattened, so that all positions of a channel lie beside each other on one axis.
        """
        module = self.modules[str(node.target)] if node.op == "call_module" else None
        if module is not None and is_resizable(module):
            self.channels.consumers.append(str(node.target))
            return self._fits_consumer(module, flat)
        if isinstance(module, _BatchNorm):
            self.channels.norms.append(str(node.target))
            fits = bool(module.num_features == self._count) or (flat and not self._linear)
        elif isinstance(module, nn.Flatten):
            flat, fits = True, (module.start_dim, module.end_dim) == (1, -1)
        elif module is not None:
            pools = isinstance(module, POOLING_MODULES) and not self._linear and not flat
            fits = isinstance(module, ELEMENTWISE_MODULES) or pools
        else:
            fits = _keeps_channels_apart(node, value, self._linear or flat)
            flat = flat or (fits and node.target in FLATTENING_FUNCTIONS)
        return fits and all(self.follow(user, node, flat) for user in node.users)

    @property
    def _linear(self) -> bool:
        return isinstance(self.modules[self.channels.layer], nn.Linear)

    @property
    def _count(self) -> int:
        return len(flatten_by_channel(self.modules[self.channels.layer]))

    def _fits_consumer(self, consumer: nn.Module, flat: bool) -> bool:
        """Whether the input channels of a consumer are these channels, in their order."""
        if isinstance(consumer, nn.Linear):
            return consumer.in_features == self._count if self._linear else flat
        return not flat and not self._linear and bool(getattr(consumer, "groups", 1) == 1)


def _keeps_channels_apart(node: fx.Node, value: fx.Node, no_positions: bool) -> bool:
    """Whether a function or method keeps the channels of its first argument, `value`, apart and in order.

    `no_positions`: the value has no axes of positions behind its channels, as an image has.
    """
    rest = [*node.args[1:], *node.kwargs.values()]
    if not node.args or node.args[0] is not value or value in rest:
        return False
    if node.target in FLATTENING_FUNCTIONS:
        # x.flatten(1), x.view(x.size(0), -1), x.mean([2, 3])
        return bool(rest == [1] or (len(rest) == 2 and rest[1] == -1) or (not no_positions and rest == [[2, 3]]))
    if node.target == "size":
        return rest == [0]
    return bool(node.target in ELEMENTWISE_FUNCTIONS or (node.target in POOLING_FUNCTIONS and not no_positions))
