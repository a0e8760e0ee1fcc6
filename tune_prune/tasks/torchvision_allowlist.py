"""What `--no-code` allows of torchvision: networks without pretrained weights, and data sets of images or plain arrays.

Nothing is downloaded, and nothing is unpickled.
"""

from tune_prune.common.entrypoints import parse_arguments
from tune_prune.common.errors import UserError, format_names

WEIGHTS = ("weights", "pretrained", "weights_backbone", "pretrained_backbone")
"""Arguments of networks that name pretrained weights, which are downloaded and unpickled."""

DATASETS = (
    "Caltech256", "Country211", "DTD", "EuroSAT", "FER2013", "FGVCAircraft", "FakeData", "Food101", "GTSRB",
    "ImageFolder", "Imagenette", "Omniglot", "OxfordIIITPet", "RenderedSST2", "SEMEION", "STL10", "SUN397", "USPS",
)  # fmt: skip
"""Data sets that read images, text, JSON, or bytes of known meaning. Others read pickles (CIFAR, LSUN's cache, what
older versions made of MNIST), MATLAB's files or HDF5."""

ARGUMENTS = (
    "root", "resize", "train", "split", "partition", "folds", "background", "size", "image_size", "num_classes",
    "random_offset", "allow_empty", "annotation_level", "target_types",
)  # fmt: skip
"""Arguments of these data sets, other than `download=False`."""


def check_model(name: str) -> None:
    """Raises a `UserError` where `torchvision:<model>` is no network, or has pretrained weights."""
    from torchvision import models  # here, since the import takes half a second

    known = models.list_models(module=models)
    network = _get_attribute(name)
    if network not in known:
        raise UserError(f"model {name!r}: torchvision has no such network; it has {format_names(known)}")
    for key, value in parse_arguments(name).items():
        if key in WEIGHTS and value:
            raise UserError(f"model {name!r}: {key} would be downloaded and unpickled, which --no-code refuses")


def check_data(name: str) -> None:
    """Raises a `UserError` where `torchvision:<data set>` is not in `DATASETS`, or has an argument of another kind."""
    if _get_attribute(name) not in DATASETS:
        allowed = f"--no-code refuses this data set; it takes {format_names(DATASETS)}"
        raise UserError(f"data {name!r}: {allowed}")
    for key, value in parse_arguments(name).items():
        if key == "download" and value:
            raise UserError(f"data {name!r}: --no-code downloads nothing; leave out download")
        if key not in (*ARGUMENTS, "download"):
            raise UserError(f"data {name!r}: --no-code refuses {key}; it takes {format_names(ARGUMENTS)}")


def _get_attribute(name: str) -> str:
    return name.partition("(")[0].partition(":")[2]
