"""Lists models and data sets of torchvision with their addresses, for messages that suggest what was meant."""

from collections.abc import Mapping
from inspect import isclass


def list_library_models() -> Mapping[str, str]:
    """The addresses of torchvision's models by name: {"resnet18": "torchvision:resnet18"}."""
    from torchvision import models  # here, since the import takes half a second

    return {name: f"torchvision:{name}" for name in models.list_models(module=models)}


def list_library_data() -> Mapping[str, str]:
    """The addresses of torchvision's data sets by name: {"CIFAR10": "torchvision:CIFAR10(root='data')"}."""
    from torchvision import datasets

    found = {name: getattr(datasets, name) for name in datasets.__all__}
    kinds = [name for name, kind in found.items() if isclass(kind) and issubclass(kind, datasets.VisionDataset)]
    return {name: f"torchvision:{name}(root='data')" for name in kinds}
