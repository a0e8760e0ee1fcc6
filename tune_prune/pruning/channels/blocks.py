"""Residual blocks: which modules a network computes without, and how they leave it.

A block is a module that returns its input where all of its parameters are zero, as x + f(x) does, and relu(x + f(x))
after another relu: alone, or as the first item of a tuple, before attention scores or what else it tells. So a block is
found by trying, whatever its code looks like. Blocks in the same module that have the same class and shapes, as those
of a stage, are one group: its ratio is the share of them that leaves.
"""

import copy
import inspect
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tune_prune.pruning.channels.groups import Group, Member, ModelChannels
from tune_prune.pruning.channels.tracer import named_tensors
from tune_prune.pruning.weights import find_weights, labelled_modules
from tune_prune.tasks.batches import Batch, call_model

CHANGES = "it does not return its input where its weights are zero, as where its shortcut has weights of its own"


class _Skipped:
    """Mixed into the class of a block that has left: it returns its first argument, in a tuple of so many `items`.

    The others are None; without items it is not in a tuple.
    """

    first_argument: str
    items: int

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the block was called with."""
        value = args[0] if args else kwargs[self.first_argument]
        return (value, *[None] * (self.items - 1)) if self.items else value


_classes: dict[type[nn.Module], type[nn.Module]] = {}


def skip_block(module: nn.Module, items: int = 0) -> None:
    """Makes a module return its first argument, with `items` the first of a tuple of so many, the others None.

    Its parameters and its parts are dropped, its attributes stay.
    """
    kind = type(module)
    if kind not in _classes:
        _classes[kind] = type(f"Skipped{kind.__name__}", (_Skipped, kind), {})
    first_argument = _name_first_argument(module)
    for parts in (module._modules, module._parameters, module._buffers):
        parts.clear()
    module.__class__ = _classes[kind]
    vars(module).update(first_argument=first_argument, items=items)


def _name_first_argument(module: nn.Module) -> str:
    return next(iter(inspect.signature(module.forward).parameters), "")


def skipped_blocks(model: nn.Module) -> dict[str, int]:
    """The modules that `skip_block` has made return their input, by name, and the items of the tuple of each."""
    return {name: module.items for name, module in model.named_modules() if isinstance(module, _Skipped)}


@torch.no_grad()
def find_blocks(model: nn.Module, inputs: Batch) -> ModelChannels:
    """Finds the groups of blocks of a model that can leave, and why others of their classes stay, by label.

    `inputs` are a few samples, as `call_model` takes them. Of modules inside one another the innermost are blocks. A
    group is named after its first block; the channels of its members are the numbers of its blocks.
    """
    found = _find_identities(model, inputs)
    labels = {id(module): label for label, module in labelled_modules(model)}
    alike: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for name, items in found.items():
        module = model.get_submodule(name)
        shapes = ((key, value.shape) for key, value in module.state_dict().items())
        alike[name.rpartition(".")[0], type(module), items, *shapes].append(name)
    names = {id(tensor): name for name, tensor in model.named_parameters()}
    groups = []
    for blocks in map(tuple, alike.values()):
        label = labels[id(model.get_submodule(blocks[0]))]
        members = _list_members(model, blocks, names)
        groups.append(Group(label, len(blocks), members, blocks=blocks, items=found[blocks[0]]))
    kinds = {type(model.get_submodule(name)) for name in found} - {nn.Sequential}
    others = [module for name, module in model.named_modules() if type(module) in kinds and name not in found]
    return ModelChannels(groups, {labels[id(module)]: CHANGES for module in others})


def _list_members(model: nn.Module, blocks: Sequence[str], names: dict[int, str]) -> tuple[Member, ...]:
    """All parameters of blocks, each of which belongs to the block of its number."""
    return tuple(
        Member(names[id(parameter)], 0, torch.full((len(parameter),), number), "block")
        for number, block in enumerate(blocks)
        for parameter in model.get_submodule(block).parameters()
        if parameter.dim()
    )


def _find_identities(model: nn.Module, inputs: Batch) -> dict[str, int]:
    """The innermost modules with weights that return their input in each call where these are zero, by name.

    The number is that of `_count_items`. They are called by the model as it is, and by the model with all parameters
    negated: what relu(x + f(x)) is given may be above zero by chance, and another one without other blocks or channels.
    """
    names = [*_list_candidates(model.eval())]
    if not names:
        return {}
    calls = _record_calls(model, inputs, names)
    with _negated(model):
        others = _record_calls(model, inputs, names)
    found: dict[str, int] = {}
    for name, of_module in reversed(calls.items()):  # the innermost first
        if not of_module or any(other.startswith(f"{name}.") for other in found):
            continue
        module = model.get_submodule(name)
        items = _count_items(module, *of_module[0])
        telling = [*of_module[1:], *(call for call in others[name] if _find_value(module, *call) is not None)]
        if items is not None and all(_count_items(module, *call) == items for call in telling):
            found[name] = items
    return dict(reversed(found.items()))


def _record_calls(model: nn.Module, inputs: Batch, names: Sequence[str]) -> dict[str, list[tuple[Any, ...]]]:
    """What modules of these names are called with, by position and by name, while a model runs."""
    calls: dict[str, list[tuple[Any, ...]]] = {name: [] for name in names}
    hooks = []
    for name, of_module in calls.items():

        def record(_: nn.Module, *call: Any, of_module: list[tuple[Any, ...]] = of_module) -> None:
            of_module.append(copy.deepcopy(call))  # operations in place may change inputs, and calls append to a cache

        hooks.append(model.get_submodule(name).register_forward_pre_hook(record, with_kwargs=True))
    try:
        call_model(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


@contextmanager
def _negated(model: nn.Module) -> Iterator[None]:
    """Negates all parameters of a model in the block."""
    for parameter in model.parameters():
        parameter.neg_()
    try:
        yield
    finally:
        for parameter in model.parameters():
            parameter.neg_()


def _list_candidates(model: nn.Module) -> Iterator[str]:
    """The names of the parts of a model that hold whole layers, and share no parameter with what is outside."""
    weights = find_weights(model).values()
    stored = {id(weight.stored.parameter) for weight in weights if not weight.weight.gates}
    gated = {id(weight.stored.parameter) for weight in weights if weight.weight.gates}
    everywhere = _count_uses(model)
    for name, module in model.named_modules():
        uses = _count_uses(module)
        is_layer = any(id(parameter) in stored for parameter in module._parameters.values())
        is_closed = all(everywhere[parameter] == count for parameter, count in uses.items())
        if name and not is_layer and is_closed and stored & uses.keys() and not gated & uses.keys():
            yield name


def _count_uses(model: nn.Module) -> Counter[int]:
    """The number of modules that have each parameter, by its id."""
    modules = [module for _, module in model.named_modules(remove_duplicate=False)]
    return Counter(id(one) for module in modules for one in module._parameters.values() if one is not None)


def _count_items(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """How many items the tuple has that a call returns where parameters are zero, 0 where it returns a tensor.

    None where that tensor, or the tuple's first item, is not the first argument.
    """
    value = _find_value(module, args, kwargs)
    if value is None:
        return None
    before = value.clone()
    with _zeroed(module):
        output = module(*args, **kwargs)
    items = len(output) if type(output) is tuple else 0
    first = output[0] if items else output
    # what an operation in place has done to the input would be missing without the block
    unchanged = torch.equal(value, before) and isinstance(first, Tensor) and torch.equal(first, before)
    return items if unchanged else None


def _find_value(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The first argument of a call, where it can tell whether a block returns it: finite numbers, not all zero."""
    value = args[0] if args else kwargs.get(_name_first_argument(module))
    if not isinstance(value, Tensor) or not value.is_floating_point() or not bool(value.any()):
        return None
    return value if bool(value.isfinite().all()) else None


@contextmanager
def _zeroed(module: nn.Module) -> Iterator[None]:
    """Sets all parameters of a module that have an axis to zero in the block, and puts them back."""
    saved = [(parameter, parameter.detach().clone()) for parameter in module.parameters() if parameter.dim()]
    try:
        for parameter, _ in saved:
            parameter.zero_()
        yield
    finally:
        for parameter, value in saved:
            parameter.copy_(value)


def find_kept_blocks(model: nn.Module, group: Group) -> Tensor:
    """Which blocks of a group are left, bool [count]: those of which a parameter is not zero."""
    tensors, kept = named_tensors(model), torch.zeros(group.count, dtype=torch.bool)
    for member in group.members:
        kept[member.channels[0]] |= bool(tensors[member.tensor].any())
    return kept
