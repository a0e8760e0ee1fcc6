"""Turns a data set's images into a model's inputs: the preprocessing of a model's weights, or a user's own."""

from collections.abc import Callable
from functools import partial
from typing import Any

from tune_prune.common.entrypoints import is_address, parse_arguments
from tune_prune.common.errors import UserError, format_names
from tune_prune.tasks import in_memory

Transform = Callable[[Any], Any]
"""From an image, as a data set holds it, to a tensor."""

_MODELS = ("torchvision", "torchvision.models")


def load_transform(name: str | None, model: str) -> Transform | None:
    """The transform of a name, for the model called `model`: of its weights for "weights", else that at an address.

    A class is called for its transform, with the address's arguments; a function is the transform itself. None where
    nothing is named. Raises a `UserError` where the model names no weights of torchvision's.
    """
    if name is None:
        return None
    if name == "weights":
        return _find_preprocessing(model)
    found = in_memory.load_function(name)
    kind = found.func if isinstance(found, partial) else found
    made: Transform = found() if isinstance(kind, type) else found
    return made


def _find_preprocessing(model: str) -> Transform:
    advice = "name one as torchvision:resnet18(weights='DEFAULT'), or give the address of a transform"
    module, _, network = model.partition("(")[0].partition(":")
    weights = parse_arguments(model).get("weights") if is_address(model) else None
    if module not in _MODELS or not isinstance(weights, str):
        raise UserError(f"transform weights: model {model!r} names no weights of torchvision's; {advice}")
    from torchvision import models  # here, since the import takes half a second

    try:
        known = models.get_model_weights(network)
    except ValueError as error:
        raise UserError(f"transform weights: torchvision has no weights of {network!r}; {advice}") from error
    try:
        found: Transform = known.verify(weights).transforms()
    except KeyError as error:
        names = format_names(each.name for each in known)
        raise UserError(f"transform weights: model {model!r}: {network} has the weights {names}") from error
    return found
