"""Reads files of `torch.save` that hold a model's weights, `.pth` and `.pt`; nothing but tensors is unpickled."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from tune_prune.common.errors import UserError, describe_error

SUFFIXES = (".pth", ".pt", ".ckpt", ".bin")
"""Ends of names of files that are read so."""

KEYS = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which training programs store a state dict beside other things."""

PREFIXES = ("module.", "_orig_mod.")
"""What `DataParallel` and `torch.compile` put before every name."""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Reads a state dict, also under one of `KEYS`, and takes `PREFIXES` off its names.

    Raises a `UserError` where the file is missing, or holds anything but tensors, numbers and containers of them.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of weights")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(f"{path}: holds more than tensors; save it as torch.save(model.state_dict(), path)") from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise UserError(f"{path}: cannot be read as a state dict ({describe_error(error)})") from error
    while isinstance(found, Mapping) and not _is_state_dict(found):
        inner = next((found[key] for key in KEYS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        found = inner
    if not _is_state_dict(found):
        raise UserError(f"{path}: holds no state dict, neither as a whole nor under {', '.join(KEYS)}")
    state = dict(found)
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _is_state_dict(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(part, Tensor) for part in value.values())
