"""Numbers of channels that a model's code holds: which attributes of modules change when channels leave.

The code of an attention reads `self.num_heads`, that of a vision transformer `self.hidden_dim`. Which attributes count
the channels of a group is found by trying: half of the channels are removed from a copy, and numbers that are as large
as one of the group's sizes change with them, until the copy computes what the masked model does.
"""

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice

import torch
from torch import Tensor, nn

from tune_prune.pruning import masks
from tune_prune.pruning.channels import removal
from tune_prune.pruning.channels.groups import Group, HeldNumber
from tune_prune.pruning.channels.norms import set_kept_by_norm
from tune_prune.pruning.channels.slicing import list_numbers, narrowed
from tune_prune.tasks.batches import Batch, call_model
from tune_prune.tasks.outputs import ROUNDING, differ

SHARES = (0.5, 0.25)
"""The shares of a group's channels that are removed in tries; numbers that are found are tried at both."""

TRIES = 40
"""The most combinations of attributes that are tried for a group."""

Kind = tuple[type[nn.Module], str]
"""The class of a module, and the name of one of its attributes."""


@dataclass(frozen=True)
class Candidate:
    """Attributes of one kind that may count the channels of a group, in all modules in which its layers lie."""

    kind: Kind
    numbers: tuple[HeldNumber, ...]


def find_held(model: nn.Module, inputs: Batch, groups: Sequence[Group]) -> list[Group]:
    """The groups, with the numbers that have to change where channels of them leave, as far as such are found.

    `inputs` are a few samples, as `call_model` takes them. The model stays as it is.
    """
    alike: dict[tuple[Kind, ...], list[Group]] = defaultdict(list)
    candidates = {group.name: list_candidates(model, group) for group in groups}
    for group in groups:
        if kinds := tuple(one.kind for one in candidates[group.name]):
            alike[kinds].append(group)
    search = _Search(model, inputs, candidates)
    suspects = [group for of_kind in alike.values() for group in of_kind]
    if not suspects or search.works(suspects):
        return list(groups)
    found = {group.name: group for of_kind in alike.values() for group in search.resolve(of_kind)}
    return [found.get(group.name, group) for group in groups]


class _Search:
    """Tries which numbers change with groups of a model."""

    def __init__(self, model: nn.Module, inputs: Batch, candidates: Mapping[str, Sequence[Candidate]]) -> None:
        self._inputs, self._candidates = inputs, candidates
        self._model = copy.deepcopy(model).eval()
        set_kept_by_norm(self._model, {})
        with torch.no_grad():
            for parameter in self._model.parameters():  # zeros would hide what is computed wrongly
                drawn = torch.randn(parameter.shape).to(parameter) / max(parameter[:1].numel(), 1) ** 0.5
                parameter.copy_(torch.where(parameter == 0, drawn, parameter))

    def resolve(self, groups: Sequence[Group]) -> Sequence[Group]:
        """Groups with the same kinds of candidates, with the numbers that they need; as they are where none help."""
        if self.works(groups):
            return groups
        failing = next((group for group in groups if not self.works([group])), None)
        kinds = None if failing is None else self._find_kinds(failing)
        if kinds is None:
            return groups
        changed = [self._change(group, kinds) for group in groups]
        if self.works(changed):
            return changed
        found = {group.name: group for group in groups if self.works([group])}
        found |= {group.name: group for group in changed if group.name not in found and self.works([group])}
        left = [group for group in groups if group.name not in found]
        return [*found.values(), *(self.resolve(left) if left else ())]

    def _find_kinds(self, group: Group) -> tuple[Kind, ...] | None:
        """The fewest kinds of attributes with which a group can lose channels; None where there are none."""
        kinds = [one.kind for one in self._candidates[group.name]]
        choices = (chosen for size in range(1, len(kinds) + 1) for chosen in combinations(kinds, size))
        for chosen in islice(choices, TRIES):
            changed = self._change(group, chosen)
            if all(self.works([changed], share) for share in SHARES):
                return chosen
        return None

    def _change(self, group: Group, kinds: Sequence[Kind]) -> Group:
        chosen = [one for one in self._candidates[group.name] if one.kind in kinds]
        return replace(group, held=tuple(number for one in chosen for number in one.numbers))

    @torch.no_grad()
    def works(self, groups: Sequence[Group], share: float = SHARES[0]) -> bool:
        """Whether the model without a share of the channels of these groups computes what the masked one does."""
        whole, generator = copy.deepcopy(self._model), torch.Generator().manual_seed(0)
        found = masks.dense_masks(whole)
        scores = {label: torch.rand(mask.shape, generator=generator).to(mask.device) for label, mask in found.items()}
        made = removal.remove(whole, groups, found, scores, {group.name: share for group in groups})
        masks.apply(whole, made)
        expected = call_model(whole, self._inputs)
        try:
            with narrowed(whole, groups, made) as (small, _):
                output = call_model(small, self._inputs)
        except Exception:  # code that holds a number of channels may raise anything
            return False
        return differ(expected, output) <= ROUNDING


def list_candidates(model: nn.Module, group: Group) -> list[Candidate]:
    """The attributes that may count channels of a group, those first that are as large as one of its sizes.

    They are numbers of the modules in which layers of the group lie; of those the innermost come first.
    """
    if group.blocks:
        return []
    sizes = _list_sizes(group)
    found: dict[Kind, list[HeldNumber]] = defaultdict(list)
    order: dict[Kind, tuple[bool, int]] = {}
    for name in _list_modules(group):
        module = model.get_submodule(name)
        for attribute, value in list_numbers(module).items():
            counted = sizes.get(value)
            is_multiple = value % group.count == 0 and 0 < value < max(sizes)
            if counted is None and is_multiple:
                counted = torch.arange(group.count).repeat(value // group.count)
            if counted is not None:
                kind = (type(module), attribute)
                found[kind].append(HeldNumber(name, attribute, counted))
                order.setdefault(kind, (value not in sizes, -name.count(".") - bool(name)))
    return [Candidate(kind, tuple(found[kind])) for kind in sorted(found, key=lambda kind: order[kind])]


def _list_sizes(group: Group) -> dict[int, Tensor]:
    """The channels that are counted by a number, by its value: the group's own, and those of the axes that list them.

    The number of an axis counts positions of other groups as well.
    """
    sizes = {group.count: torch.arange(group.count)}
    for member in group.members:
        inside = member.channels[member.channels >= 0]
        for size in (len(inside), len(member.channels)):
            sizes.setdefault(size, inside)
    return sizes


def _list_modules(group: Group) -> Iterator[str]:
    """The names of the modules in which tensors of a group lie, without repetition."""
    names = {member.tensor.rpartition(".")[0] for member in group.members}
    parts = {tuple(name.split("."))[:end] for name in names if name for end in range(1, name.count(".") + 2)}
    yield from sorted([""] + [".".join(part) for part in parts])
