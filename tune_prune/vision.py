"""torchvision's data sets, `torchvision:CIFAR10(root='data')`, as tensors in memory."""

import inspect
from collections.abc import Callable
from typing import Any

from tune_prune.common.entrypoints import parse_arguments
from tune_prune.common.errors import UserError, format_names
from tune_prune.splits import Data, Split, hold_out, stacked

ROOT = "data"
"""Where data sets are looked for, and downloaded to, unless `root` is given."""


def load(name: str, say: Callable[[str], None]) -> Data:
    """The data set at `torchvision:NAME(key=value)`; `resize` makes all images squares of that side, cut at the centre.

    A tenth of the training images is held out for validation, and where the set has no test images of its own, as many
    for testing: `say` is told. It is downloaded where it is not there. A `UserError` says what is wrong.
    """
    from torchvision import datasets  # when it is asked for: it takes half a second

    arguments = parse_arguments(name)
    resize = arguments.pop("resize", None)
    kind = name.partition("(")[0].partition(":")[2]
    make = getattr(datasets, kind, None)
    if not (isinstance(make, type) and issubclass(make, datasets.VisionDataset)):
        there = [key for key, value in vars(datasets).items() if isinstance(value, type)]
        raise UserError(f"data {name!r}: torchvision has no such data set; it has {format_names(sorted(there))}")
    takes = inspect.signature(make).parameters
    given = {key: value for key, value in (("root", ROOT), ("download", True)) if key in takes} | arguments

    def part(**which: object) -> Split:
        return _read(name, make, {**given, **which}, resize)

    own = next((parts for key, parts in OWN_TEST.items() if key in takes and key not in arguments), None)
    if own is None:
        rest, test = hold_out(part())
        train, validation = hold_out(rest, len(test.labels))
        say(f"{name}: a tenth of the images is held out for validation, and another for testing")
        return Data(train, validation, lambda: test)
    train, validation = hold_out(part(**own[0]))
    say(f"{name}: a tenth of the training images is held out for validation")
    return Data(train, validation, lambda: part(**own[1]))


OWN_TEST: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "train": ({"train": True}, {"train": False}),
    "split": ({"split": "train"}, {"split": "test"}),
}
"""How data sets with test images of their own are asked for either."""


def _read(name: str, make: Callable[..., Any], arguments: dict[str, object], resize: object) -> Split:
    from torchvision import transforms

    steps = [transforms.Resize(resize), transforms.CenterCrop(resize)] if isinstance(resize, int) else []
    try:
        found = make(transform=transforms.Compose([*steps, transforms.PILToTensor()]), **arguments)
        return stacked(found)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        where = f"; it is looked for in {arguments['root']!r}" if "root" in arguments else ""
        raise UserError(f"data {name!r}: cannot be loaded ({type(error).__name__}: {error}){where}") from error
