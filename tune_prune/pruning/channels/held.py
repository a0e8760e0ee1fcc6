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

from tune_prune.pruning.channels import removal
from tune_prune.pruning.channels.groups import Group, HeldNumber, Member
from tune_prune.pruning.channels.norms import set_kept_by_norm
from tune_prune.pruning.channels.slicing import list_numbers, narrowed
from tune_prune.tasks.batches import Batch, call_model
from tune_prune.tasks.outputs import ROUNDING, differ

SHARES = (0.5, 0.75, 0.25)
"""The shares of a group's channels that are removed in tries, at other places each; what is found works with all."""

TRIES = 24
"""The most combinations of attributes that are tried for a group."""

Kind = tuple[type[nn.Module], str]
"""The class of a module, and the name of one of its attributes."""

Parts = Sequence[tuple[str, Sequence[Tensor]]]
"""What modules separate of a group: the module's name, and for each part the channels, -1 for one of another group."""


@dataclass(frozen=True)
class Candidate:
    """Attributes of one kind that may count the channels of a group, in all modules in which its layers lie."""

    kind: Kind
    numbers: tuple[HeldNumber, ...]


def find_held(
    model: nn.Module, inputs: Batch, groups: Sequence[Group], parts: Mapping[str, Parts] | None = None
) -> list[Group]:
    """The groups, with the numbers that have to change where channels of them leave, as far as such are found.

    `inputs` are a few samples, as `call_model` takes them; `parts` are by the name of a group. The model stays as is.
    """
    alike: dict[tuple[Kind, ...], list[Group]] = defaultdict(list)
    candidates = {group.name: list_candidates(model, group, (parts or {}).get(group.name, ())) for group in groups}
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
                inputs_of_one = max(parameter[:1].numel(), 1) if parameter.dim() else 1
                drawn = torch.randn(parameter.shape).to(parameter) / inputs_of_one**0.5
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

    def _find_kinds(self, group: Group) -> list[Kind] | None:
        """Kinds of attributes with which a group can lose channels, none of which is superfluous; None if none help."""
        kinds = [one.kind for one in self._candidates[group.name]]
        for chosen in islice(_list_choices(kinds), TRIES):
            if self._work_with(group, chosen):
                for kind in chosen if len(chosen) > 2 else ():
                    fewer = [one for one in chosen if one != kind]
                    chosen = fewer if self._work_with(group, fewer) else chosen
                return chosen
        return None

    def _work_with(self, group: Group, kinds: Sequence[Kind]) -> bool:
        changed = self._change(group, kinds)
        return all(self.works([changed], share) for share in SHARES)

    def _change(self, group: Group, kinds: Sequence[Kind]) -> Group:
        chosen = [one for one in self._candidates[group.name] if one.kind in kinds]
        return replace(group, held=tuple(number for one in chosen for number in one.numbers))

    @torch.no_grad()
    def works(self, groups: Sequence[Group], share: float = SHARES[0]) -> bool:
        """Whether the model without a share of the channels of these groups computes what the masked one does."""
        whole, generator = copy.deepcopy(self._model), torch.Generator().manual_seed(round(100 * share))
        made = removal.mask_at_random(whole, groups, {group.name: share for group in groups}, generator)
        expected = call_model(whole, self._inputs)
        try:
            with narrowed(whole, groups, made) as (small, _):
                output = call_model(small, self._inputs)
        except Exception:  # code that holds a number of channels may raise anything
            return False
        return differ(expected, output) <= ROUNDING


def _list_choices(kinds: Sequence[Kind]) -> Iterator[list[Kind]]:
    """The choices of kinds in the order of trial: each alone, all, all but one, two, three and more."""
    yield from ([kind] for kind in kinds)
    if len(kinds) > 1:
        yield list(kinds)
    if len(kinds) > 2:
        yield from ([one for one in kinds if one != kind] for kind in kinds)
    for size in range(2, len(kinds) - 1):
        yield from map(list, combinations(kinds, size))


def list_candidates(model: nn.Module, group: Group, parts: Parts = ()) -> list[Candidate]:
    """The attributes that may count channels of a group, those first that are as large as one of its sizes.

    Of these, numbers of the innermost modules come first.
    """
    if group.blocks:
        return []
    found: dict[Kind, list[HeldNumber]] = defaultdict(list)
    order: dict[Kind, tuple[bool, int]] = {}
    for name in _list_modules(group, parts):
        module = model.get_submodule(name)
        own = [of_split for other, of_split in parts if other == name]
        inside = [member for member in group.members if member.tensor.startswith(f"{name}." if name else "")]
        sizes, numbers = _list_sizes(group.count, inside, own), list_numbers(module)
        for attribute, value in numbers.items():
            counted = _find_place(attribute, numbers, own)
            counted = sizes.get(value) if counted is None else counted
            if counted is None and value % group.count == 0 and 0 < value < max(sizes):
                counted = torch.arange(group.count).repeat(value // group.count)
            if counted is not None:
                kind = (type(module), attribute.partition(".")[0])
                found[kind].append(HeldNumber(name, attribute, counted))
                order.setdefault(kind, (value not in sizes, -name.count(".") - bool(name)))
    return [Candidate(kind, tuple(found[kind])) for kind in sorted(found, key=lambda kind: order[kind])]


def _find_place(attribute: str, numbers: Mapping[str, int], splits: Sequence[Sequence[Tensor]]) -> Tensor | None:
    """The channels of the part whose size is at a place in a tuple, where it holds the sizes of all parts."""
    name, _, place = attribute.partition(".")
    values = [value for key, value in numbers.items() if place and key.startswith(f"{name}.")]
    for parts in splits:
        if values == [len(part) for part in parts]:
            return parts[int(place)][parts[int(place)] >= 0]
    return None


def _list_sizes(count: int, members: Sequence[Member], splits: Sequence[Sequence[Tensor]]) -> dict[int, Tensor]:
    """The channels that are counted by a number, by its value: those of parts, all `count`, and those of the axes.

    The number of an axis counts positions of other groups as well.
    """
    sizes: dict[int, Tensor] = {}
    for channels in [part for parts in splits for part in parts] + [torch.arange(count)]:
        if bool((channels >= 0).any()):
            sizes.setdefault(len(channels), channels[channels >= 0])
    for member in members:
        inside = member.channels[member.channels >= 0]
        for size in (len(inside), len(member.channels)):
            sizes.setdefault(size, inside)
    return sizes


def _list_modules(group: Group, parts: Parts) -> list[str]:
    """The names of the modules in which tensors of a group lie or that separate it, up to the first that has them all.

    Code further out works with what these return.
    """
    names = {member.tensor.rpartition(".")[0] for member in group.members}
    names |= {name for name, of_split in parts if any(bool((part >= 0).any()) for part in of_split)}
    paths = [name.split(".") if name else [] for name in names]
    columns = enumerate(zip(*paths, strict=False))
    shared = next((at for at, column in columns if len(set(column)) > 1), min(map(len, paths)))
    return sorted({".".join(path[:end]) for path in paths for end in range(shared, len(path) + 1)})
