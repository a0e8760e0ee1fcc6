"""Builds models by name: the built-in ones, those of torchvision, timm and transformers, and a user's own."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tune_prune.common.entrypoints import FACTORY, call_factory, is_address, refuse_code
from tune_prune.common.errors import UserError
from tune_prune.common.import_path import is_code_refused
from tune_prune.common.registry import Registry
from tune_prune.tasks import torchvision_allowlist
from tune_prune.tasks.hugging_face_models import is_hugging_face_model, make_model
from tune_prune.tasks.library_names import list_library_models

models: Registry[Callable[[], nn.Module]] = Registry("model", list_library_models, FACTORY)

WEIGHTS = Path(__file__).parent / "weights"
"""The folder with the dense weights of the built-in models, one `<model>.safetensors` each."""


@models.register("lenet5")
def lenet5() -> nn.Sequential:
    """torch7-pruner's LeNet-5: [n, 1, 28, 28] -> [n, 10], 313,470 weights in layers 1, 4, 8, 10, 12."""
    # torch7-pruner applies tanh before the pooling. Tanh increases everywhere, so that the pooling selects the same
    # value in either order; after the pooling, tanh is computed for a quarter as many values.
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.MaxPool2d(2),
        nn.Tanh(),
        nn.Conv2d(6, 96, 5),
        nn.MaxPool2d(2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(2400, 120),
        nn.Tanh(),
        nn.Linear(120, 84),
        nn.Tanh(),
        nn.Linear(84, 10),
    )


@models.register("lenet_300_100")
def lenet_300_100() -> nn.Sequential:
    """LeNet-300-100 (LeCun et al. 1998): [n, 1, 28, 28] -> [n, 10], 266,200 weights in layers 2, 4, 6."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


@models.register("lenet5_caffe")
def lenet5_caffe() -> nn.Sequential:
    """Caffe's LeNet-5: [n, 1, 28, 28] -> [n, 10], 430,500 weights in layers 1, 3, 6, 8."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )


def build(name: str) -> nn.Module:
    """Makes a new model from a built-in name, an address `package.module:factory`, or a library's name and a model's.

    The libraries are torchvision, timm and transformers (`hugging_face_models`). A name may end in arguments:
    `torchvision:resnet18(num_classes=10)`. Raises a `UserError` where the name is
    unknown, the factory fails, or it returns no `nn.Module`.
    """
    if not is_address(name):
        return models[name]()
    address = _expand(name)
    harmless = is_code_refused() and address.startswith("torchvision.models:")
    if harmless:
        torchvision_allowlist.check_model(name)
    if is_hugging_face_model(name):
        refuse_code(name)
        return make_model(name)
    model = call_factory(address, "model", harmless)
    if not isinstance(model, nn.Module):
        raise UserError(f"model {name!r} returned {type(model).__name__}; a factory returns an nn.Module")
    detach_computed(model)
    return model


def detach_computed(model: nn.Module) -> None:
    """Detaches the weights that hooks compute, as those of `torch.nn.utils.weight_norm` do: others cannot be copied."""
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                setattr(module, name, value.detach())


def byte_scale(name: str) -> float:
    """What the bytes of a model's inputs are divided by: 255, but 256 for the built-in models, as in torch7-pruner."""
    return 255.0 if is_address(name) else 256.0


def build_on_meta(name: str) -> nn.Module | None:
    """Makes a model of torchvision whose weights have shapes but take no memory; None for any other model.

    Its name may come from a stranger's file and ask for any number of classes. Built-in models are small, and a user's
    own code, which could take memory in any way, is run as it is.
    """
    if not _expand(name).startswith("torchvision.models:"):
        return None
    with torch.random.fork_rng([]), _EmptyOnMeta():
        return build(name)


class _EmptyOnMeta(TorchFunctionMode):
    """Puts new tensors without values, as all layers make for their weights, on the meta device.

    `torch.device("meta")` would do so with all tensors, and some factories read values of small ones.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is None:
            kwargs = kwargs | {"device": "meta"}
        return func(*args, **kwargs)


def _expand(name: str) -> str:
    return re.sub(r"^(torchvision|timm):", r"\1.models:", name)


def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copies a state dict, which may come from a file, into a model; raises as `load_state_dict` does."""
    versioned = model.state_dict()  # has the versions of its modules, which some of them ask for when they load
    versioned.clear()
    versioned.update(state)
    model.load_state_dict(versioned)


def sequential_parts(model: nn.Module) -> list[nn.Module]:
    """Lists the parts of a model that only runs them one after the other; empty for any other model."""
    if isinstance(model, nn.Sequential) and type(model).forward is nn.Sequential.forward:
        return list(model)
    return []


def pretrained_path(name: str) -> Path | None:
    """The file with the dense weights of a built-in model; None for any other model, and where there is no file."""
    path = WEIGHTS / f"{name}.safetensors"
    return path if name in models and path.is_file() else None


def to_device(model: nn.Module, device: torch.device) -> nn.Module:
    """Moves a model to a device, with its 2-d convolutions in channels-last, which is faster on a CPU."""
    model = model.to(device)
    for parameter in model.parameters():
        if parameter.dim() == 4:  # Module.to would refuse the weights of a Conv3d
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return model
