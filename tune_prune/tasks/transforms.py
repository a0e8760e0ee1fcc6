"""Turns a data set's images into a model's inputs: the preprocessing of a model's weights, or a user's own."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tune_prune.common.entrypoints import is_address, parse_arguments
from tune_prune.common.errors import UserError, format_names
from tune_prune.tasks import in_memory

Transform = Callable[[Any], Any]
"""From an image, as a data set holds it, to a tensor."""

_MODELS = ("torchvision", "torchvision.models")
_TIMM = ("timm", "timm.models")


def load_transform(name: str | None, model: str) -> Transform | None:
    """The transform of a name, for the model called `model`: of its weights for "weights", else that at an address.

    A class is called for its transform, with the address's arguments; a function is the transform itself. None where
    nothing is named. Raises a `UserError` where the model names no weights of torchvision's or timm's.
    """
    if name is None:
        return None
    if name == "weights":
        return _find_preprocessing(model)
    found = in_memory.load_function(name)
    kind = found.func if isinstance(found, partial) else found
    made: Transform = found() if isinstance(kind, type) else found
    return made


def make_image_transform(resize: object = None) -> Transform:
    """Makes bytes of images; with `resize`, a side, squares that are cut at the centre."""
    from torchvision import transforms  # here, since the import takes half a second

    steps = [transforms.Resize(resize), transforms.CenterCrop(resize)] if isinstance(resize, int) else []
    made: Transform = transforms.Compose([*steps, transforms.PILToTensor()])
    return made


def _find_preprocessing(model: str) -> Transform:
    advice = "name some: torchvision:resnet18(weights='DEFAULT'), timm:resnet18(pretrained=True); or give a transform"
    module, _, network = model.partition("(")[0].partition(":")
    arguments = parse_arguments(model) if is_address(model) else {}
    if module in _TIMM and arguments.get("pretrained"):
        return _find_preprocessing_of_timm(model, network, arguments)
    weights = arguments.get("weights")
    if module not in _MODELS or not isinstance(weights, str):
        raise UserError(f"transform weights: model {model!r} names no pretrained weights; {advice}")
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


def _find_preprocessing_of_timm(model: str, network: str, arguments: Mapping[str, object]) -> Transform:
    """The transform of timm's pretrained weights, of the tag `pretrained_cfg` where that is given."""
    from timm.data import create_transform, resolve_data_config
    from timm.models import get_pretrained_cfg

    tag = arguments.get("pretrained_cfg")
    try:
        found = get_pretrained_cfg(f"{network}.{tag}" if isinstance(tag, str) else network, allow_unregistered=False)
    except RuntimeError as error:
        raise UserError(f"transform weights: model {model!r}: timm has no such weights ({error})") from error
    made: Transform = create_transform(**resolve_data_config(pretrained_cfg=found.to_dict()))
    return made
