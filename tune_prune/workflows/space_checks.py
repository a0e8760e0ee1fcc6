"""Checks a space against the model and the task that it names, before a search begins."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from tune_prune.common.errors import UserError, format_names
from tune_prune.export.compaction import find_removable
from tune_prune.export.latency.programs import record_program
from tune_prune.export.latency.table import fingerprint, read_table
from tune_prune.hpo.config import Config
from tune_prune.hpo.groups import Shape
from tune_prune.hpo.parameters import Choice, Range, find_largest
from tune_prune.hpo.space import Space
from tune_prune.pruning import criteria, masks
from tune_prune.pruning.channels.counting import ChannelCounts, count_channels
from tune_prune.pruning.channels.tracer import find_inputs, trace
from tune_prune.pruning.granularity import BLOCK, CHANNEL, HEAD, MIXTURE_NAMES, MIXTURES, check_layers
from tune_prune.pruning.plan import WEIGHTS
from tune_prune.results import conf
from tune_prune.tasks.splits import AnySplit
from tune_prune.training.loop import check_training


def check_before_data(config: Config, space: Space, model: nn.Module) -> None:
    """Raises a `UserError` for what is wrong with a space and can be told from its model alone."""
    if space.settings.metric is None and config.acc_tradeoff is not None and config.acc_tradeoff > 100:
        raise UserError(f"--acc-tradeoff must be between 0 and 100 points, got {config.acc_tradeoff}")
    space.check_limits()
    _check_gradual(space)
    _check_pruners(config, space)
    shapes = masks.shapes(model)
    if not shapes:
        kinds = "tune_prune.register adds layers of your own"
        raise UserError(f"{space.source}: {space.model} has no layer that can be pruned; {kinds}")
    for label in shapes:
        conf.check_label(label, f"model {space.model!r}")
    if not space.prunes_channels:
        _check_searchable(space, shapes)
        _check_granularity(space, model, shapes)


def describe_doubts(space: Space) -> list[str]:
    """Describes what a space allows and probably does not mean: a list of two ratios, which is no range."""
    pairs = [(pattern, domain.options) for pattern, domain in space.ratios if isinstance(domain, Choice)]
    return [
        f"{space.source}: space.ratio.{pattern!r} = [{low}, {high}] chooses one of the two values; "
        f"for all between them write {{low = {low}, high = {high}}}"
        for pattern, (low, high) in ((pattern, sorted(map(float, pair))) for pattern, pair in pairs if len(pair) == 2)
    ]


def check_with_data(config: Config, space: Space, model: nn.Module, train: AnySplit) -> ChannelCounts | None:
    """Raises a `UserError` where trials could not train or be measured; returns the channels where they are pruned."""
    distill, smoothing = (find_largest(space.parameters.get(name, 0.0)) for name in ("distill", "label_smoothing"))
    check_training(model, train, distill, smoothing)
    _check_trainable(space, model)
    _check_latency(config, space, model, train)
    if not space.prunes_channels:
        return None
    channels = count_removable(model, train, space.source, str(space.parameters["granularity"]))
    shapes = shapes_with_ratios(model, channels)
    _check_searchable(space, shapes)
    pruned = [name.removeprefix("ratio/") for name in space.parameters_for(shapes) if name.startswith("ratio/")]
    _check_mixture(space, channels, pruned)
    check_layers(model, pruned, str(space.parameters["granularity"]), space.source)
    for key in ("multiple_of", "min_width"):
        least = int(find_largest(space.parameters.get(key, 1), whole=True))
        check_width(channels, pruned, least, f"{space.source}: space.{key}")
    return channels


def shapes_with_ratios(model: nn.Module, channels: ChannelCounts | None) -> dict[str, Shape]:
    """The shapes of what has a ratio: all layers, or the first of each group where groups are pruned."""
    shapes = masks.shapes(model)
    return {name: shapes[channels.first_layer(name)] for name in channels.names} if channels else shapes


def count_removable(model: nn.Module, train: AnySplit, source: str, granularity: str) -> ChannelCounts:
    """Finds the groups of channels or blocks that can be removed; a `UserError` where there is none names `source`."""
    try:
        found = find_removable(model, find_inputs(model, train), granularity)
    except UserError as error:
        raise UserError(f"{source}: granularity {granularity!r}: {error}") from error
    if not found.groups:
        label, reason = next(iter(found.staying.items()), ("", "no layer has channels"))
        why = f"no channels of this model can be removed; those of layer {label} stay since {reason}"
        if granularity == HEAD:
            why = "no heads of this model can be removed" + (f"; those of {label} stay since {reason}" if label else "")
        if granularity == BLOCK:
            why = "no module of this model returns its input where its weights are zero, as residual blocks do"
            why += f"; {label} stays since {reason}" if label else ""
        raise UserError(f"{source}: granularity {granularity!r}: {why}; prune it by granularity 'weight' or 'filter'")
    weights = tuple(masks.shapes(model)) if granularity in MIXTURES else ()
    return replace(count_channels(model, found.groups, found.staying), weights=weights)


def check_group(label: str, channels: ChannelCounts, where: str) -> None:
    """Raises a `UserError` that begins with `where` for a label that names none of the groups, and no layer's weights.

    The latter have ratios in a mixture alone.
    """
    if label not in channels.names:
        known = f"known: {format_names(channels.names)}"
        if label.startswith(WEIGHTS) and not channels.weights:
            known += f"; single weights have ratios with granularity {MIXTURE_NAMES}"
        raise UserError(f"{where}: layer {label} names no group that can be removed; {known}")


def _check_mixture(space: Space, channels: ChannelCounts, pruned: Iterable[str]) -> None:
    """Raises a `UserError` where a mixture is asked for, and channels alone or weights alone have ratios."""
    if not channels.weights:
        return
    granularity, by_kind = space.parameters["granularity"], {name.startswith(WEIGHTS) for name in pruned}
    lacks = f"{space.source}: granularity {granularity!r} prunes channels, and weights of what they leave"
    if True not in by_kind:
        advice = f'"{WEIGHTS}*" = {{low = 0.0, high = 0.95}}, or take granularity {CHANNEL!r}'
        raise UserError(f"{lacks}; space.ratio names no weights: add {advice}")
    if False not in by_kind:
        advice = f'"*" = {{low = 0.0, high = 0.9}}, or take granularity {MIXTURES[str(granularity)]!r}'
        raise UserError(f"{lacks}; space.ratio names no channels: add {advice}")


def check_width(channels: ChannelCounts, groups: Iterable[str], least: int, where: str) -> None:
    """Raises a `UserError` that begins with `where` for a group with fewer channels than are to be left at least."""
    for name in groups:
        count = channels.groups.get(name, least)  # a width is of channels, not of weights
        if name not in channels.blocks and least > count:
            raise UserError(f"{where}: {least} is more than the {count} channels of group {name}; lower it")


def _check_trainable(space: Space, model: nn.Module) -> None:
    """Raises a `UserError` where trials train and every parameter is frozen."""
    trains = any(find_largest(space.parameters.get(name, 0)) for name in ("steps", "final_steps"))
    if (trains or space.refine.share) and not any(parameter.requires_grad for parameter in model.parameters()):
        advice = "set requires_grad = True where its factory makes it"
        raise UserError(
            f"{space.source}: every parameter of {space.model} is frozen, and nothing can be trained; {advice}"
        )


def _check_pruners(config: Config, space: Space) -> None:
    """Raises a `UserError` where a pruner that is named by its address cannot be imported, or cannot score weights."""
    where = "--pruners" if config.pruners else f"{space.source}: space.pruner"
    for name in space.pruners:
        try:
            criteria.find_criterion(name)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error


def _check_searchable(space: Space, shapes: Mapping[str, Shape]) -> None:
    """Raises a `UserError` where a pattern matches no layer, or every parameter is fixed."""
    if not any(isinstance(domain, Range | Choice) for domain in space.parameters_for(shapes).values()):
        fixed = "every ratio and every other parameter is fixed, so that there is nothing to search"
        raise UserError(f"{space.source}: {fixed}; give one a range {{low, high}} or a list of values")


def _check_granularity(space: Space, model: nn.Module, shapes: Mapping[str, Shape]) -> None:
    """Raises a `UserError` where a layer that is pruned has no units of a granularity that the space names."""
    params = space.parameters_for(shapes)
    labels = {name.removeprefix("ratio/") for name in params if name.startswith("ratio/")}
    domain = params.get("granularity", "weight")
    for name in domain.options if isinstance(domain, Choice) else [domain]:
        check_layers(model, labels, str(name), space.source)


def _check_gradual(space: Space) -> None:
    """Raises a `UserError` where gradual pruning is asked for of units that one threshold cannot compare."""
    if not space.gradual.steps:
        return
    granularity, what = space.parameters.get("granularity", "weight"), "[gradual] compares all layers by one threshold"
    if isinstance(granularity, Choice):
        raise UserError(f"{space.source}: {what}, of one granularity; leave it out where trials choose of several")
    if space.parameters.get("mode") == "global":
        raise UserError(f'{space.source}: {what}, as all trials do in mode "global"; leave one of the two out')


def _check_latency(config: Config, space: Space, model: nn.Module, train: AnySplit) -> None:
    """Raises a `UserError` where latency cannot be predicted of a model, or not by the table that is given for it."""
    if not space.uses_latency:
        if config.latency_on:
            advice = 'write objectives = ["latency"] or at_most = {latency = 0.5} in its [goal]'
            raise UserError(f"--latency-on: {space.source} neither minimises latency nor limits it; {advice}")
        return
    try:
        trace(model, find_inputs(model, train))
    except UserError as error:
        raise UserError(f"{space.source}: latency cannot be predicted of {space.model}: {error}") from error
    if config.latency_on:
        _check_table(Path(config.latency_on), space, model, train)


def _check_table(path: Path, space: Space, model: nn.Module, train: AnySplit) -> None:
    try:
        table = read_table(path)
    except UserError as error:
        raise UserError(f"--latency-on {error}") from error
    if table.model != fingerprint(record_program(model, find_inputs(model, train, table.batch)).costs):
        advice = f"`tune-prune latency --space {space.name}` makes one of it"
        raise UserError(f"--latency-on {path}: is of another model than {space.model}; {advice}")
